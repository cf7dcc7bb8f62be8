"""What CycleFC is: its offsets in closed form, and its definition.

The operator comes from Chen et al., "CycleMLP: A MLP-like Architecture for
Dense Prediction" (ICLR 2022, https://arxiv.org/abs/2107.10224). The route
through a deformable convolution is the one the released weights were trained
with; the other backends are held to it.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor


def cycle_offsets(channels: int, kernel_size: tuple[int, int]) -> Tensor:
    """Spatial offset at which each input channel is read.

    For kernel ``(1, k)`` channel ``c`` moves by ``(c + k // 2) % k - k // 2``
    along the width, for ``(k, 1)`` along the height. With both sides above 1
    the vertical offset cycles first: ``dy`` from ``c % S_H``, ``dx`` from
    ``(c // S_H) % S_W``, centred the same way.

    Args:
        channels: Number of input channels C.
        kernel_size: ``(S_H, S_W)``, both odd.

    Returns:
        Integer tensor of shape (C, 2), one ``(dy, dx)`` per channel.
    """
    size_h, size_w = kernel_size
    c = torch.arange(channels)
    dy = (c + size_h // 2) % size_h - size_h // 2
    dx = (c // size_h + size_w // 2) % size_w - size_w // 2
    return torch.stack([dy, dx], dim=1)


def unavailable_reason(x: Tensor) -> str | None:
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
        # The deformable convolutions refuse empty maps.
        return x.new_zeros(n, weight.shape[0], h, w)
    if x.dtype in (torch.float16, torch.bfloat16):
        # Not every build of the deformable convolution has these.
        bias = None if bias is None else bias.float()
        return cycle_fc_reference(
            x.float(), weight.float(), bias, kernel_size).to(x.dtype)
    offset = cycle_offsets(c, kernel_size).to(x).reshape(1, 2 * c, 1, 1)
    offset = offset.expand(n, 2 * c, h, w).contiguous()
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):
        from mmcv.ops import deform_conv2d

        y = deform_conv2d(
            x.contiguous(), offset, weight, 1, 0, 1, 1, c, False, 1)
        return y if bias is None else y + bias.view(1, -1, 1, 1)
    return deform_conv2d(x.contiguous(), offset, weight, bias)
