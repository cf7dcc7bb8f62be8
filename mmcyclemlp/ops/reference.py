"""What CycleFC is: its offsets in closed form, and its definition.

The operator comes from Chen et al., "CycleMLP: A MLP-like Architecture for
Dense Prediction" (ICLR 2022, https://arxiv.org/abs/2107.10224). The route
through a deformable convolution is the one the released weights were trained
with; the other backends are held to it.
"""

from __future__ import annotations

import importlib
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant


def cycle_offsets(channels: int, kernel_size: tuple[int, int],
                  device: torch.device | str = 'cpu') -> Tensor:
    """Spatial offset at which each input channel is read.

    For kernel ``(1, k)`` channel ``c`` moves by ``(c + k // 2) % k - k // 2``
    along the width, for ``(k, 1)`` along the height. With both sides above 1
    the vertical offset cycles first: ``dy`` from ``c % S_H``, ``dx`` from
    ``(c // S_H) % S_W``, centred the same way.

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


def _offset_buffer(device, channels, kernel_size, dtype):
    """What the deformable convolution takes, (1, 2 C, 1, 1)."""
    offsets = cycle_offsets(channels, kernel_size, device).to(dtype)
    return offsets.reshape(1, 2 * channels, 1, 1)


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


class MixerWeights(NamedTuple):
    """Parameters of a token mixer.

    The weights are (C, C), those of the two CycleFC (C, C, 1, 1) as well;
    the biases are (C,), and ``c_bias`` may be None.
    """

    h_weight: Tensor
    h_bias: Tensor
    w_weight: Tensor
    w_bias: Tensor
    c_weight: Tensor
    c_bias: Tensor | None
    proj_weight: Tensor
    proj_bias: Tensor


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


def cycle_mixer_reference(
    x: Tensor,
    weights: MixerWeights,
    reweight: Callable[[Tensor], Tensor] | None,
    kernel_size: tuple[int, int],
    cycle_fc: Callable[..., Tensor] = cycle_fc_reference,
) -> Tensor:
    """Token mixer as the paper has it: branches, their weights, their sum.

    Args:
        x: (B, H, W, C).
        weights: Parameters of the branches and of the projection.
        reweight: Maps (B, C) to (B, 3 C). None weighs all branches 1.
        kernel_size: ``(S_H, S_W)`` of the first CycleFC.
        cycle_fc: Computes ``(x, weight, bias, kernel_size)``.

    Returns:
        (B, H, W, C).
    """
    channels = x.shape[3]
    x_nchw = x.permute(0, 3, 1, 2)
    square = (channels, channels, 1, 1)
    h = cycle_fc(x_nchw, weights.h_weight.reshape(square), weights.h_bias,
                 kernel_size).permute(0, 2, 3, 1)
    w = cycle_fc(x_nchw, weights.w_weight.reshape(square), weights.w_bias,
                 kernel_size[::-1]).permute(0, 2, 3, 1)
    c = F.linear(x, weights.c_weight, weights.c_bias)
    if reweight is None:
        y = h + w + c
    else:
        a = (h + w + c).mean(dim=(1, 2))
        # (B, C, 3) -> three of (B, 1, 1, C)
        a = reweight(a).reshape(-1, channels, 3).softmax(dim=2)
        a_h, a_w, a_c = a[:, None, None].unbind(dim=-1)
        y = h * a_h + w * a_w + c * a_c
    return F.linear(y, weights.proj_weight, weights.proj_bias)
