"""The fused forms of a block, and when they replace its submodules.

A fused form reads the weights of the submodules and does not call them. So
it is used only where a call would do nothing else: each submodule is of the
stock class, has no hook, no parametrization and no adapter, and is not
wrapped. Hooks that torch calls for all modules, such as those of
``register_module_forward_hook``, do not see these submodules.
"""

import torch
from torch import nn

from ..ops import (
    CycleFC,
    MixerWeights,
    cycle_mixer,
    is_compiling,
    residual_mlp,
)
from ..ops.custom_op import HAS_CUSTOM_OP, is_transformed
from ..ops.mixer import branches_cost_less
from .layers import DropPath, Mlp

_TEXTBOOK = ('plain', 'reference')
# The names that the fused MLP has for activations.
_ACTIVATIONS = {nn.GELU: 'gelu', nn.ReLU: 'relu', nn.SiLU: 'silu',
                nn.Hardswish: 'hardswish'}
_WEIGHTS = (torch.Tensor, nn.Parameter)


def can_fuse_mixer(block, x):
    """Check whether :func:`fused_mixer` returns what the modules return.

    Args:
        block (CycleBlock): The block. Its ``attn`` is a CycleMixer.
        x (Tensor): (B, H, W, C), its input.

    Returns:
        bool: False also where the fused form is slower.
    """
    if not _is_fused_backend(block.backend) or branches_cost_less(
            x.shape[1] * x.shape[2], x.shape[3]):
        return False
    mixer = block.attn
    if _has_hooks(mixer):
        return False
    parts = mixer._modules  # each attribute of a module costs 0.5 us
    along_width, along_height = parts['sfc_h'], parts['sfc_w']
    return (
        _is_stock(along_width, CycleFC)
        and _is_stock(along_height, CycleFC)
        and along_height.kernel_size == along_width.kernel_size[::-1]
        and _is_stock(parts['mlp_c'], nn.Linear, needs_bias=False)
        and _is_stock(parts['proj'], nn.Linear)
        and _is_idle(parts['proj_drop'])
        and _is_stock(block.drop_path, DropPath, needs_bias=False))


def can_fuse_mlp(block, x):
    """Check whether :func:`fused_mlp` returns what the modules return.

    Args:
        block (CycleBlock): The block.
        x (Tensor): (B, H, W, C), its input.

    Returns:
        bool: False also where the fused form is slower.
    """
    # A compiler for GPUs fuses the stock layers better.
    if not _is_fused_backend(block.backend) or (
            is_compiling() and not x.is_cpu):
        return False
    mlp = block.mlp
    if type(mlp) is not Mlp or _has_hooks(mlp):
        return False
    parts = mlp._modules
    act = parts.get('act')
    return (
        _is_stock(parts['fc1'], nn.Linear)
        and _is_stock(parts['fc2'], nn.Linear)
        and type(act) in _ACTIVATIONS
        and not _has_hooks(act)
        and getattr(act, 'approximate', 'none') == 'none'
        and _is_idle(parts['drop'])
        and _is_stock(block.drop_path, DropPath, needs_bias=False))


def fused_mixer(mixer, x, shortcut, scale, backend):
    """Return ``shortcut + scale * mixer(x)``.

    Args:
        mixer (CycleMixer): The module.
        x (Tensor): (B, H, W, C).
        shortcut (Tensor): (B, H, W, C).
        scale (Tensor | None): (B,), or None for 1.
        backend (str | None): 'triton', 'torch' or None.

    Returns:
        Tensor: (B, H, W, C).
    """
    weights = MixerWeights(
        mixer.sfc_h.weight, mixer.sfc_h.bias, mixer.sfc_w.weight,
        mixer.sfc_w.bias, mixer.mlp_c.weight, mixer.mlp_c.bias,
        mixer.proj.weight, mixer.proj.bias)
    return cycle_mixer(
        x, weights, mixer.reweight, mixer.sfc_h.kernel_size,
        shortcut=shortcut, scale=scale, backend=backend)


def fused_mlp(mlp, x, shortcut, scale):
    """Return ``shortcut + scale * mlp(x)``.

    Args:
        mlp (Mlp): The module.
        x (Tensor): (B, H, W, C).
        shortcut (Tensor): (B, H, W, C).
        scale (Tensor | None): (B,), or None for 1.

    Returns:
        Tensor: (B, H, W, C).
    """
    return residual_mlp(
        x, shortcut, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight,
        mlp.fc2.bias, _ACTIVATIONS[type(mlp.act)], scale=scale)


def _is_fused_backend(backend):
    if backend in _TEXTBOOK or is_transformed():
        return False
    # By default a trace has stock operators, to be counted or to run where
    # the package is not installed.
    return backend is not None or not torch.jit.is_tracing()


def _is_stock(module, kind, needs_bias=True):
    """Whether a call runs the forward of ``kind`` on plain weights alone."""
    if type(module) is not kind or _has_hooks(module) or (
            needs_bias and module.bias is None):
        return False
    # torchao and distributed tensors replace weights by subclasses.
    for weight in module._parameters.values():
        if weight is not None and type(weight) not in _WEIGHTS:
            return False
    return True


def _is_idle(dropout):
    """Whether a dropout does nothing."""
    return (type(dropout) is nn.Dropout and not _has_hooks(dropout)
            and not (dropout.training and dropout.p > 0))


def _has_hooks(module):
    # accelerate replaces the forward of an instance. compile() of a module
    # replaces its call.
    return (module._forward_hooks or module._forward_pre_hooks
            or module._backward_hooks or module._backward_pre_hooks
            or 'forward' in module.__dict__
            or getattr(module, '_compiled_call_impl', None) is not None)


if not HAS_CUSTOM_OP:
    # torch 2.1 fails to compile them.
    fused_mixer = torch.compiler.disable(fused_mixer)
    fused_mlp = torch.compiler.disable(fused_mlp)
