"""Tensors that follow from numbers alone, made once for each device."""

from __future__ import annotations

from functools import cache
from typing import Callable

import torch
from torch import Tensor

from .custom_op import is_compiling


def constant(make: Callable, like: Tensor, *args):
    """``make(device, *args)`` on the device of ``like``, kept for next time.

    It is kept for plain tensors in the default stream alone. Fake tensors,
    inference tensors and what is captured in a CUDA graph are of no use
    afterwards.

    Args:
        make: Makes tensors on a device. It copies nothing from the host,
            which a capture would refuse.
        like: Where the tensors are needed.
        args: Hashable.
    """
    if is_compiling() or type(like) is not Tensor or (
            like.is_cuda and torch.cuda.current_stream(like.device)
            != torch.cuda.default_stream(like.device)):
        return make(like.device, *args)
    with torch.inference_mode(False):
        return _kept(make, like.device, *args)


@cache
def _kept(make, device, *args):
    return make(device, *args)
