"""Backend ``torch``: move the channels, then multiply, on any device."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant
from .offsets import offset_classes
from .product import Product, branch_kernels

# Positions whose moved channels are held at a time on a CPU. They stay in
# its cache, and under the 32 MiB from which glibc maps fresh pages for
# every tensor, which cost more than the products do.
_POSITIONS = 8192


def _sorts(x: Tensor) -> bool:
    """Whether the channels are sorted by offset before they are copied.

    On a GPU a copy of every third channel reads all the memory between
    them. Sorted once, channels that move together lie together. A CPU's
    cache makes that pass unnecessary.
    """
    return not x.is_cpu


def _order(device, channels, period):
    """The channels sorted by offset, and the inverse of that order."""
    order = torch.cat([
        torch.arange(n, channels, period, device=device)
        for n in range(min(period, channels))])
    return order, order.argsort()


def _classes(channels, kernel_size, sort):
    """``(channels, dy, dx)`` for each offset, of sorted channels or not."""
    end = 0
    for group, dy, dx in offset_classes(channels, kernel_size):
        first, end = end, end + len(range(channels)[group])
        yield slice(first, end) if sort else group, dy, dx


def _move(x: Tensor, kernel_size: tuple[int, int], sign: int,
          sort: bool) -> Tensor:
    """Read channel c of ``x`` at ``sign`` times its offset, zero outside.

    With ``sort`` the channels are sorted where they are read forwards. Then
    the opposite move takes them in that order, and gives them as they were.
    """
    height, width = x.shape[-2:]
    if sort:
        order, inverse = constant(
            _order, x, x.shape[1], kernel_size[0] * kernel_size[1])
        x = _select(x, order) if sign > 0 else x
    out = torch.empty_like(x)
    # Channels whose offsets agree move together, in one copy.
    for group, dy, dx in _classes(x.shape[1], kernel_size, sort):
        dy, dx = sign * dy, sign * dx
        src, dst = x[:, group], out[:, group]
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
    return _select(out, inverse) if sort and sign < 0 else out


def _select(x, order):
    """Channels of a channels-last map (N, C, H, W) in another order."""
    return x.permute(0, 2, 3, 1).index_select(3, order).permute(0, 3, 1, 2)


class _Shift(torch.autograd.Function):
    """The move as one node; its adjoint is the opposite move."""

    @staticmethod
    def forward(ctx, x, kernel_size, sign, sort):
        ctx.settings = kernel_size, -sign, sort
        return _move(x, kernel_size, sign, sort)

    @staticmethod
    def backward(ctx, grad):
        return _Shift.apply(grad, *ctx.settings), None, None, None


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
    # In NCHW the channels of an offset are whole planes.
    sort = _sorts(x) and not x.is_contiguous()
    moved = _Shift.apply(x, kernel_size, 1, sort)
    if moved.is_contiguous():
        return F.conv2d(moved, weight, bias)
    weight = weight.flatten(1)
    if sort:
        order, _ = constant(
            _order, x, x.shape[1], kernel_size[0] * kernel_size[1])
        weight = weight.index_select(1, order)
    y = F.linear(moved.permute(0, 2, 3, 1), weight, bias)
    return y.permute(0, 3, 1, 2)


class _Tap(NamedTuple):
    """The channels of one branch that are read at one offset."""

    branch: int
    channels: slice
    columns: slice
    dy: int
    dx: int


class _Taps:
    """The channels of all branches, sorted by where they are read.

    Those read in place (``still``) multiply as they lie, for all branches
    at once. Those that move are copied to columns. With ``sorted_like``
    given, a map, all is about channels in the order of :meth:`sort`.
    """

    def __init__(self, channels, kernel_size, branches, sorted_like=None):
        self.still, self.moving, self.num_columns = [], [], 0
        self.order = self.inverse = None
        if sorted_like is not None:
            self.order, self.inverse = constant(
                _order, sorted_like, channels,
                kernel_size[0] * kernel_size[1])
        for branch, kernel in enumerate(
                branch_kernels(kernel_size, branches)):
            for group, dy, dx in _classes(
                    channels, kernel, sorted_like is not None):
                start = self.num_columns
                if (dy, dx) == (0, 0):
                    self.still.append((branch, group))
                    continue
                self.num_columns += len(range(channels)[group])
                self.moving.append(_Tap(
                    branch, group, slice(start, self.num_columns), dy, dx))

    @classmethod
    def of(cls, x, channels, kernel_size, branches):
        return cls(channels, kernel_size, branches,
                   x if _sorts(x) else None)

    def sort(self, tensor):
        """Sort the last dimension, which has the channels of the input."""
        return (tensor if self.order is None
                else tensor.index_select(-1, self.order))

    def unsort(self, tensor):
        return (tensor if self.order is None
                else tensor.index_select(-1, self.inverse))

    def split(self, weight):
        """(B, R, O, C) -> (B, C, O) in place and (B, columns, O) moved."""
        still = torch.zeros_like(weight[:, 0])
        for branch, group in self.still:
            still[..., group] += weight[:, branch, :, group]
        moved = weight.new_empty(*still.shape[:2], self.num_columns)
        for tap in self.moving:
            moved[..., tap.columns] = weight[:, tap.branch, :, tap.channels]
        return still.transpose(1, 2), moved.transpose(1, 2)

    def join(self, still, moved, branches):
        """Gradients (B, C, O) and (B, columns, O) -> (B, R, O, C)."""
        weight = still.new_empty(
            still.shape[0], branches, still.shape[2], still.shape[1])
        for branch, group in self.still:
            weight[:, branch, :, group] = still[:, group].transpose(1, 2)
        for tap in self.moving:
            weight[:, tap.branch, :, tap.channels] = (
                moved[:, tap.columns].transpose(1, 2))
        return weight

    def copy(self, x, chunk, columns):
        """Write what the taps read of ``x`` at the chunk's positions."""
        for tap in self.moving:
            there, here, outside = _pair(tap, x, chunk, columns)
            here.copy_(there)
            for strip in outside:
                strip.zero_()

    def add(self, columns, chunk, dx):
        """The adjoint: add the columns to where they were read."""
        for tap in self.moving:
            there, here, _ = _pair(tap, dx, chunk, columns)
            there.add_(here)


