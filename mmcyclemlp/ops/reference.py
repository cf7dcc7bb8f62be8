"""Backend ``reference``: CycleFC as a deformable convolution.

The operator comes from Chen et al., "CycleMLP: A MLP-like Architecture for
Dense Prediction" (ICLR 2022, https://arxiv.org/abs/2107.10224). The released
weights were trained with this form. The tests compare the other backends
with it.
"""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant
from .offsets import cycle_offsets


def _offset_buffer(device, channels, kernel_size, dtype):
    """What the deformable convolution takes, (1, 2 C, 1, 1)."""
    offsets = cycle_offsets(channels, kernel_size, device).to(dtype)
    return offsets.reshape(1, 2 * channels, 1, 1)


def unavailable_reason() -> str | None:
    """Why the deformable convolution cannot run here, or None if it can."""
    for module in ('torchvision.ops', 'mmcv.ops'):
        try:
            importlib.import_module(module)
        except (ImportError, RuntimeError):
            # RuntimeError: torchvision beside a torch it was not built for.
            continue
        return None
    return 'it needs torchvision or mmcv, and neither can be imported'


def cycle_fc_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, int],
) -> Tensor:
    """CycleFC as a 1x1 deformable convolution with C offset groups.

    Args:
        x: (N, C, H, W).
        weight: (O, C, 1, 1).
        bias: (O,) or None.
        kernel_size: ``(S_H, S_W)``, both odd.

    Returns:
        (N, O, H, W).
    """
    n, c, h, w = x.shape
    if n == 0 or h == 0 or w == 0:
        # The deformable convolutions refuse empty maps. No offset matters,
        # but that weights get a gradient.
        y = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)
        return y.permute(0, 3, 1, 2)
    if x.dtype in (torch.float16, torch.bfloat16):
        # Not every build of the deformable convolution has these.
        bias = None if bias is None else bias.float()
        return cycle_fc_reference(
            x.float(), weight.float(), bias, kernel_size).to(x.dtype)
    # The official code keeps them in a buffer.
    offset = constant(_offset_buffer, x, c, tuple(kernel_size), x.dtype)
    offset = offset.expand(n, 2 * c, h, w)
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):
        from mmcv.ops import deform_conv2d

        y = deform_conv2d(
            x.contiguous(), offset.contiguous(), weight, 1, 0, 1, 1, c,
            False, 1)
        return y if bias is None else y + bias.view(1, -1, 1, 1)
    return deform_conv2d(x.contiguous(), offset, weight, bias)
