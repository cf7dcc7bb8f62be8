"""The product of moved branches in Triton: launches and registration."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Callable, NamedTuple

import torch
import triton
from torch import Tensor

from ..custom_op import is_compiling
from ..product import Product
from . import kernels
from .tiles import Key, Tiles, choose, rule, tune


def dw_parts(tiles: int, others: int, positions: int) -> int:
    """Return the number of parts in which ``dweight`` is summed.

    The aim is two programs for each of 132 multiprocessors. A part has at
    least 256 positions, because each part is written and read once more.

    Args:
        tiles: Number of tiles in a group of images.
        others: Number of programs for each part, over all groups.
        positions: Number of positions in a tile.
    """
    return max(1, min(264 // others, tiles * positions // 256))


class _Maps(NamedTuple):
    """Groups of images that share a weight, as arguments of the kernels."""

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
        """Return the number of tiles of a group.

        Each tile has ``halo`` positions at each end that it does not write.
        """
        if tiles.width == 0:
            return triton.cdiv(self.images * self.height * self.width,
                               tiles.m - 2 * halo)
        return (triton.cdiv(self.images * self.height,
                            tiles.m // tiles.width)
                * triton.cdiv(self.width, tiles.width))


def _precision(dtype: torch.dtype) -> str:
    """Return the precision of torch's products: TF32 only if allowed."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):
        # Since torch 2.9. If this was set, reading allow_tf32 raises.
        allowed = matmul.fp32_precision == 'tf32'
    else:
        allowed = matmul.allow_tf32
    return 'tf32' if dtype == torch.float32 and allowed else 'ieee'


def _on(x: Tensor):
    """Return a context in which the device of ``x`` is the current one."""
    if x.is_cuda:
        return torch.cuda.device(x.device)
    if x.dtype == torch.bfloat16:
        raise RuntimeError(
            "Triton's interpreter multiplies the bits of bfloat16 instead of "
            'the numbers; it can be used with float32 and float16')
    return contextlib.nullcontext()


def options(tiles: Tiles, dtype: torch.dtype) -> dict:
    """Return the options that all launches have."""
    return dict(
        BLOCK_M=tiles.m, BLOCK_N=tiles.n, PRECISION=_precision(dtype),
        num_warps=tiles.warps, num_stages=tiles.stages)


def _launch(kernel, grid, tiles, *args, **constants):
    """Launch a kernel on the device of the first of ``args``, a map."""
    with _on(args[0]):
        kernel[(grid, )](
            *args, **constants, **options(tiles, args[0].dtype))


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    size_h: int,
    size_w: int,
    tiles: Tiles | None = None,
) -> Tensor:
    """Compute ``y`` of the product. Only measurements pass ``tiles``."""
    _, branches, outputs, channels = weight.shape
    x, weight = x.contiguous(), weight.contiguous()
    if bias is not None:
        bias = bias.expand(weight.shape[0], -1).contiguous()
    shortcut = None if shortcut is None else shortcut.contiguous()
    y = x.new_empty(*x.shape[:3], outputs)
    if y.numel() == 0:
        return y
    tiles = tiles or choose(
        Key.of('y', x, weight.shape, (size_h, size_w)), x.device)
    maps = _Maps.of(x, weight.shape[0] != x.shape[0])
    number = maps.tiles(tiles)
    _launch(kernels.cycle_product_fwd_kernel,
            maps.groups * number * triton.cdiv(outputs, tiles.n), tiles,
            x, weight, bias, shortcut, y, number, *maps[1:],
            C=channels, OUT=outputs, BRANCHES=branches, SIZE_H=size_h,
            SIZE_W=size_w, BLOCK_K=tiles.k, TILE_W=tiles.width)
    return y


def backward_x(
    dy: Tensor,
    weight: Tensor,
    size_h: int,
    size_w: int,
    tiles: Tiles | None = None,
) -> Tensor:
    """Compute ``dx`` of the product. Only measurements pass ``tiles``."""
    _, branches, outputs, channels = weight.shape
    dy, weight = dy.contiguous(), weight.contiguous()
    dx = dy.new_empty(*dy.shape[:3], channels)
    if dx.numel() == 0:
        return dx
    tiles = tiles or choose(
        Key.of('dx', dy, weight.shape, (size_h, size_w)), dy.device)
    if tiles.moves_last:
        kernel = kernels.cycle_product_bwd_kernel_dx_one_branch
        halo, sizes = size_h * size_w // 2, dict()
    else:
        kernel = kernels.cycle_product_bwd_kernel_dx
        halo, sizes = 0, dict(BRANCHES=branches, TILE_W=tiles.width)
    maps = _Maps.of(dy, weight.shape[0] != dy.shape[0])
    number = maps.tiles(tiles, halo)
    _launch(kernel, maps.groups * number * triton.cdiv(channels, tiles.n),
            tiles, dy, weight, dx, number, *maps[1:],
            C=channels, OUT=outputs, SIZE_H=size_h, SIZE_W=size_w,
            BLOCK_K=tiles.k, **sizes)
    return dx


