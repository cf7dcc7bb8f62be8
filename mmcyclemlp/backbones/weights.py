"""Weights of CycleNet: recognise the layout, account for every key.

A file goes through three steps: :func:`read_checkpoint` reads it,
:func:`find_state_dict` recognises its layout, :func:`adapt_state_dict` holds
its keys against a network. :func:`load_pretrained` does all three.
"""

import logging
import os
import re
from collections import Counter
from typing import NamedTuple

import torch

from ..ops import CycleFC, cycle_offsets
from .files import CheckpointError, read_checkpoint

__all__ = [
    'CheckpointError',
    'LoadReport',
    'NotCycleNetError',
    'account_for',
    'adapt_state_dict',
    'find_backbone',
    'find_state_dict',
    'load_pretrained',
    'read_checkpoint',
]

logger = logging.getLogger('mmcyclemlp')


class NotCycleNetError(CheckpointError):
    """A checkpoint holds tensors, but no CycleNet."""


class FoundBackbone(NamedTuple):
    """The backbone in a checkpoint, and what lies beside it.

    Attributes:
        tensors (dict): Tensors by official key.
        layout (str): In which layout they were.
        beside (list[str]): What was not taken: entries beside the state
            dict, and parts of the model with their number of tensors.
    """

    tensors: dict
    layout: str
    beside: list


def find_state_dict(checkpoint, prefix=None):
    """Find the backbone's tensors in any of the layouts they come in.

    Args:
        checkpoint (dict): The official layout (under ``model``), an mm
            checkpoint (under ``state_dict``) of the backbone or of a whole
            model, or a bare state dict.
        prefix (str | None): Where in a whole model the backbone lies.
            None finds it by its stem. Default: None.

    Returns:
        tuple[dict, str]: Tensors by official key, and the layout's name.

    Raises:
        CheckpointError: There is no CycleNet in it.
    """
    return find_backbone(checkpoint, prefix)[:2]


