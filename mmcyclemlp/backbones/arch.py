"""Sizes of the named archs, and the arch of a state dict.

Functions that build a network get :meth:`CycleNet.on_meta` as ``build``, as
this module cannot import it.
"""

from __future__ import annotations

import json
import re
from numbers import Real
from typing import Any, Callable, NamedTuple

from torch import Tensor, nn

from ..errors import CheckpointError
from .account import account_for

ARCH_SETTINGS = {
    'b1': {
        'embed_dims': (64, 128, 320, 512),
        'depths': (2, 2, 4, 2),
        'mlp_ratios': (4, 4, 4, 4),
    },
    'b2': {
        'embed_dims': (64, 128, 320, 512),
        'depths': (2, 3, 10, 3),
        'mlp_ratios': (4, 4, 4, 4),
    },
    'b3': {
        'embed_dims': (64, 128, 320, 512),
        'depths': (3, 4, 18, 3),
        'mlp_ratios': (8, 8, 4, 4),
    },
    'b4': {
        'embed_dims': (64, 128, 320, 512),
        'depths': (3, 8, 27, 3),
        'mlp_ratios': (8, 8, 4, 4),
    },
    'b5': {
        'embed_dims': (96, 192, 384, 768),
        'depths': (3, 4, 24, 3),
        'mlp_ratios': (4, 4, 4, 4),
    },
    't': {
        'embed_dims': (96, 192, 384, 768),
        'depths': (2, 2, 6, 2),
        'mlp_ratios': (4, 4, 4, 4),
        'downsample': 'patch_merging',
        'reweight': False,
    },
    's': {
        'embed_dims': (96, 192, 384, 768),
        'depths': (2, 2, 18, 2),
        'mlp_ratios': (4, 4, 4, 4),
        'downsample': 'patch_merging',
        'reweight': False,
    },
    'b': {
        'embed_dims': (128, 256, 512, 1024),
        'depths': (2, 2, 18, 2),
        'mlp_ratios': (4, 4, 4, 4),
        'downsample': 'patch_merging',
        'reweight': False,
    },
}

TRANSPOSED = ('its matrices are transposed, so it is from another library; '
              'if that is Paddle, give the .pdparams file')


class Recognized(NamedTuple):
    """The network of a state dict.

    Attributes:
        model (CycleNet): The network on the meta device.
        options (dict): Arguments of CycleNet.
    """

    model: nn.Module
    options: dict[str, Any]

    def __str__(self):
        options = dict(self.options)
        arguments = [repr(options.pop('arch'))]
        arguments += [f'{key}={value!r}' for key, value in options.items()]
        return f'CycleNet({", ".join(arguments)})'


def recognize(state: dict[str, Tensor], build: Callable[..., nn.Module],
              arch: str | dict | None = None) -> Recognized:
    """Find the network that has the keys and shapes of a state dict.

    The stem, the number of classes and other options follow from the
    tensors. The arch must be one of ``ARCH_SETTINGS``, unless it is given.

    Args:
        state (dict): Tensors by official key.
        build (Callable): ``build(arch, **options)`` builds the network.
        arch (str | dict | None): The required arch. Default: None.

    Returns:
        Recognized: The network, which fits every key.

    Raises:
        CheckpointError: The tensors are of another arch or of none. The
            message names the nearest arch and the first keys that differ.
    """
    options = _options(state)
    own = recognize_arch(state, build)
    if arch is not None:
        _check_arch(build, arch)
        model = _build(build, arch, options)
        misfits = account_for(state, model).misfits
        if not misfits:
            return Recognized(model, dict(arch=arch, **options))
        text = f'not of arch {_written(arch)}'
        remedy = '' if own is None else f'. It is of arch {_written(own)}'
    elif isinstance(own, str):
        return Recognized(_build(build, own, options),
                          dict(arch=own, **options))
    else:
        models = {name: _build(build, name, options)
                  for name in ARCH_SETTINGS}
        differ = {name: account_for(state, model).misfits
                  for name, model in models.items()}
        nearest = min(differ, key=lambda name: len(differ[name]))
        model, misfits = models[nearest], differ[nearest]
        text = f'of no known arch; the nearest is {nearest}'
        remedy = '' if own is None else (
            f". If these are the sizes you mean, give --arch "
            f"'{_written(own)}'")
    if is_transposed(state, model):
        remedy = f'. {TRANSPOSED}'
    # All of them if nothing else tells what the file is.
    listed = _listed(misfits, 4 if remedy else len(misfits))
    raise CheckpointError(
        f'{text}, which differs in {len(misfits)} keys: {listed}{remedy}')


def _listed(misfits, most):
    """Join messages, those that differ only in numbers as one."""
    groups = {}
    for text in misfits:
        groups.setdefault(re.sub(r'\d+', '*', text), []).append(text)
    listed = [
        first + (f' (and {len(others)} like it)' if others else '')
        for first, *others in groups.values()]
    return '; '.join(listed[:most]) + '; and more' * (len(listed) > most)


def recognize_arch(state: dict[str, Tensor],
                   build: Callable[..., nn.Module]) -> str | dict | None:
    """Return the arch of a state dict.

    Args:
        state (dict): Tensors by official key.
        build (Callable): ``build(arch, **options)`` builds the network.

    Returns:
        str | dict | None: Name of the arch; its sizes, if it has no name;
        None, if the keys fit no arch.
    """
    sizes = _sizes(state)
    if sizes is None:
        return None
    arch = next((name for name in ARCH_SETTINGS
                 if same_arch(sizes, name)), sizes)
    if account_for(state, _build(build, arch, _options(state))).misfits:
        return None
    return arch


