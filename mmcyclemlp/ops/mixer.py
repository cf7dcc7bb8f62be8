"""The token mixer of CycleMLP with its branches fused.

The mean over positions commutes with the linear branches. So the weights
``a`` of the branches follow from sums of the input, and no branch has to be
computed: the weighted sum of the branches is one product with the matrices
``diag(a) W``. The projection can be multiplied into these matrices, too.
The result is exact up to rounding.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .custom_op import register
from .offsets import offset_classes
from .product import branch_kernels


class MixerWeights(NamedTuple):
    """Parameters of a token mixer.

    Weights are (C, C), or (C, C, 1, 1). Biases are (C,). ``c_bias`` may be
    None.
    """

    h_weight: Tensor
    h_bias: Tensor
    w_weight: Tensor
    w_bias: Tensor
    c_weight: Tensor
    c_bias: Tensor | None
    proj_weight: Tensor
    proj_bias: Tensor


def branches_cost_less(positions: int, channels: int) -> bool:
    """Check whether a map is too small for the fused form.

    The fused form makes matrices of 3 C^2 numbers for each image. On a CPU
    that is faster from about 1.25 C positions on.
    """
    return 4 * positions < 5 * channels


def projection_pays(positions: int, channels: int) -> bool:
    """Check whether to multiply the projection into the matrices.

    That takes 3 C^3 multiply-adds for each image and saves N C^2.
    """
    return positions >= 5 * channels


def mixer_by_products(
    x: Tensor,
    weights: MixerWeights,
    reweight: Callable[[Tensor], Tensor] | None,
    kernel_size: tuple[int, int],
    shortcut: Tensor | None,
    scale: Tensor | None,
    product: Callable,
) -> Tensor:
    """Compute the mixer by one product, or two. See :func:`cycle_mixer`.

    ``product`` is the :class:`~mmcyclemlp.ops.product.Product` of a backend.
    """
    height, width, channels = x.shape[1:]
    # (3, C, C) and (3, C): along the width, along the height, in place.
    branches = torch.stack([weights.h_weight.flatten(1),
                            weights.w_weight.flatten(1), weights.c_weight])
    c_bias = weights.c_bias
    if c_bias is None:
        c_bias = torch.zeros_like(weights.h_bias)
    biases = torch.stack([weights.h_bias, weights.w_bias, c_bias])

    if reweight is None:
        # (1, 3, C): one product for all images.
        a = torch.ones_like(biases)[None]
    else:
        mean = moved_sums(x, *kernel_size) / (height * width)
        mean = mean.to(x.dtype).transpose(0, 1)  # (3, B, C)
        a = torch.bmm(mean, branches.transpose(1, 2)).sum(0) + biases.sum(0)
        a = reweight(a).reshape(-1, channels, 3).softmax(2)
        a = a.transpose(1, 2).to(x.dtype)  # (B, 3, C)
    proj_bias = weights.proj_bias
    if scale is not None:
        a = a * scale.to(a)[:, None, None]
        proj_bias = scale.to(a)[:, None] * proj_bias
    weight = a[..., None] * branches
    # Autocast sums in single precision on a GPU.
    bias = (a * biases).sum(1).to(x.dtype)

    if projection_pays(height * width, channels):
        weight = torch.bmm(
            weights.proj_weight.expand(3 * weight.shape[0], -1, -1),
            weight.flatten(0, 1)).view_as(weight)
        bias = F.linear(bias, weights.proj_weight) + proj_bias
        return product(x, weight, bias, shortcut, kernel_size)
    y = product(x, weight, bias, None, kernel_size)
    y = F.linear(y, weights.proj_weight)
    y = y + proj_bias.reshape(-1, 1, 1, channels)
    return y if shortcut is None else y + shortcut


def _leaving(size: int, move: int) -> tuple[slice, slice]:
    """What of [0, size) nobody reads at offset ``move``, and the rest."""
    if move > 0:
        return slice(0, move), slice(move, size)
    start = max(0, size + move)
    return slice(start, size), slice(0, start)


def _borders(maps, size_h, size_w):
    """(branch, channels, strips of the maps that the move pushes out)."""
    height, width, channels = maps.shape[1:]
    for branch, kernel in enumerate(branch_kernels((size_h, size_w), 2)):
        for group, dy, dx in offset_classes(channels, kernel):
            rows, other_rows = _leaving(height, dy)
            columns, _ = _leaving(width, dx)
            strips = []
            if dy:
                strips.append(maps[:, rows, :, group])
            if dx:
                strips.append(maps[:, other_rows, columns, group])
            yield branch, group, strips


def _moved_sums(x, size_h, size_w):
    # Single precision at least: the sum is over a whole map.
    dtype = torch.promote_types(x.dtype, torch.float32)
    total = x.sum((1, 2), dtype=dtype)
    sums = total[:, None].repeat(1, 3, 1)
    for branch, group, strips in _borders(x, size_h, size_w):
        for strip in strips:
            sums[:, branch, group] -= strip.sum((1, 2), dtype=dtype)
    return sums


def _moved_sums_backward(dsums, like, size_h, size_w):
    dsums = dsums.to(like.dtype)
    dx = torch.empty_like(like, memory_format=torch.contiguous_format)
    dx.copy_(dsums.sum(1)[:, None, None])
    for branch, group, strips in _borders(dx, size_h, size_w):
        for strip in strips:
            strip -= dsums[:, branch, None, None, group]
    return dx


def _save_sums(ctx, inputs, output):
    x, *ctx.kernel_size = inputs
    ctx.save_for_backward(x)


def _sums_grads(ctx, dsums):
    x, = ctx.saved_tensors
    return _sums_backward(dsums, x, *ctx.kernel_size), None, None


def _save_sums_backward(ctx, inputs, output):
    _, _, *ctx.kernel_size = inputs


def _sums_backward_grads(ctx, ddx):
    return moved_sums(ddx, *ctx.kernel_size), None, None, None


# (B, H, W, C) -> (B, 3, C): sums over positions of the map moved as each of
# the three branches moves it.
moved_sums = register(
    'moved_sums', '(Tensor x, int size_h, int size_w) -> Tensor',
    _moved_sums,
    lambda x, size_h, size_w: x.new_empty(
        x.shape[0], 3, x.shape[3],
        dtype=torch.promote_types(x.dtype, torch.float32)),
    _save_sums, _sums_grads)
_sums_backward = register(
    'moved_sums_backward',
    '(Tensor dsums, Tensor like, int size_h, int size_w) -> Tensor',
    _moved_sums_backward,
    lambda dsums, like, size_h, size_w: torch.empty_like(
        like, memory_format=torch.contiguous_format),
    _save_sums_backward, _sums_backward_grads)