def _pair(tap, maps, chunk, columns):
    """What a tap reads of the maps, where it goes, and what stays zero."""
    images, top, bottom = chunk
    height, width = maps.shape[1:3]
    i0, i1 = _inside(top, bottom, height, tap.dy)
    j0, j1 = _inside(0, width, width, tap.dx)
    there = maps[images, i0 + tap.dy:i1 + tap.dy, j0 + tap.dx:j1 + tap.dx,
                 tap.channels]
    columns = columns[..., tap.columns]
    outside = []
    if i0 > top or i1 < bottom:
        outside += columns[:, :i0 - top], columns[:, i1 - top:]
    if j0 > 0 or j1 < width:
        outside += columns[:, :, :j0], columns[:, :, j1:]
    return there, columns[:, i0 - top:i1 - top, j0:j1], outside


def _inside(start, end, size, move):
    """Part of [start, end) that stays within [0, size) when moved."""
    start = min(max(start, -move), end)
    return start, max(min(end, size - move), start)


def _chunks(x):
    """Windows (images, top, bottom), of some _POSITIONS each on a CPU."""
    images, height, width, _ = x.shape
    area = height * width
    if not x.is_cpu:
        yield slice(0, images), 0, height
    elif area <= _POSITIONS:
        step = _POSITIONS // max(1, area)
        for first in range(0, images, step):
            yield slice(first, min(first + step, images)), 0, height
    else:
        step = max(1, _POSITIONS // width)
        for image in range(images):
            for top in range(0, height, step):
                yield (slice(image, image + 1), top,
                       min(top + step, height))


def _columns(x, taps, more=0):
    """Each chunk and room for its columns, ``more`` of them holding ones."""
    room = None
    for chunk in _chunks(x):
        images, top, bottom = chunk
        n, rows = len(range(x.shape[0])[images]), bottom - top
        if room is None:
            room = x.new_empty(n, rows, x.shape[2], taps.num_columns + more)
            room[..., taps.num_columns:] = 1
        yield chunk, room[:n, :rows]


def _positions(maps, chunk):
    """The positions of a chunk, (images, positions, channels)."""
    images, top, bottom = chunk
    return maps[images, top:bottom].flatten(1, 2)


def _product(x, weight, bias, shortcut, size_h, size_w):
    taps = _Taps.of(x, x.shape[3], (size_h, size_w), weight.shape[1])
    x, weight = taps.sort(x).contiguous(), taps.sort(weight)
    still, moved = taps.split(weight.expand(x.shape[0], -1, -1, -1))
    if bias is not None:
        # The bias is the weight of one more column, which holds ones.
        bias = bias.expand(x.shape[0], -1)[:, None]
        moved = torch.cat([moved, bias], 1)
    y = x.new_empty(*x.shape[:3], weight.shape[2])
    for chunk, columns in _columns(x, taps, bias is not None):
        images = chunk[0]
        here, out = _positions(x, chunk), _positions(y, chunk)
        if shortcut is None:
            torch.bmm(here, still[images], out=out)
        else:
            torch.baddbmm(
                _positions(shortcut, chunk), here, still[images], out=out)
        taps.copy(x, chunk, columns)
        out.baddbmm_(columns.flatten(1, 2), moved[images])
    return y


def _product_backward_x(dy, weight, size_h, size_w):
    dy = dy.contiguous()
    taps = _Taps.of(dy, weight.shape[3], (size_h, size_w), weight.shape[1])
    weight = taps.sort(weight)
    still, moved = taps.split(weight.expand(dy.shape[0], -1, -1, -1))
    dx = torch.bmm(dy.flatten(1, 2), still.transpose(1, 2))
    dx = dx.unflatten(1, dy.shape[1:3])
    for chunk, columns in _columns(dy, taps):
        torch.bmm(_positions(dy, chunk), moved[chunk[0]].transpose(1, 2),
                  out=columns.flatten(1, 2))
        taps.add(columns, chunk, dx)
    return taps.unsort(dx)


def _product_backward_weight(x, dy, size_h, size_w, branches, shared):
    taps = _Taps.of(x, x.shape[3], (size_h, size_w), branches)
    x, dy = taps.sort(x).contiguous(), dy.contiguous()
    grad = dy.flatten(1, 2)
    still = torch.bmm(x.flatten(1, 2).transpose(1, 2), grad)
    # Sums over chunks are kept in single precision at least.
    moved = x.new_zeros(
        x.shape[0], taps.num_columns, dy.shape[3],
        dtype=torch.promote_types(x.dtype, torch.float32))
    for chunk, columns in _columns(x, taps):
        taps.copy(x, chunk, columns)
        moved[chunk[0]] += torch.bmm(
            columns.flatten(1, 2).transpose(1, 2), _positions(dy, chunk))
    dweight = taps.unsort(taps.join(still, moved, branches))
    dbias = grad.sum(1).to(x.dtype)
    if shared:
        return dweight.sum(0, keepdim=True), dbias.sum(0, keepdim=True)
    return dweight, dbias


def _num_columns(channels, branches, size_h, size_w):
    return channels + _Taps(channels, (size_h, size_w), branches).num_columns


cycle_product_torch = Product(
    'torch', _product, _product_backward_x, _product_backward_weight,
    _num_columns)