def resolve_arch(arch: str | dict) -> dict:
    """Return the sizes of an arch.

    Args:
        arch (str | dict): A name of ``ARCH_SETTINGS``, or the sizes.

    Raises:
        ValueError: There is no such name, or a size is wrong.
    """
    if isinstance(arch, str):
        if arch not in ARCH_SETTINGS:
            raise ValueError(
                f'CycleNet: arch is one of {sorted(ARCH_SETTINGS)} '
                f'or a dict, got {arch!r}')
        return ARCH_SETTINGS[arch]
    keys = ['embed_dims', 'depths', 'mlp_ratios']
    options = {'downsample': ('conv', 'patch_merging'),
               'reweight': (True, False)}
    if not isinstance(arch, dict) or not (
            set(keys) <= set(arch) <= {*keys, *options}):
        raise ValueError(
            f'CycleNet: an arch dict has the keys {keys}, and perhaps '
            f'{list(options)}, got {arch!r}')
    sizes = [arch[key] for key in keys]
    if not all(isinstance(value, (list, tuple)) for value in sizes) or (
            not sizes[0] or len({len(value) for value in sizes}) != 1
            or not all(isinstance(number, Real) and 0 < number < 1e6
                       for value in sizes for number in value)
            or not all(number == int(number)
                       for value in sizes[:2] for number in value)):
        raise ValueError(
            'CycleNet: an arch dict has one positive number a stage '
            f'under each of {keys}, the first two whole, got {arch!r}')
    for key, choice in options.items():
        if arch.get(key, choice[0]) not in choice:
            raise ValueError(
                f'CycleNet: {key} of an arch dict is one of {choice}, '
                f'got {arch[key]!r}')
    return arch


def same_arch(a: str | dict, b: str | dict) -> bool:
    """Return whether two archs, given by name or sizes, are the same."""
    return _settings(a) == _settings(b)


def is_transposed(state: dict[str, Tensor], model: nn.Module) -> bool:
    """Return whether all matrices that are not square are transposed.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for.
    """
    shapes = [(tuple(state[key].shape), tuple(value.shape))
              for key, value in model.named_parameters()
              if key in state and value.dim() == 2
              and value.shape[0] != value.shape[1]]
    return bool(shapes) and all(a == b[::-1] for a, b in shapes)


def _settings(arch):
    """Return all sizes of an arch, with the defaults and as tuples."""
    settings = ARCH_SETTINGS[arch] if isinstance(arch, str) else arch
    return {
        **{key: tuple(settings[key])
           for key in ('embed_dims', 'depths', 'mlp_ratios')},
        'downsample': settings.get('downsample', 'conv'),
        'reweight': settings.get('reweight', True),
    }


def _written(arch):
    return arch if isinstance(arch, str) else json.dumps(arch)


def _check_arch(build, arch):
    try:
        _build(build, arch, dict(fork_feat=False))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f'arch {_written(arch)}: {error}') from error


def _sizes(state):
    """Return the sizes that the blocks have; None if there are no blocks."""
    blocks = {}
    for key in state:
        match = re.match(r'network\.([0-9]{1,3})\.([0-9]{1,3})\.', key)
        if match:
            blocks.setdefault(int(match[1]), set()).add(match[2])
    sizes = dict(embed_dims=[], depths=[], mlp_ratios=[])
    try:
        for place in sorted(blocks):
            block = f'network.{place}.0'
            hidden, dim = state[f'{block}.mlp.fc1.weight'].shape
            if not hidden or not dim:
                return None
            sizes['embed_dims'].append(dim)
            sizes['depths'].append(len(blocks[place]))
            sizes['mlp_ratios'].append(
                hidden // dim if hidden % dim == 0 else hidden / dim)
    except (KeyError, ValueError):
        return None
    if 'network.1.reduction.weight' in state:
        sizes['downsample'] = 'patch_merging'
    if 'network.0.0.attn.reweight.fc1.weight' not in state:
        sizes['reweight'] = False
    return sizes if blocks else None


def _options(state):
    """Return the arguments of CycleNet, except arch, that have no default."""
    options = {}
    stem = state.get('patch_embed.proj.weight')
    if stem is not None and stem.dim() == 4:
        if stem.shape[2] == 4:
            options['stem'] = 'conv4'
        if stem.shape[1] != 3:
            options['in_channels'] = stem.shape[1]
    if any(key.endswith('.attn.mlp_c.bias') for key in state):
        options['qkv_bias'] = True
    if 'norm.weight' in state or 'head.weight' in state:
        options['fork_feat'] = False
        head = state.get('head.weight')
        if head is not None and head.dim() == 2:
            options['num_classes'] = head.shape[0]
    else:
        norms = {int(match[1]) // 2 for match in map(
            re.compile(r'norm([0-9]?[02468])\.').match, state) if match}
        if norms == {1, 2, 3}:
            options['fork_last3'] = True
        elif norms and norms != set(range(4)):
            options['out_indices'] = tuple(sorted(norms))
    return options


def _build(build, arch, options):
    """Build the network with outputs that it has."""
    options = dict(options)
    if options.get('fork_feat', True):
        stages = range(len(_settings(arch)['depths']))
        outs = options.get('out_indices', stages)
        options['out_indices'] = [i for i in outs if i in stages] or stages
        options.setdefault('fork_last3', False)
    return build(arch, **options)
