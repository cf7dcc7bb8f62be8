"""The sum of moved branches as one product: what both backends compute.

``y[b, p] = shortcut[b, p] + bias[b] + sum_r W[b, r] T_r x[b, p]``, where T_r
moves every channel by its offset in branch r. With one branch this is
CycleFC. With three it is the token mixer, whose branch weights are
multiplied into one matrix for each image.
"""

from __future__ import annotations

from math import prod
from typing import Callable

from torch import Tensor

from .custom_op import register


def branch_kernels(
        kernel_size: tuple[int, int],
        branches: int) -> list[tuple[int, int]]:
    """Pseudo-kernel of each branch: along, across, and in place."""
    size_h, size_w = kernel_size
    return [(size_h, size_w), (size_w, size_h), (1, 1)][:branches]


class Product:
    """The product of one backend, with its derivatives.

    It has three ops, and the derivatives of each are the other two. So it
    can be differentiated any number of times.

    Args:
        name: Name of the backend.
        forward: ``(x, weight, bias, shortcut, size_h, size_w) -> y``.
        backward_x: ``(dy, weight, size_h, size_w) -> dx``.
        backward_weight: ``(x, dy, size_h, size_w, branches, shared)
            -> (dweight, dbias)``.
        columns: ``(channels, branches, size_h, size_w)``, what is
            multiplied for each position and output; for the counters.
        columns_backward_x: The same of ``backward_x``. None if it is.

    Shape:
        x (B, H, W, C); weight (B, R, O, C), or (1, R, O, C) to be shared
        by all images, R = 1 or 3; bias likewise (B, O) or (1, O); shortcut
        and y (B, H, W, O). Inputs of any strides, results contiguous.
    """

    def __init__(
        self,
        name: str,
        forward: Callable,
        backward_x: Callable,
        backward_weight: Callable,
        columns: Callable[..., int],
        columns_backward_x: Callable[..., int] | None = None,
    ) -> None:
        def macs(positions, weight, size_h, size_w, columns=columns):
            _, branches, outputs, channels = weight
            return prod(positions[:3]) * outputs * columns(
                channels, branches, size_h, size_w)

        kernel = 'int size_h, int size_w'
        self._forward = register(
            f'product_{name}',
            '(Tensor x, Tensor weight, Tensor? bias, Tensor? shortcut, '
            f'{kernel}) -> Tensor',
            forward, _fake_forward, self._save_forward, self._forward_grads,
            lambda x, weight, bias, shortcut, *kernel: macs(
                x, weight, *kernel))
        self._backward_x = register(
            f'product_{name}_backward_x',
            f'(Tensor dy, Tensor weight, {kernel}) -> Tensor',
            backward_x, _fake_backward_x, self._save_backward_x,
            self._backward_x_grads,
            lambda dy, weight, *kernel: macs(
                dy, weight, *kernel, columns_backward_x or columns))
        self._backward_weight = register(
            f'product_{name}_backward_weight',
            f'(Tensor x, Tensor dy, {kernel}, int branches, bool shared) '
            '-> (Tensor, Tensor)',
            backward_weight, _fake_backward_weight,
            self._save_backward_weight, self._backward_weight_grads,
            lambda x, dy, size_h, size_w, branches, shared: macs(
                x, (1, branches, dy[3], x[3]), size_h, size_w))

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shortcut: Tensor | None,
        kernel_size: tuple[int, int],
    ) -> Tensor:
        return self._forward(x, weight, bias, shortcut, *kernel_size)

    @staticmethod
    def _save_forward(ctx, inputs, output) -> None:
        x, weight, bias, shortcut, *ctx.kernel_size = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.has_shortcut = bias is not None, (
            shortcut is not None)

    def _forward_grads(self, ctx, dy):
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dx = dweight = dbias = None
        if need_x:
            dx = self._backward_x(dy, weight, *ctx.kernel_size)
        if need_weight or need_bias:
            dweight, dbias = self._backward_weight(
                x, dy, *ctx.kernel_size, weight.shape[1],
                weight.shape[0] != x.shape[0])
        return (dx, dweight, dbias if ctx.has_bias else None,
                dy if ctx.has_shortcut else None, None, None)

    @staticmethod
    def _save_backward_x(ctx, inputs, output) -> None:
        dy, weight, *ctx.kernel_size = inputs
        ctx.save_for_backward(dy, weight)

    def _backward_x_grads(self, ctx, ddx):
        dy, weight = ctx.saved_tensors
        d_dy = self._forward(ddx, weight, None, None, *ctx.kernel_size)
        dweight, _ = self._backward_weight(
            ddx, dy, *ctx.kernel_size, weight.shape[1],
            weight.shape[0] != dy.shape[0])
        return d_dy, dweight, None, None

    @staticmethod
    def _save_backward_weight(ctx, inputs, output) -> None:
        x, dy, *ctx.kernel_size, _, _ = inputs
        ctx.save_for_backward(x, dy)

    def _backward_weight_grads(self, ctx, ddweight, ddbias):
        x, dy = ctx.saved_tensors
        dx = self._backward_x(dy, ddweight, *ctx.kernel_size)
        d_dy = self._forward(x, ddweight, ddbias, None, *ctx.kernel_size)
        return dx, d_dy, None, None, None, None


def _fake_forward(x, weight, bias, shortcut, size_h, size_w):
    return x.new_empty(*x.shape[:3], weight.shape[2])


def _fake_backward_x(dy, weight, size_h, size_w):
    return dy.new_empty(*dy.shape[:3], weight.shape[3])


def _fake_backward_weight(x, dy, size_h, size_w, branches, shared):
    images = 1 if shared else x.shape[0]
    outputs, inputs = dy.shape[3], x.shape[3]
    return (x.new_empty(images, branches, outputs, inputs),
            x.new_empty(images, outputs))
