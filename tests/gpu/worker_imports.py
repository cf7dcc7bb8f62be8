"""Imports what the processes of :mod:`.worker` need, once for all of them.

No import may call CUDA, because forked processes could not use it then.
"""

import contextlib
import importlib
import os
from unittest import mock

import torch

# An environment variable; if it is set, Inductor is not imported.
WITHOUT_COMPILER = 'MMCYCLEMLP_WITHOUT_COMPILER'
_COMPILER = ['torch._inductor.compile_fx', 'torch._inductor.lowering',
             'torch._inductor.codegen.triton',
             'torch._inductor.select_algorithm']


def _import(name: str) -> None:
    # RuntimeError: torchvision was built for another torch.
    with contextlib.suppress(ImportError, RuntimeError):
        importlib.import_module(name)


for _name in ('tests.gpu.worker', 'timm', 'torchvision', 'triton',
              'torch._dynamo'):
    _import(_name)
if WITHOUT_COMPILER not in os.environ:
    # On import, Inductor of torch 2.11 checks if it can time on a GPU.
    with mock.patch.object(torch.cuda, 'is_available', lambda: True):
        for _name in _COMPILER:
            _import(_name)
