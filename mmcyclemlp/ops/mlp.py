"""The MLP of a block, in pieces, without keeping what it can recompute.

The hidden layer is the largest tensor of the network, four or eight times
its input. On a CPU the rows of the input go through both layers a piece at
a time, so that the hidden ones stay in the cache, and where channels are few
the backward pass computes them again. Elsewhere the hidden layer is kept, but
never its activation.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from .custom_op import register

_aten = torch.ops.aten
# Name -> (function, the same in place, its derivative (grad, input) -> grad).
ACTIVATIONS = {
    'gelu': (F.gelu, _aten.gelu_, _aten.gelu_backward),
    'relu': (F.relu, F.relu_,
             lambda grad, h: _aten.threshold_backward(grad, h, 0)),
    'silu': (F.silu, _aten.silu_, _aten.silu_backward),
    'hardswish': (F.hardswish, _aten.hardswish_, _aten.hardswish_backward),
}
# Bytes of the hidden layer that a CPU holds at a time: about its caches.
_BYTES = 4 * 2**20


def _pieces(x, hidden_channels):
    """Slices of the rows, of equal length but for the last."""
    rows, number = x.shape[0], 1
    if x.is_cpu:
        size = rows * hidden_channels * x.element_size()
        number = max(1, round(size / _BYTES))
    step = max(1, -(-rows // number))
    return [slice(first, min(first + step, rows))
            for first in range(0, max(1, rows), step)]


def keeps_hidden(x: Tensor) -> bool:
    """Whether to keep the hidden layer for the backward pass.

    On a CPU fresh memory costs more than to compute the layer again, up to
    some 128 channels.
    """
    return not x.is_cpu or x.shape[1] > 128


def _mlp(x, weight1, bias1, weight2, bias2, shortcut, scale, activation,
         keep):
    act, act_, _ = ACTIVATIONS[activation]
    y = x.new_empty(x.shape[0], weight2.shape[0])
    kept = x.new_empty(x.shape[0] if keep else 0, weight1.shape[0])
    room = None
    for rows in _pieces(x, weight1.shape[0]):
        if keep:
            room = kept[rows]
        elif room is None:
            room = kept.new_empty(rows.stop, kept.shape[1])
        hidden = torch.addmm(bias1, x[rows], weight1.t(),
                             out=room[:rows.stop - rows.start])
        hidden = act(hidden) if keep else act_(hidden)
        if scale is None:
            torch.add(shortcut[rows], bias2, out=y[rows])
            y[rows].addmm_(hidden, weight2.t())
        else:
            out = F.linear(hidden, weight2, bias2)
            torch.addcmul(shortcut[rows], out, scale[rows], out=y[rows])
    return y, kept


def _mlp_backward(dy, x, kept, weight1, bias1, weight2, scale, activation):
    act, _, act_backward = ACTIVATIONS[activation]
    dx = torch.empty_like(x)
    parts = []
    for rows in _pieces(x, weight1.shape[0]):
        grad = dy[rows] if scale is None else dy[rows] * scale[rows]
        hidden = (kept[rows] if kept.shape[0]
                  else F.linear(x[rows], weight1, bias1))
        dhidden = act_backward(grad @ weight2, hidden)
        torch.mm(dhidden, weight1, out=dx[rows])
        parts.append((dhidden.t() @ x[rows], dhidden.sum(0),
                      grad.t() @ act(hidden), grad.sum(0)))
    return (dx, *map(_sum, zip(*parts)))


def _sum(parts):
    """Sum of what the pieces give, in single precision at least."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0].to(torch.promote_types(parts[0].dtype, torch.float32))
    for part in parts[1:]:
        total = total + part
    return total.to(parts[0].dtype)


def _fake_mlp(x, weight1, bias1, weight2, bias2, shortcut, scale, activation,
              keep):
    return (x.new_empty(x.shape[0], weight2.shape[0]),
            x.new_empty(x.shape[0] if keep else 0, weight1.shape[0]))


def _fake_mlp_backward(dy, x, kept, weight1, bias1, weight2, scale,
                       activation):
    return (torch.empty_like(x), torch.empty_like(weight1),
            torch.empty_like(bias1), torch.empty_like(weight2),
            x.new_empty(weight2.shape[0]))


def _macs(x, weight1, bias1, weight2, *_):
    return x[0] * (prod(weight1) + prod(weight2))


def _macs_backward(dy, x, kept, weight1, bias1, weight2, *_):
    # Once more through the first layer where its output was not kept.
    again = 0 if kept[0] else prod(weight1)
    return x[0] * (2 * prod(weight1) + 2 * prod(weight2) + again)


def _save(ctx, inputs, output):
    x, weight1, bias1, weight2, _, _, scale, ctx.activation, _ = inputs
    ctx.save_for_backward(x, output[1], weight1, bias1, weight2, scale)


def _grads(ctx, dy, _):
    dx, *dparams = _backward(dy.contiguous(), *ctx.saved_tensors,
                             ctx.activation)
    return dx, *dparams, dy, None, None, None


_backward = register(
    'residual_mlp_backward',
    '(Tensor dy, Tensor x, Tensor kept, Tensor weight1, Tensor bias1, '
    'Tensor weight2, Tensor? scale, str activation) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor)',
    _mlp_backward, _fake_mlp_backward, macs=_macs_backward)
# shortcut + scale * fc2(act(fc1(x))) on rows (N, C), and what is kept.
residual_mlp = register(
    'residual_mlp',
    '(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, '
    'Tensor shortcut, Tensor? scale, str activation, bool keep) '
    '-> (Tensor, Tensor)',
    _mlp, _fake_mlp, _save, _grads, _macs)
