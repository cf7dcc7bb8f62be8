"""Multiply-adds of the ops, for torch's, fvcore's and mmengine's counters.

They count what the ops execute. For what the paper's formulas take, count a
network with ``backend='plain'``, whose stock operators every counter knows;
left to itself it runs so while torch.jit traces, as fvcore and mmengine do.
"""

from __future__ import annotations

from typing import Callable

import torch

# For ``FlopCountAnalysis(...).set_op_handle(**op_handles)`` of fvcore, and
# for mmengine's FlopAnalyzer alike.
op_handles: dict[str, Callable] = {}


def declare(name: str, macs: Callable[..., int]) -> None:
    """Tell the counters the multiply-adds of an op of ours.

    Args:
        name: Name of the op within the namespace ``mmcyclemlp``.
        macs: Gives them from the arguments of the op, with shapes in place
            of tensors.
    """
    from torch.utils.flop_counter import register_flop_formula

    # A multiply-add is two operations to torch's counter.
    register_flop_formula(getattr(torch.ops.mmcyclemlp, name))(
        lambda *args, out_shape=None, **_: 2 * macs(*args))
    op_handles[f'mmcyclemlp::{name}'] = (
        lambda inputs, outputs: macs(*map(_plain, inputs)))


def _plain(value):
    """Shape of a tensor in a trace, or the constant that a value is."""
    if value.isCompleteTensor():
        return value.type().sizes()
    return value.toIValue()
