"""The public function of the operator: validate, choose, call."""

from __future__ import annotations

from torch import Tensor

from . import reference, shift

# Name -> (implementation, why it cannot run on x), best first.
_BACKENDS = {
    'torch': (shift.cycle_fc_torch, shift.unavailable_reason),
    'reference': (
        reference.cycle_fc_reference,
        reference.unavailable_reason,
    ),
}


def cycle_fc(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_size: tuple[int, int] = (1, 3),
    *,
    backend: str | None = None,
) -> Tensor:
    """Fully connected layer that reads each channel at a cycling offset.

    ``y[n, o, i, j] = bias[o] + sum_c weight[o, c] x[n, c, i + dy, j + dx]``,
    zero outside the map, with ``(dy, dx)`` of channel c as in
    :func:`~mmcyclemlp.ops.cycle_offsets`. Chen et al., "CycleMLP" (ICLR
    2022, https://arxiv.org/abs/2107.10224).

    Args:
        x: Input of shape (N, C, H, W) and any memory format; the output
            keeps it. N may be 0, H and W may be smaller than the kernel.
        weight: (O, C, 1, 1).
        bias: (O,) or None.
        kernel_size: ``(S_H, S_W)``, odd: the pseudo-kernel whose positions
            the channels cycle through. ``(1, 3)`` moves along the width.
        backend: ``'torch'`` (channel moves and a matrix product),
            ``'reference'`` (deformable convolution), or None for the best
            that can run here.

    Returns:
        Tensor of shape (N, O, H, W).

    Raises:
        ValueError: A shape, a kernel size or a backend name is wrong.
        RuntimeError: The backend asked for cannot run here; says why.
    """
    kernel_size = _check_kernel_size(kernel_size)
    if x.dim() != 4:
        raise ValueError(f'cycle_fc takes x of (N, C, H, W), got {x.shape=}')
    if weight.shape[1:] != (x.shape[1], 1, 1):
        raise ValueError(
            'cycle_fc takes weight of (O, C, 1, 1) with the channels of x, '
            f'got {weight.shape=} for {x.shape=}')
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f'cycle_fc takes bias of (O,), got {bias.shape=} for '
            f'{weight.shape=}')
    return _implementation(x, backend)(x, weight, bias, kernel_size)


def _check_kernel_size(kernel_size: tuple[int, int]) -> tuple[int, int]:
    """Return the kernel as a pair of ints, or say what is wrong with it."""
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else ()
    if len(sizes) != 2 or any(
            not isinstance(s, int) or s < 1 or s % 2 == 0 for s in sizes):
        raise ValueError(
            'cycle_fc takes kernel_size as two odd positive integers '
            f'(S_H, S_W), got {kernel_size=}')
    return tuple(sizes)


def _implementation(x: Tensor, backend: str | None):
    """Function of the backend asked for, or of the best that can run."""
    if backend is None:
        for implementation, unavailable_reason in _BACKENDS.values():
            if unavailable_reason(x) is None:
                return implementation
    if backend not in _BACKENDS:
        raise ValueError(
            f'cycle_fc knows the backends {sorted(_BACKENDS)}, got '
            f'{backend=}')
    implementation, unavailable_reason = _BACKENDS[backend]
    reason = unavailable_reason(x)
    if reason is not None:
        raise RuntimeError(f'{backend=} cannot run here: {reason}')
    return implementation
