"""Tensors that depend only on numbers, created once for each device."""

from __future__ import annotations

from functools import cache
from typing import Callable

import torch
from torch import Tensor

from .custom_op import is_compiling


def constant(make: Callable, like: Tensor, *args):
    """Call ``make(device, *args)`` for the device of ``like``, and cache it.

    The result is cached only if ``like`` is a plain tensor and the current
    stream is the default one. Fake tensors, and tensors from the capture of
    a CUDA graph, cannot be used later. A cached tensor is never an inference
    tensor, so later training can use it.

    Args:
        make: Creates tensors on a device. It must not copy from the host,
            because a capture does not allow that.
        like: A tensor on the device where the result is needed.
        args: Hashable arguments of ``make``.
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
