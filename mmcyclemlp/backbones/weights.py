"""Weights of CycleNet: recognize the layout, account for every key.

A file goes through three steps: :func:`read_checkpoint` reads it,
:func:`find_state_dict` recognizes its layout, :func:`adapt_state_dict` holds
its keys against a network. :func:`load_pretrained` does all three.
"""

import logging
import os
import re
from collections import Counter
from typing import NamedTuple

import torch

from ..checkpoint_files import read_checkpoint
from ..errors import CheckpointError, MismatchError, NotCycleNetError
from .account import LoadReport, account_for, is_head, is_out_norm
from .arch import TURNED, is_turned, recognize_arch, same_arch

logger = logging.getLogger('mmcyclemlp')


class FoundBackbone(NamedTuple):
    """The backbone in a checkpoint, and what lies beside it.

    Attributes:
        tensors (dict): Tensors by official key.
        layout (str): In which layout they were.
        beside (list[str]): What was not taken: entries beside the state
            dict, and parts of the model with their number of tensors.
        prefix (str): Prefix of the keys in the checkpoint, such as
            'backbone.'; empty if the checkpoint is of a backbone alone.
    """

    tensors: dict
    layout: str
    beside: list
    prefix: str


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
    return FoundBackbone(own, layout, beside, prefix)


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
        MismatchError: A key is missing, unexpected or of another shape,
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
        raise MismatchError(_misfit(account, state, model))
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
    arch = recognize_arch(state, model.on_meta)
    if all(map(is_head, keys)):
        return ('set num_classes to that of the file, or take its head out: '
                'tools/convert_checkpoint.py --drop-head')
    if is_turned(state, model):
        return TURNED
    if arch is not None and not same_arch(arch, model.arch):
        return (f'the file is of arch={arch!r}, the network of '
                f'arch={model.arch!r}: make them agree')
    if any(key.startswith('patch_embed.') for key in keys):
        return 'make stem and in_channels those of the file'
    if any(map(is_out_norm, keys)):
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
