"""Backend ``plain``: CycleFC in stock operators, to count and to export."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .offsets import offset_classes


def cycle_fc_plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, int],
) -> Tensor:
    """CycleFC of stock operators: pad, slice, concatenate, convolve.

    Args:
        x: (N, C, H, W).
        weight: (O, C, 1, 1).
        bias: (O,) or None.
        kernel_size: ``(S_H, S_W)``, both odd.

    Returns:
        (N, O, H, W).
    """
    height, width = x.shape[2:]
    top, left = kernel_size[0] // 2, kernel_size[1] // 2
    padded = F.pad(x, (left, left, top, top))
    classes = offset_classes(x.shape[1], kernel_size)
    # Sorted by offset, channels and columns of the weight alike.
    moved = torch.cat([
        padded[:, group, top + dy:top + dy + height,
               left + dx:left + dx + width]
        for group, dy, dx in classes], 1)
    columns = torch.cat([weight[:, group] for group, _, _ in classes], 1)
    return F.conv2d(moved, columns, bias)
