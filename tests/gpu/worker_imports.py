"""Imports what the processes of :mod:`.worker` need, once for all of them.

None of it may ask CUDA for its GPUs. The processes could not use them then.
"""

import contextlib
import importlib
import os
from unittest import mock

import torch

# Set where nothing is compiled by Inductor.
WITHOUT_COMPILER = 'MMCYCLEMLP_WITHOUT_COMPILER'
_COMPILER = ['torch._inductor.compile_fx', 'torch._inductor.lowering',
             'torch._inductor.codegen.triton',
             'torch._inductor.select_algorithm']


def _import(name: str) -> None:
    # RuntimeError: torchvision beside a torch it was not built for.
    with contextlib.suppress(ImportError, RuntimeError):
        importlib.import_module(name)


for _name in ('tests.gpu.worker', 'timm', 'torchvision', 'triton',
              'torch._dynamo'):
    _import(_name)
if WITHOUT_COMPILER not in os.environ:
    # Inductor of torch 2.11 asks whether it may time kernels on a GPU.
    with mock.patch.object(torch.cuda, 'is_available', lambda: True):
        for _name in _COMPILER:
            _import(_name)