def find_backbone(checkpoint, prefix=None, entry=None):
    """As :func:`find_state_dict`, but says too what lies beside it.

    Args:
        checkpoint (dict): See there.
        prefix (str | None): See there. Default: None.
        entry (str | None): Under which key the state dict lies, e.g.
            ``'ema_state_dict'``. None finds it. Default: None.

    Returns:
        FoundBackbone: Tensors, layout, and the rest by name.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'a checkpoint is a dict, this is a {type(checkpoint).__name__}')
    # Plain dicts: a pickle can give one attributes in place of methods.
    checkpoint = _plain_dict(checkpoint)
    state, layout, beside = checkpoint, 'bare state dict', []
    layouts = {'state_dict': 'mm layout', 'model': 'official layout'}
    for key in layouts if entry is None else [entry]:
        if isinstance(checkpoint.get(key), dict):
            state = _plain_dict(checkpoint[key])
            layout = layouts.get(key, f'entry {key!r}')
            beside = [str(other) for other in checkpoint if other != key]
            break
    else:
        if entry is not None:
            raise CheckpointError(
                f'no state dict under {entry!r}; the checkpoint holds '
                f'{sorted(map(str, checkpoint))[:8]}')
    tensors = {key: value for key, value in state.items()
               if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            "no tensors under 'state_dict', under 'model' or bare; the "
            f'checkpoint holds {sorted(map(str, checkpoint))[:8]}')
    rest = [key for key in state if key not in tensors]
    for key in rest:
        if isinstance(state[key], torch.Tensor):
            raise CheckpointError(f'{key!r} is no name of a tensor')
    if all(key.startswith('module.') for key in tensors):
        tensors = {key[len('module.'):]: value
                   for key, value in tensors.items()}
    prefix = _find_prefix(tensors, prefix)
    own = {key[len(prefix):]: value for key, value in tensors.items()
           if key.startswith(prefix)}
    for key, value in own.items():
        held = value.untyped_storage().nbytes() // value.element_size()
        if value.numel() > held:
            raise CheckpointError(
                f'{prefix}{key} claims the shape {tuple(value.shape)} with '
                f'{held} numbers in the file')
    for key in rest:
        # Not so Paddle's names for the tensors, or an entry like 'epoch'.
        if re.match(r'(module\.)?' + re.escape(prefix) + r'.+\.', str(key)):
            raise CheckpointError(
                f'{key} is no tensor, but a {type(state[key]).__name__}')
        beside.append(str(key))
    parts = Counter(_part(key, prefix) for key in tensors
                    if not key.startswith(prefix))
    beside += [f'{part} ({number} tensors)'
               for part, number in sorted(parts.items())]
    if any(map(_SWIN.match, own)) and not any(
            key.startswith('network.') for key in own):
        own = {_SWIN.sub(_from_swin, key): value
               for key, value in own.items()}
        layout += ", Swin's naming (layers.i as network.2i)"
    if prefix:
        layout += f', prefix {prefix!r}'
    return FoundBackbone(own, layout, beside)


def _plain_dict(mapping):
    return dict(dict.items(mapping))


def _find_prefix(tensors, prefix):
    """Where in a state dict the backbone lies, with the dot at its end."""
    stem = 'patch_embed.proj.weight'
    if prefix is None:
        found = sorted(key[:-len(stem)] for key in tensors
                       if key == stem or key.endswith('.' + stem))
        if not found:
            raise NotCycleNetError(
                f'not a CycleNet: no {stem} in it; its keys begin '
                f'{sorted(tensors)[:4]}')
        if len(found) > 1:
            raise CheckpointError(
                f'several networks in it, at {found}: say which by prefix')
        return found[0]
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    if not any(key.startswith(prefix) for key in tensors):
        tops = sorted({key.split('.')[0] + '.' for key in tensors})
        raise CheckpointError(
            f'no key begins with prefix {prefix!r}; they begin {tops}')
    return prefix


def _part(key, prefix):
    """The part of a model a key belongs to, as far as it tells it apart."""
    names = key.split('.')
    same = 0
    for name, own in zip(names, prefix.split('.')):
        if name != own:
            break
        same += 1
    return '.'.join(names[:same + 1])


# T, S and B might have the names of the network their sizes are from.
_SWIN = re.compile(r'^layers\.(0|[1-9]\d?)\.(?:blocks(?=\.\d)|(downsample)\.)')


def _from_swin(match):
    place = 2 * int(match[1])
    return f'network.{place + 1}.' if match[2] else f'network.{place}'


class LoadReport(NamedTuple):
    """What became of the keys of a file and of the network.

    Attributes:
        loaded (list[str]): Keys taken from the file.
        dropped (list[str]): Keys of the file the network has no use for.
        kept (list[str]): Keys of the network that stay at their initial
            values: output norms, where the file is a classifier's; the
            head, where the file has none.
    """

    loaded: list
    dropped: list
    kept: list

    def __str__(self):
        text = f'{len(self.loaded)} tensors loaded'
        if self.dropped:
            heads = [key for key in self.dropped
                     if not key.endswith('.offset')]
            text += f'; dropped {len(self.dropped) - len(heads)} offsets'
            text += f' (verified) and {heads}' if heads else ' (verified)'
        if self.kept:
            text += f'; at their initial values: {self.kept}'
        return text


_CLASSIFIER = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')
_is_out_norm = re.compile(r'norm\d+\.').match


class Account(NamedTuple):
    """Tensors held against a network, and what does not fit it.

    Attributes:
        adapted (dict): Tensors the network takes.
        dropped (list[str]): Keys it has no use for.
        kept (list[str]): Its keys that may stay at their initial values.
        missing (list[str]): Its keys that the tensors lack.
        unexpected (list[str]): Keys it does not know.
        reshaped (list[str]): Keys with the shape they have and ought to.
        wrong_offsets (list[str]): Keys of offsets that are not the
            formula's, and why.
    """

    adapted: dict
    dropped: list
    kept: list
    missing: list
    unexpected: list
    reshaped: list
    wrong_offsets: list

    @property
    def misfits(self):
        """Keys that do not fit, each in words."""
        return [
            *(f'of another shape: {text}' for text in self.reshaped),
            *(f'missing: {key}' for key in self.missing),
            *(f'unexpected: {key}' for key in self.unexpected),
            *self.wrong_offsets,
        ]


def account_for(state, model):
    """Hold a state dict against a network and say what fits.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for; may be on meta.

    Returns:
        Account: Every key of both sides.
    """
    expected = {key: tuple(value.shape)
                for key, value in model.named_parameters()}
    layers = {f'{name}.offset': module
              for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    adapted, dropped, unexpected, reshaped, wrong = {}, [], [], [], []
    for key, value in state.items():
        shape = tuple(value.shape)
        if key in layers:
            dropped.append(key)
            if not _holds_offsets(value, layers[key]):
                wrong.append(
                    f'{key} {shape} does not hold the offsets of a CycleFC '
                    f'with kernel {layers[key].kernel_size}: the weights '
                    'belong to another operator')
        elif key in expected:
            adapted[key] = value
            if shape != expected[key]:
                reshaped.append(f'{key} {shape} for {expected[key]}')
        elif key in _CLASSIFIER:
            dropped.append(key)
        else:
            unexpected.append(key)
    missing = [key for key in expected if key not in state]
    kept = []
    for may_stay in (_is_out_norm, _is_head):
        if not any(map(may_stay, state)):
            kept += [key for key in missing if may_stay(key)]
    missing = [key for key in missing if key not in kept]
    return Account(adapted, dropped, kept, missing, unexpected, reshaped,
                   wrong)


def _is_head(key):
    return key.startswith('head.')


def _holds_offsets(value, layer):
    offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
    return value.shape == (1, offsets.numel(), 1, 1) and torch.equal(
        value.flatten().cpu().double(), offsets.flatten().double())


def adapt_state_dict(state, model):
    """Hold a state dict against a network; strict in both directions.

    Dropped by name: ``head`` and ``norm`` of the classifier where ``model``
    has none, and the ``offset`` buffers of official files, once they are
    found to hold the cycle offsets. Output norms may be absent if the file
    has none at all, as a classifier's; so may the head. Everything else
    must match.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for.

    Returns:
        tuple[dict, LoadReport]: Tensors the network takes, and the account.

    Raises:
        CheckpointError: A key is missing, unexpected or of another shape,
            or an offset is not the formula's; names keys and remedy.
    """
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f'{key!r} is no tensor, but of type {type(value).__name__}: '
                'give the file to load_pretrained, which finds the weights '
                'in it')
    account = account_for(state, model)
    if account.misfits:
        raise CheckpointError(_misfit(account, state, model))
    return account.adapted, LoadReport(
        sorted(account.adapted), sorted(account.dropped), account.kept)


def _misfit(account, state, model):
    """Say which keys do not fit, and what to do."""
    missing, unexpected, reshaped = (
        account.missing, account.unexpected, account.reshaped)
    if not missing and not unexpected and not reshaped:
        return account.wrong_offsets[0]
    if not account.adapted and not unexpected:
        return (
            'the checkpoint holds no tensor for this CycleNet, so nothing '
            'would be loaded. If it is a file of the backbone alone, give it '
            "as backbone=dict(init_cfg=dict(type='Pretrained', "
            'checkpoint=...)); load_from and resume take whole models')
    lines = ['the checkpoint does not fit this CycleNet']
    for what, keys in (('missing', missing), ('unexpected', unexpected),
                       ('of another shape', reshaped)):
        if keys:
            more = f' and {len(keys) - 6} more' if len(keys) > 6 else ''
            lines.append(f'{what}: {", ".join(keys[:6])}{more}')
    lines.append(_remedy(missing + unexpected + reshaped, state, model))
    return '; '.join(lines)


def _remedy(keys, state, model):
    # It builds networks, which load their weights by this module.
    from .recognise import TURNED, is_turned, recognise_arch, same_arch

    arch = recognise_arch(state)
    if all(map(_is_head, keys)):
        return ('set num_classes to that of the file, or take its head out: '
                'tools/convert_checkpoint.py --drop-head')
    if is_turned(state, model):
        return TURNED
    if arch is not None and not same_arch(arch, model.arch):
        return (f'the file is of arch={arch!r}, the network of '
                f'arch={model.arch!r}: make them agree')
    if any(key.startswith('patch_embed.') for key in keys):
        return 'make stem and in_channels those of the file'
    if any(map(_is_out_norm, keys)):
        if not model.fork_feat:
            return ('the file is of the backbone of a detector or '
                    "segmentor, which has no classifier's norm and head")
        return ('output norms differ: make fork_feat, fork_last3 and '
                'out_indices those the file was trained with')
    if any('.mlp_c.bias' in key for key in keys):
        return 'make qkv_bias that of the file'
    return ('check arch and in_channels, or that the file is of a CycleNet '
            'at all')


def load_pretrained(model, source, prefix=None, trusted=False):
    """Load a file into a network, strictly, and log the account.

    Args:
        model (CycleNet): The network.
        source (str | PathLike): Path or URL, see :func:`read_checkpoint`.
        prefix (str | None): See :func:`find_state_dict`. Default: None.
        trusted (bool): See :func:`read_checkpoint`. Default: False.

    Returns:
        LoadReport: Which keys were loaded, dropped and kept.

    Raises:
        CheckpointError: The file cannot be read safely or does not fit.
    """
    checkpoint = read_checkpoint(source, trusted=trusted)
    name = os.fspath(source)
    try:
        state, layout = find_state_dict(checkpoint, prefix)
        name = f'{name} ({layout})'
        _, report = adapt_state_dict(state, model)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from None
    # Not strict, as output norms may stay: the network itself is.
    model.load_state_dict(state, strict=False)
    logger.info('CycleNet: %s, from %s', report, name)
    return report
