"""The product of moved branches in Triton: tiles, launches, registration."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..product import Product
from . import kernels


class Tiles(NamedTuple):
    """How a kernel is cut up; the same for any batch and image size.

    ``m`` positions by ``n`` outputs by ``k`` inputs (in ``dw`` ``n`` outputs
    by ``k`` channels, summed over ``m`` positions at a time). ``width`` is
    that of a rectangle of positions, or 0 if they follow each other.
    """

    m: int
    n: int
    k: int
    width: int
    warps: int
    stages: int = 1


# Chosen by what the compiler says, not by timing: in half precision nothing
# spills on sm_80 and sm_90 (one register in some of single precision), and on
# sm_90 two blocks or more fit a multiprocessor nearly always. Loads go through
# the first-level cache, where the moved rows of a tile meet; stages above 1
# would bypass it.


def forward_tiles(channels: int, outputs: int, dtype: torch.dtype,
                  kernel_size: tuple[int, int], branches: int) -> Tiles:
    """Tiles of ``y``: up to 128 outputs are one program's, for fewer reads."""
    width = _tile_width(channels, kernel_size, branches)
    if dtype == torch.float32:
        return Tiles(64, _block(outputs, 64), 16, width, 8)
    n, k = _block(outputs, 128), 64 if channels <= 64 else 32
    if branches == 3 and n == 128:
        return Tiles(64, n, k, width, 4)
    return Tiles(128, n, k, width, 8)


def dx_tiles(channels: int, outputs: int, dtype: torch.dtype,
             kernel_size: tuple[int, int], branches: int) -> Tiles:
    """Tiles of ``dx`` as one product for each offset."""
    width = _tile_width(outputs, kernel_size, branches)
    n = _block(channels, 64)
    if dtype == torch.float32:
        return Tiles(64, n, 16, width, 8)
    if branches == 3:
        return Tiles(64, n, 32, width, 4)
    return Tiles(128, n, 64 if outputs <= 64 else 32, width, 8)


def dx_one_branch_tiles(channels: int, dtype: torch.dtype) -> Tiles:
    """Tiles of ``dx`` as one product that moves in the end."""
    if dtype == torch.float32:
        return Tiles(64, _block(channels, 64), 16, 0, 8)
    return Tiles(64, _block(channels, 128), 64, 0, 8, stages=3)


def dw_tiles(channels: int, outputs: int, dtype: torch.dtype,
             kernel_size: tuple[int, int], branches: int) -> Tiles:
    """Tiles of ``dweight``, as many at a time as there are branches."""
    width = _tile_width(channels, kernel_size, branches)
    if dtype == torch.float32:
        return Tiles(16, _block(outputs, 64), _block(channels, 32), width, 8)
    if branches == 3:
        return Tiles(64, _block(outputs, 64), _block(channels, 32), width, 8)
    return Tiles(64, _block(outputs, 128), _block(channels, 64), width, 8)


def dx_moves_in_the_end(channels: int, kernel_size: tuple[int, int],
                        branches: int) -> bool:
    """Whether ``dx`` is one product that moves before it is written.

    Where channels are few the kernel is bound by memory, and multiplying
    once for each offset is free instead. Moving takes Triton 3.2 (torch
    2.6).
    """
    return (branches == 1 and min(kernel_size) == 1 < max(kernel_size) < 16
            and channels > 64 and hasattr(tl, 'gather'))