def backward_weight(
    x: Tensor,
    dy: Tensor,
    size_h: int,
    size_w: int,
    branches: int,
    shared: bool,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``dweight`` and ``dbias``. Only measurements pass ``tiles``."""
    x, dy = x.contiguous(), dy.contiguous()
    channels, outputs = x.shape[3], dy.shape[3]
    shape = (1 if shared else x.shape[0], branches, outputs, channels)
    if x.numel() == 0 or dy.numel() == 0:
        return x.new_zeros(shape), x.new_zeros(shape[0], outputs)
    tiles = tiles or choose(
        Key.of('dweight', x, shape, (size_h, size_w)), x.device)
    maps = _Maps.of(x, shared)
    number = maps.tiles(tiles)
    blocks = triton.cdiv(outputs, tiles.n) * triton.cdiv(channels, tiles.k)
    parts = dw_parts(number, maps.groups * blocks, tiles.m)
    size = branches * outputs * channels
    partial = x.new_empty(
        maps.groups, parts, size + outputs, dtype=torch.float32)
    _launch(kernels.cycle_product_bwd_kernel_dw, maps.groups * parts * blocks,
            tiles, x, dy, partial, number, *maps[1:], parts,
            C=channels, OUT=outputs, BRANCHES=branches, SIZE_H=size_h,
            SIZE_W=size_w, BLOCK_C=tiles.k, TILE_W=tiles.width)
    total = partial.sum(1)
    # Copies, because the results of an op must not share memory.
    dweight, dbias = (
        part.to(x.dtype, copy=True, memory_format=torch.contiguous_format)
        for part in total.split([size, outputs], 1))
    return dweight.view(shape), dbias


def draw(
    key: Key,
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Draw random x, dy, weight, bias and shortcut for the product of a key.

    Each call returns the same values and does not change torch's random
    state. The default ``shape`` (B, H, W) is about that of two images of
    800x1344 in the stage of a network that has this number of channels.
    With three branches each image has its own weight, as in the mixer.
    """
    if shape is None:
        width = max(8, min(336, 336 * 64 // max(key.channels, key.outputs)))
        shape = 2, width * 25 // 42, width
    groups = shape[0] if key.branches == 3 else 1
    generator = torch.Generator(device).manual_seed(0)
    x, dy, weight, bias = (
        torch.randn(size, device=device, generator=generator).to(
            getattr(torch, key.dtype))
        for size in ((*shape, key.channels), (*shape, key.outputs),
                     (groups, key.branches, key.outputs, key.channels),
                     (groups, key.outputs)))
    return x, dy, weight, bias, dy if key.branches == 3 else None


def make_call(
    key: Key,
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
) -> Callable[[Tiles], Tensor]:
    """Return a function that runs the kernel of a key with given tiles.

    The data is that of :func:`draw`.
    """
    x, dy, weight, bias, shortcut = draw(key, device, shape)
    sizes = key.size_h, key.size_w
    calls = {
        'y': lambda tiles: forward(x, weight, bias, shortcut, *sizes, tiles),
        'dx': lambda tiles: backward_x(dy, weight, *sizes, tiles),
        'dweight': lambda tiles: backward_weight(
            x, dy, *sizes, key.branches, key.branches == 1, tiles)[0]}
    return calls[key.direction]


def _num_columns(channels, branches, size_h, size_w):
    return channels * branches


def _num_columns_dx(channels, branches, size_h, size_w):
    # The number of outputs does not change which kernel runs.
    key = Key('dx', branches, channels, channels, size_h, size_w, 'bfloat16')
    if rule(key).moves_last:
        return channels
    moves = size_h * size_w - 1
    return channels * (1 + moves * (1 if branches == 1 else 2))


_product = Product('triton', forward, backward_x, backward_weight,
                   _num_columns, _num_columns_dx)


def cycle_product_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    kernel_size: tuple[int, int],
) -> Tensor:
    """The product in Triton, see :class:`~mmcyclemlp.ops.product.Product`.

    On a GPU it first tunes the kernels that the call needs. It tunes
    nothing while torch.compile traces or a CUDA graph is captured.
    """
    # A fake tensor is a subclass of Tensor.
    if not is_compiling() and x.is_cuda and type(x) is Tensor and (
            x.numel() > 0
            and not torch.cuda.is_current_stream_capturing()):
        _tune(x, weight, kernel_size)
    return _product(x, weight, bias, shortcut, kernel_size)


@torch.no_grad()
def _tune(x, weight, kernel_size):
    directions = ['y']
    if x.requires_grad:
        directions.append('dx')
    if weight.requires_grad:
        directions.append('dweight')
    for direction in directions:
        with torch.cuda.device(x.device):
            tune(Key.of(direction, x, weight.shape, kernel_size), x.device,
                 make_call, _source())


@cache
def _source() -> str:
    """Return a text of all that the speed depends on besides the GPU."""
    return '-'.join([triton.__version__, *(
        kernel.cache_key for name, kernel in vars(kernels).items()
        if name.startswith('cycle_product'))])
