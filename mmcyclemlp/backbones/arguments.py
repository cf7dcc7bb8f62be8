"""The checks of the arguments of CycleNet; errors name the argument."""

import math
from functools import partial
from numbers import Integral, Real

from torch import nn

_NORMS = {'LN': nn.LayerNorm}
_ACTIVATIONS = {
    kind.__name__: kind
    for kind in (nn.GELU, nn.ReLU, nn.SiLU, nn.Hardswish)}


def check_number(name, value, least, below=math.inf, whole=False):
    """Check the range of a number.

    Args:
        name (str): Name of the argument.
        value (Any): Its value.
        least (float): The smallest valid value.
        below (float): What a valid value is below. Default: inf.
        whole (bool): Whether it has to be an integer. Default: False.

    Raises:
        ValueError: The value is not valid.
    """
    if not isinstance(value, Integral if whole else Real) or not (
            least <= value < below):
        raise ValueError(
            f'CycleNet: {name} is a {"whole " * whole}number, {least} or more'
            + (f' and below {below}' if below < math.inf else '')
            + f', got {value!r}')


def check_frozen_stages(value, num_stages):
    """Return ``frozen_stages``, or raise a ValueError."""
    if not isinstance(value, Integral) or not -1 <= value <= num_stages:
        raise ValueError(
            f'CycleNet: frozen_stages counts stages, -1 to {num_stages}, '
            f'got {value!r}')
    return value


def check_out_indices(value, num_stages):
    """Return ``out_indices`` as a tuple, or raise a ValueError."""
    indices = tuple(value) if isinstance(value, (list, tuple, range)) else ()
    if not indices or not all(
            isinstance(i, Integral) and 0 <= i < num_stages
            for i in indices) or list(indices) != sorted(set(indices)):
        raise ValueError(
            'CycleNet: out_indices are ascending stages, 0 to '
            f'{num_stages - 1}, got {value!r}')
    return indices


def check_init_cfg(value):
    """Return ``init_cfg``, or raise a ValueError."""
    if value is not None and (
            not isinstance(value, dict)
            or value.get('type') != 'Pretrained'
            or 'checkpoint' not in value
            or set(value) - {'type', 'checkpoint', 'prefix', 'trusted'}):
        raise ValueError(
            "CycleNet: init_cfg takes dict(type='Pretrained', "
            "checkpoint=...[, prefix='backbone.', trusted=True]), got "
            f'{value!r}')
    return value


def find_norm(norm_cfg):
    """Find the norm of a config.

    Args:
        norm_cfg (dict): In mm's form, such as ``dict(type='LN', eps=1e-5)``.

    Returns:
        Callable: Makes the norm from its channels.

    Raises:
        ValueError: The config is not valid.
    """
    kind, options = _find(norm_cfg, _NORMS, 'norm_cfg')
    if set(options) - {'eps', 'elementwise_affine', 'bias'}:
        raise ValueError(
            "CycleNet: norm_cfg takes 'type', 'eps', 'elementwise_affine' "
            f"and 'bias', got {norm_cfg}")
    check_number("'eps' of norm_cfg", options.get('eps', 1e-5), 1e-30)
    return partial(kind, **options)


def find_act(act_cfg):
    """Find the activation of a config.

    Args:
        act_cfg (dict): In mm's form, such as ``dict(type='GELU')``.

    Returns:
        type: Makes the activation.

    Raises:
        ValueError: The config is not valid.
    """
    kind, options = _find(act_cfg, _ACTIVATIONS, 'act_cfg')
    if options:
        raise ValueError(
            f"CycleNet: act_cfg takes 'type' alone, got {act_cfg}")
    return kind


def _find(cfg, known, name):
    """Class and options of a ``dict(type=...)``."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"CycleNet: {name} takes a dict with 'type' one of "
            f'{sorted(known)}, got {cfg!r}')
    return known[kind], {key: cfg[key] for key in cfg if key != 'type'}