def dw_parts(tiles: int, others: int, positions: int) -> int:
    """Parts in which ``dweight`` is summed.

    Two programs for each of 132 multiprocessors, but no part of fewer than
    256 positions, for the parts are written and read once more.

    Args:
        tiles: Tiles in a group of images.
        others: Programs for each part, over all groups.
        positions: Positions in a tile.
    """
    return max(1, min(264 // others, tiles * positions // 256))


def _block(size: int, most: int) -> int:
    """Power of two that covers ``size``; tl.dot takes no less than 16."""
    return min(max(16, triton.next_power_of_2(size)), most)


def _tile_width(channels: int, kernel_size: tuple[int, int],
                branches: int) -> int:
    """Rectangles where channels are few and move vertically.

    Then the neighbours above and below are in the first-level cache. With
    many channels a rectangle does not fit there.
    """
    vertical = kernel_size[0] > 1 or (branches == 3 and kernel_size[1] > 1)
    return 8 if channels <= 128 and vertical else 0


class _Maps(NamedTuple):
    """Groups of images with one weight each, as the kernels take them."""

    groups: int
    images: int
    height: int
    width: int

    @classmethod
    def of(cls, x: Tensor, shared: bool) -> _Maps:
        batch, height, width, _ = x.shape
        if shared:
            return cls(1, batch, height, width)
        return cls(batch, 1, height, width)

    def tiles(self, tiles: Tiles, halo: int = 0) -> int:
        """Number of tiles of a group, each with ``halo`` unwritten ends."""
        if tiles.width == 0:
            return triton.cdiv(self.images * self.height * self.width,
                               tiles.m - 2 * halo)
        return (triton.cdiv(self.images * self.height,
                            tiles.m // tiles.width)
                * triton.cdiv(self.width, tiles.width))


def _precision(dtype: torch.dtype) -> str:
    """What torch's own products use: TF32 only where it is allowed."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):
        # torch 2.9 on; reading allow_tf32 there raises once this was set.
        allowed = matmul.fp32_precision == 'tf32'
    else:
        allowed = matmul.allow_tf32
    return 'tf32' if dtype == torch.float32 and allowed else 'ieee'


def _on(x: Tensor):
    """The device of ``x`` as Triton's current one."""
    if x.is_cuda:
        return torch.cuda.device(x.device)
    if x.dtype == torch.bfloat16:
        raise RuntimeError(
            "Triton's interpreter multiplies the bits of bfloat16 instead of "
            'the numbers; it can be used with float32 and float16')
    return contextlib.nullcontext()


def _forward(x, weight, bias, shortcut, size_h, size_w):
    _, branches, outputs, channels = weight.shape
    x, weight = x.contiguous(), weight.contiguous()
    if bias is not None:
        bias = bias.expand(weight.shape[0], -1).contiguous()
    shortcut = None if shortcut is None else shortcut.contiguous()
    y = x.new_empty(*x.shape[:3], outputs)
    if y.numel() == 0:
        return y
    tile = forward_tiles(
        channels, outputs, x.dtype, (size_h, size_w), branches)
    maps = _Maps.of(x, weight.shape[0] != x.shape[0])
    tiles = maps.tiles(tile)
    grid = (maps.groups * tiles * triton.cdiv(outputs, tile.n), )
    with _on(x):
        kernels.cycle_product_fwd_kernel[grid](
            x, weight, bias, shortcut, y, tiles, *maps[1:],
            C=channels, OUT=outputs, BRANCHES=branches,
            SIZE_H=size_h, SIZE_W=size_w, BLOCK_M=tile.m, BLOCK_N=tile.n,
            BLOCK_K=tile.k, TILE_W=tile.width,
            PRECISION=_precision(x.dtype),
            num_warps=tile.warps, num_stages=tile.stages)
    return y


def _backward_x(dy, weight, size_h, size_w):
    _, branches, outputs, channels = weight.shape
    kernel_size = size_h, size_w
    dy, weight = dy.contiguous(), weight.contiguous()
    dx = dy.new_empty(*dy.shape[:3], channels)
    if dx.numel() == 0:
        return dx
    if dx_moves_in_the_end(channels, kernel_size, branches):
        tile = dx_one_branch_tiles(channels, dy.dtype)
        kernel = kernels.cycle_product_bwd_kernel_dx_one_branch
        halo, sizes = size_h * size_w // 2, dict()
    else:
        tile = dx_tiles(channels, outputs, dy.dtype, kernel_size, branches)
        kernel = kernels.cycle_product_bwd_kernel_dx
        halo, sizes = 0, dict(BRANCHES=branches, TILE_W=tile.width)
    maps = _Maps.of(dy, weight.shape[0] != dy.shape[0])
    tiles = maps.tiles(tile, halo)
    grid = (maps.groups * tiles * triton.cdiv(channels, tile.n), )
    with _on(dy):
        kernel[grid](
            dy, weight, dx, tiles, *maps[1:],
            C=channels, OUT=outputs, SIZE_H=size_h, SIZE_W=size_w,
            BLOCK_M=tile.m, BLOCK_N=tile.n, BLOCK_K=tile.k,
            PRECISION=_precision(dy.dtype), **sizes,
            num_warps=tile.warps, num_stages=tile.stages)
    return dx


def _backward_weight(x, dy, size_h, size_w, branches, shared):
    x, dy = x.contiguous(), dy.contiguous()
    channels, outputs = x.shape[3], dy.shape[3]
    shape = (1 if shared else x.shape[0], branches, outputs, channels)
    if x.numel() == 0 or dy.numel() == 0:
        return x.new_zeros(shape), x.new_zeros(shape[0], outputs)
    tile = dw_tiles(channels, outputs, x.dtype, (size_h, size_w), branches)
    maps = _Maps.of(x, shared)
    tiles = maps.tiles(tile)
    blocks = triton.cdiv(outputs, tile.n) * triton.cdiv(channels, tile.k)
    parts = dw_parts(tiles, maps.groups * blocks, tile.m)
    size = branches * outputs * channels
    partial = x.new_empty(
        maps.groups, parts, size + outputs, dtype=torch.float32)
    with _on(x):
        kernels.cycle_product_bwd_kernel_dw[(maps.groups * parts * blocks, )](
            x, dy, partial, tiles, *maps[1:], parts,
            C=channels, OUT=outputs, BRANCHES=branches,
            SIZE_H=size_h, SIZE_W=size_w, BLOCK_M=tile.m, BLOCK_N=tile.n,
            BLOCK_C=tile.k, TILE_W=tile.width,
            PRECISION=_precision(x.dtype),
            num_warps=tile.warps, num_stages=tile.stages)
    total = partial.sum(1)
    # Copies, for an op may not give one piece of memory twice.
    dweight, dbias = (
        part.to(x.dtype, copy=True, memory_format=torch.contiguous_format)
        for part in total.split([size, outputs], 1))
    return dweight.view(shape), dbias


def _num_columns(channels, branches, size_h, size_w):
    return channels * branches


def _num_columns_dx(channels, branches, size_h, size_w):
    if dx_moves_in_the_end(channels, (size_h, size_w), branches):
        return channels
    moves = size_h * size_w - 1
    return channels * (1 + moves * (1 if branches == 1 else 2))


cycle_product_triton = Product(
    'triton', _forward, _backward_x, _backward_weight, _num_columns,
    _num_columns_dx)
