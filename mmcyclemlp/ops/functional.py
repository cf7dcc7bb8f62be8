"""The public functions: they validate, choose a backend and call it."""

from __future__ import annotations

import logging
from functools import cache
from typing import Callable

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from . import mixer, mlp, plain, reference, torch_backend, triton
from .custom_op import autocast, is_compiling, is_transformed
from .mixer import MixerWeights

logger = logging.getLogger('mmcyclemlp')

BACKENDS = ('triton', 'torch', 'plain', 'reference')
FUSED = ('triton', 'torch')


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
    where ``(dy, dx)`` is the offset of channel c that
    :func:`~mmcyclemlp.ops.cycle_offsets` returns. ``x`` is zero outside the
    map. Chen et al., "CycleMLP" (ICLR
    2022, https://arxiv.org/abs/2107.10224).

    Args:
        x: (N, C, H, W), in any memory format. The output has the same
            format. N may be 0. H and W may be smaller than the kernel.
        weight: (O, C, 1, 1).
        bias: (O,) or None.
        kernel_size: ``(S_H, S_W)``, both odd. The channels cycle through
            the positions of this pseudo-kernel. ``(1, 3)`` moves them along
            the width.
        backend: ``'triton'`` (one kernel, on a GPU), ``'torch'`` (channel
            moves and a matrix product), ``'plain'`` (the same in stock
            operators), ``'reference'`` (deformable convolution), or None:
            ``'plain'`` while torch.jit traces, ``'triton'`` in half
            precision where it was measured to be faster, else ``'torch'``.

    Returns:
        Tensor of shape (N, O, H, W).

    Raises:
        ValueError: A shape, a kernel size or a backend name is wrong.
        BackendUnavailable: The requested backend cannot run here. The
            message says why.
    """
    kernel_size = check_kernel_size(kernel_size)
    _check_layer(x, weight, bias)
    if backend in (*FUSED, None):
        x, weight, bias = autocast(x, weight, bias)
    backend = _resolve(
        backend, x, 1, weight.shape[1], weight.shape[0], kernel_size)
    if backend == 'reference':
        return reference.cycle_fc_reference(x, weight, bias, kernel_size)
    if backend == 'plain':
        return plain.cycle_fc_plain(x, weight, bias, kernel_size)
    if backend == 'torch':
        return torch_backend.cycle_fc_torch(x, weight, bias, kernel_size)
    y = triton.cycle_product_triton(
        x.permute(0, 2, 3, 1), weight.reshape(1, 1, *weight.shape[:2]),
        None if bias is None else bias[None], None, kernel_size)
    y = y.permute(0, 3, 1, 2)
    return y.contiguous() if x.is_contiguous() else y


def cycle_mixer(
    x: Tensor,
    weights: MixerWeights,
    reweight: Callable[[Tensor], Tensor] | None,
    kernel_size: tuple[int, int] = (1, 3),
    *,
    shortcut: Tensor | None = None,
    scale: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Token mixer of CycleMLP, fused: its branches are never computed.

    The branches are ``h`` and ``w``, two CycleFC, and ``c``, a linear layer.
    Their weights ``a`` are three numbers for each channel: the softmax of
    ``reweight(mean(h + w + c))`` over the branches. The function returns
    ``shortcut + scale * proj(a_h h + a_w w + a_c c)``. Chen et al.,
    "CycleMLP" (ICLR 2022, https://arxiv.org/abs/2107.10224).

    Args:
        x: (B, H, W, C).
        weights: Parameters of the branches and of the projection.
        reweight: Maps (B, C) to (B, 3 C). The three numbers of channel c
            are at 3 c. With None all branches have the weight 1.
        kernel_size: ``(S_H, S_W)`` of the first CycleFC, both odd. The
            second CycleFC has ``(S_W, S_H)``.
        shortcut: (B, H, W, C), or None for none.
        scale: (B,), or None for 1.
        backend: ``'triton'`` (on a GPU), ``'torch'`` (on any device), or
            None: ``'triton'`` in half precision where it was measured to be
            faster, else ``'torch'``.

    Returns:
        Tensor of shape (B, H, W, C).

    Raises:
        ValueError: A shape, a kernel size or a backend name is wrong.
        BackendUnavailable: The requested backend cannot run here. The
            message says why.
    """
    kernel_size = check_kernel_size(kernel_size)
    _check_mixer(x, weights)
    channels = x.shape[3]
    _check_residual('cycle_mixer', x.shape, x, shortcut, scale)
    if backend not in (*FUSED, None):
        raise ValueError(
            f'cycle_mixer runs on the backends {", ".join(FUSED)}, or None '
            f'for the faster one, got {backend=}')
    x, shortcut, *tensors = autocast(x, shortcut, *weights)
    backend = _resolve(backend, x, 3, channels, channels, kernel_size)
    return mixer.mixer_by_products(
        x, MixerWeights(*tensors), reweight, kernel_size, shortcut, scale,
        triton.cycle_product_triton if backend == 'triton'
        else torch_backend.cycle_product_torch)


def residual_mlp(
    x: Tensor,
    shortcut: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    activation: str = 'gelu',
    *,
    scale: Tensor | None = None,
) -> Tensor:
    """``shortcut + scale * fc2(activation(fc1(x)))``, fused.

    On a CPU the rows go through both layers in pieces that stay in its
    cache. The hidden layer is kept for the backward pass only where that
    costs less than to compute it again.

    Args:
        x: (B, ..., C).
        shortcut: (B, ..., O).
        weight1: (hidden, C).
        bias1: (hidden,).
        weight2: (O, hidden).
        bias2: (O,).
        activation: ``'gelu'`` (exact), ``'relu'``, ``'silu'`` or
            ``'hardswish'``.
        scale: (B,), or None for 1.

    Returns:
        Tensor of shape (B, ..., O).

    Raises:
        ValueError: A shape or the name of the activation is wrong.
    """
    if activation not in mlp.ACTIVATIONS:
        raise ValueError(
            f'residual_mlp knows the activations {sorted(mlp.ACTIVATIONS)}, '
            f'got {activation=}')
    _check_residual('residual_mlp', (*x.shape[:-1], weight2.shape[0]), x,
                    shortcut, scale)
    x, shortcut, weight1, bias1, weight2, bias2 = autocast(
        x, shortcut, weight1, bias1, weight2, bias2)
    shape = shortcut.shape
    x = x.reshape(-1, x.shape[-1])
    if scale is not None:
        rows = x.shape[0] // max(1, shape[0])
        scale = scale.to(x).repeat_interleave(rows)[:, None]
    keep = torch.is_grad_enabled() and mlp.keeps_hidden(x)
    y, _ = mlp.residual_mlp(
        x, weight1, bias1, weight2, bias2, shortcut.reshape(-1, shape[-1]),
        scale, activation, keep)
    return y.view(shape)


def check_kernel_size(kernel_size: tuple[int, int]) -> tuple[int, int]:
    """Return the kernel as a pair of ints, or raise a ValueError."""
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else ()
    if len(sizes) != 2 or any(
            not isinstance(s, int) or s < 1 or s % 2 == 0 for s in sizes):
        raise ValueError(
            'kernel_size is two odd positive integers (S_H, S_W), got '
            f'{kernel_size=}')
    return tuple(sizes)


def check_backend(backend: str | None) -> str | None:
    """Return the name of a backend, or raise a ValueError."""
    if backend is not None and backend not in BACKENDS:
        raise ValueError(
            f'the backends are {", ".join(BACKENDS)}, or None for the '
            f'default, got {backend=}')
    return backend


def _resolve(backend: str | None, x: Tensor, branches: int, channels: int,
             outputs: int, kernel_size: tuple[int, int]) -> str:
    """Return the requested backend, or the default for such a call."""
    if check_backend(backend) is None:
        if torch.jit.is_tracing() or is_transformed():
            # Counters and transforms know stock operators alone.
            return 'plain'
        # In single precision cuBLAS multiplies faster.
        if not x.is_cuda or x.dtype not in (torch.float16, torch.bfloat16):
            return 'torch'
        capability = torch.cuda.get_device_capability(x.device)
        faster = triton.unavailable_reason(x) is None and (
            triton.is_measured_faster(
                branches, channels, outputs, kernel_size, x.dtype,
                capability))
        backend = 'triton' if faster else 'torch'
        if not is_compiling():
            _log_choice(backend, capability)
        return backend
    reason = None
    if backend == 'triton':
        reason = triton.unavailable_reason(x)
    elif backend == 'reference':
        reason = reference.unavailable_reason()
    if reason is not None:
        raise BackendUnavailable(
            f'{backend=} cannot run here: {reason}. Leave backend out for '
            'the default')
    return backend


@cache
def _log_choice(backend: str, capability: tuple[int, int]) -> None:
    """Log once which backend a GPU uses by default, and why."""
    name = f'a GPU of compute capability {capability[0]}.{capability[1]}'
    if backend == 'triton':
        logger.info("mmcyclemlp: backend='triton', which was measured to be "
                    'faster on %s', name)
    else:
        logger.info("mmcyclemlp: backend='torch', as nothing faster was "
                    "measured on %s. backend='triton' tries the fused "
                    'kernels', name)


def _check_layer(x, weight, bias) -> None:
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


def _check_mixer(x, weights) -> None:
    if x.dim() != 4:
        raise ValueError(
            f'cycle_mixer takes x of (B, H, W, C), got {x.shape=}')
    channels = x.shape[3]
    for name, tensor in weights._asdict().items():
        shape = (channels, ) * (2 if name.endswith('weight') else 1)
        if tensor is not None and (
                tensor.shape[:2] != shape or tensor.numel() != channels
                ** len(shape)):
            raise ValueError(
                f'cycle_mixer takes {name} of {shape}, with the channels of '
                f'x, got {tuple(tensor.shape)} for {x.shape=}')


def _check_residual(name, shape, x, shortcut, scale) -> None:
    if shortcut is not None and shortcut.shape != torch.Size(shape):
        raise ValueError(
            f'{name} takes a shortcut of {tuple(shape)}, got '
            f'{tuple(shortcut.shape)}')
    if scale is not None and scale.shape != x.shape[:1]:
        raise ValueError(
            f'{name} takes a scale of one number a sample, got '
            f'{scale.shape=} for {x.shape=}')
