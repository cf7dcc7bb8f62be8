"""Backend ``triton``: one kernel for each product, on a GPU.

Importing this package does not import Triton. The first use of an op does.
"""

from __future__ import annotations

import os
from importlib import metadata

import torch
from torch import Tensor

from ..custom_op import HAS_CUSTOM_OP
from .tiles import is_measured_faster

__all__ = ['cycle_product_triton', 'is_measured_faster',
           'unavailable_reason']

# These cannot change while Python runs. They are found on import, because
# torch.compile traces unavailable_reason and cannot trace the search.
_HAS_CUSTOM_OP = HAS_CUSTOM_OP
try:
    _TRITON = metadata.version('triton')
except metadata.PackageNotFoundError:
    _TRITON = None
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unavailable_reason(x: Tensor) -> str | None:
    """Return why this backend cannot run on ``x``, or None if it can.

    Without a GPU it runs only in Triton's interpreter, which is slow and
    meant for tests. Set ``TRITON_INTERPRET=1`` in the environment before
    Triton is imported.
    """
    if not _HAS_CUSTOM_OP:
        return f'it needs torch 2.6 or later, got {torch.__version__}'
    if _TRITON is None:
        return 'it needs triton, which is not installed'
    version = tuple(map(int, _TRITON.split('.')[:2]))
    if version < (3, 2):
        return f'it needs triton 3.2 or later, got {_TRITON}'
    if x.dtype not in _DTYPES:
        return f'it needs float32, float16 or bfloat16, got {x.dtype}'
    if x.is_cuda and torch.version.hip is not None:
        return 'it needs an NVIDIA GPU, and this torch is for AMD ones'
    if x.is_cuda:
        capability = torch.cuda.get_device_capability(x.device)
        if capability < (8, 0):
            return ('it needs a GPU of compute capability 8.0 or higher, got '
                    f'{capability[0]}.{capability[1]}')
        if capability >= (9, 0) and version < (3, 4):
            # Earlier versions do not pipeline operands of tl.where.
            return ('it needs triton 3.4 or later on a GPU of compute '
                    f'capability {capability[0]}.{capability[1]}, got '
                    f'{_TRITON}')
    elif os.environ.get('TRITON_INTERPRET') != '1':
        return f'it needs a tensor on a GPU, got {x.device}'
    elif x.dtype == torch.bfloat16:
        return f"Triton's interpreter cannot multiply {x.dtype}"
    return None


def __getattr__(name: str):
    if name != 'cycle_product_triton':
        raise AttributeError(
            f'module {__name__!r} has no attribute {name!r}')
    from .launch import cycle_product_triton

    return cycle_product_triton
