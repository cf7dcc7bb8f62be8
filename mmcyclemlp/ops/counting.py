"""Multiply-adds of the ops, for torch's, fvcore's and mmengine's counters.

These formulas count what the ops execute. To count by the paper's formulas,
use a network with ``backend='plain'``: it runs stock operators, which every
counter knows. The default backend also runs them while torch.jit traces, as
fvcore and mmengine do.
"""

from __future__ import annotations

from typing import Callable

import torch

# For ``FlopCountAnalysis(...).set_op_handle(**op_handles)`` of fvcore, and
# for mmengine's FlopAnalyzer in the same way.
op_handles: dict[str, Callable] = {}


def declare(name: str, macs: Callable[..., int]) -> None:
    """Register the multiply-adds of one of our ops with the counters.

    Args:
        name: Name of the op in the namespace ``mmcyclemlp``.
        macs: Returns the number of multiply-adds. Its arguments are those
            of the op, with shapes instead of tensors.
    """
    from torch.utils.flop_counter import register_flop_formula

    # torch's counter counts a multiply-add as two operations.
    register_flop_formula(getattr(torch.ops.mmcyclemlp, name))(
        lambda *args, out_shape=None, **_: 2 * macs(*args))
    op_handles[f'mmcyclemlp::{name}'] = (
        lambda inputs, outputs: macs(*map(_plain, inputs)))


def _plain(value):
    """Return the shape of a tensor in a trace, or the value of a constant."""
    if value.isCompleteTensor():
        return value.type().sizes()
    return value.toIValue()
