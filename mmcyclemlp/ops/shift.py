"""Backend ``torch``: move the channels, then one matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import cycle_offsets


def unavailable_reason(x: Tensor) -> str | None:
    """Why this backend cannot run on ``x``: it always can."""
    return None


def _move(x: Tensor, kernel_size: tuple[int, int], sign: int) -> Tensor:
    """Read channel c of ``x`` at ``sign`` times its offset, zero outside."""
    period = kernel_size[0] * kernel_size[1]
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    # Channels whose offsets agree move together: `period` strided copies.
    for first, (dy, dx) in enumerate(
            cycle_offsets(period, kernel_size).tolist()):
        if first >= x.shape[1]:
            break
        dy, dx = sign * dy, sign * dx
        src, dst = x[:, first::period], out[:, first::period]
        top, bottom = max(0, -dy), max(0, min(height, height - dy))
        left, right = max(0, -dx), max(0, min(width, width - dx))
        if top >= bottom or left >= right:
            dst.zero_()
            continue
        dst[..., :top, :] = 0
        dst[..., bottom:, :] = 0
        dst[..., :left] = 0
        dst[..., right:] = 0
        dst[..., top:bottom, left:right] = src[
            ..., top + dy:bottom + dy, left + dx:right + dx]
    return out


class _Shift(torch.autograd.Function):
    """The move as one node; its adjoint is the opposite move."""

    @staticmethod
    def forward(ctx, x, kernel_size, sign):
        ctx.kernel_size, ctx.sign = kernel_size, sign
        return _move(x, kernel_size, sign)

    @staticmethod
    def backward(ctx, grad):
        return _Shift.apply(grad, ctx.kernel_size, -ctx.sign), None, None


def cycle_fc_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, int],
) -> Tensor:
    """CycleFC as moved channels times the weight matrix.

    The result has the memory format of ``x``, and no layout copy is made for
    dense NCHW or channels-last input.

    Args:
        x: (N, C, H, W).
        weight: (O, C, 1, 1).
        bias: (O,) or None.
        kernel_size: ``(S_H, S_W)``, both odd.

    Returns:
        (N, O, H, W).
    """
    moved = _Shift.apply(x, kernel_size, 1)
    if moved.is_contiguous():
        return F.conv2d(moved, weight, bias)
    y = F.linear(moved.permute(0, 2, 3, 1), weight.flatten(1), bias)
    return y.permute(0, 3, 1, 2)
