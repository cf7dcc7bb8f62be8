"""The spatial offset at which CycleFC reads each channel, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def cycle_offsets(channels: int, kernel_size: tuple[int, int],
                  device: torch.device | str = 'cpu') -> Tensor:
    """Spatial offset at which each input channel is read.

    For kernel ``(1, k)`` channel ``c`` moves by ``(c + k // 2) % k - k // 2``
    along the width, for ``(k, 1)`` along the height. With both sides above 1
    the vertical offset cycles first: ``dy`` from ``c % S_H``, ``dx`` from
    ``(c // S_H) % S_W``, centered the same way.

    Args:
        channels: Number of input channels C.
        kernel_size: ``(S_H, S_W)``, both odd.
        device: Where the result is.

    Returns:
        Integer tensor of shape (C, 2), one ``(dy, dx)`` per channel.
    """
    offsets = torch.zeros(channels, 2, dtype=torch.long, device=device)
    for group, dy, dx in offset_classes(channels, kernel_size):
        offsets[group, 0], offsets[group, 1] = dy, dx
    return offsets


def offset_classes(
        channels: int,
        kernel_size: tuple[int, int]) -> list[tuple[slice, int, int]]:
    """The channels that share an offset, and the offset, of every one.

    Returns:
        ``(channels, dy, dx)`` for each offset that a channel has.
    """
    size_h, size_w = kernel_size
    period = size_h * size_w
    return [
        (slice(n, channels, period),
         (n + size_h // 2) % size_h - size_h // 2,
         (n // size_h + size_w // 2) % size_w - size_w // 2)
        for n in range(min(period, channels))]
