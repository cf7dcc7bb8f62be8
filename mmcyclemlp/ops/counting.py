"""Multiply-adds of the ops, for torch's counter.

These formulas count what the ops execute. Other counters put hooks on
modules or trace them. Then each submodule is called, and they count by the
paper's formulas. ``backend='plain'`` does so in torch's counter.
"""

from __future__ import annotations

from typing import Callable

import torch


def declare(name: str, macs: Callable[..., int]) -> None:
    """Register the multiply-adds of one of our ops with torch's counter.

    Args:
        name: Name of the op in the namespace ``mmcyclemlp``.
        macs: Returns the number of multiply-adds. Its arguments are those
            of the op, with shapes instead of tensors.
    """
    from torch.utils.flop_counter import register_flop_formula

    # torch's counter counts a multiply-add as two operations.
    register_flop_formula(getattr(torch.ops.mmcyclemlp, name))(
        lambda *args, out_shape=None, **_: 2 * macs(*args))
