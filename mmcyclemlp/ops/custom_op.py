"""Make differentiable ops of plain functions, on every torch."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from . import counting

# Counters do not see the custom ops of torch 2.4 and 2.5.
HAS_CUSTOM_OP = tuple(
    map(int, torch.__version__.split('.')[:2])) >= (2, 6)
# Whether torch.compile is tracing. torch 2.1 and 2.2 do not tell.
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def is_transformed() -> bool:
    """Check for transforms of torch.func and for forward-mode derivatives.

    The ops do not support them. The forward-mode derivative of a custom op
    would be zero in silence.
    """
    return not is_compiling() and (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0)


def register(
    name: str,
    schema: str,
    forward: Callable,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
    macs: Callable[..., int] | None = None,
) -> Callable:
    """Give a function a derivative, and torch.compile a name for it.

    Where torch has it the function becomes ``torch.ops.mmcyclemlp.<name>``,
    which compiles as one node without a graph break; else it becomes an
    ``autograd.Function`` with the same formulas, which torch.compile leaves
    alone.

    Args:
        name: Name of the op within the namespace ``mmcyclemlp``.
        schema: Its arguments and results in torch's schema language.
        forward: Computes it. May neither change nor return its inputs.
        fake: Gives empty results of the shapes, dtypes and strides that
            ``forward`` gives.
        setup_context: ``(ctx, inputs, output)``, saves what ``backward``
            needs. None if the op has no derivative.
        backward: ``(ctx, *grads)``, gradients of all inputs.
        macs: Multiply-adds, see :func:`~mmcyclemlp.ops.counting.declare`.
            None for none. Before torch 2.6 torch's counter sees into the
            function, and the others do not see it.

    Returns:
        The op, called with positional arguments.
    """
    if HAS_CUSTOM_OP:
        op = torch.library.custom_op(
            f'mmcyclemlp::{name}', forward, mutates_args=(), schema=schema)
        op.register_fake(fake)
        if backward is not None:
            op.register_autograd(backward, setup_context=setup_context)
        if macs is not None:
            counting.declare(name, macs)
        return op
    if backward is None:
        return forward
    function = type(
        name, (torch.autograd.Function, ),
        dict(forward=staticmethod(forward),
             setup_context=staticmethod(setup_context),
             backward=staticmethod(backward)))
    # Not to be traced: torch 2.1 gets slices with a step wrong.
    return torch.compiler.disable(function.apply)


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cast to the dtype of the autocast region that is open, if one is.

    As torch does for a matrix product: float64 stays, and so does None.
    """
    device = tensors[0].device.type
    if device == 'meta':
        # torch knows no autocast region of it.
        return tensors
    if HAS_CUSTOM_OP:
        enabled = torch.is_autocast_enabled(device)
    elif device == 'cpu':
        enabled = torch.is_autocast_cpu_enabled()
    else:
        enabled = torch.is_autocast_enabled()
    if not enabled:
        return tensors
    if HAS_CUSTOM_OP:
        dtype = torch.get_autocast_dtype(device)
    elif device == 'cpu':
        dtype = torch.get_autocast_cpu_dtype()
    else:
        dtype = torch.get_autocast_gpu_dtype()
    return tuple(
        t if t is None or t.dtype == torch.float64 else t.to(dtype)
        for t in tensors)
