"""Find the weights of a CycleNet in a checkpoint, and load them.

:func:`load_pretrained` takes three steps: :func:`read_checkpoint` reads the
file, :func:`find_backbone` recognizes its layout, and
:func:`adapt_state_dict` compares its keys with the network.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..checkpoint_files import read_checkpoint
from ..errors import CheckpointError, MismatchError, NotCycleNetError
from .account import LoadReport, account_for, is_head, is_out_norm
from .arch import TRANSPOSED, is_transposed, recognize_arch, same_arch

logger = logging.getLogger('mmcyclemlp')


class FoundBackbone(NamedTuple):
    """The backbone in a checkpoint.

    Attributes:
        tensors (dict): Tensors by official key.
        layout (str): Description of their layout, for messages only.
        beside (list[str]): What else the checkpoint holds: entries beside
            the state dict, and parts of the model with their number of
            tensors.
        prefix (str): Prefix of the keys in the checkpoint, such as
            'backbone.'; empty if the checkpoint is of a backbone alone.
    """

    tensors: dict[str, Tensor]
    layout: str
    beside: list[str]
    prefix: str


def find_backbone(checkpoint: Any, prefix: str | None = None,
                  entry: str | None = None) -> FoundBackbone:
    """Find the backbone in a checkpoint of any layout.

    Args:
        checkpoint (dict): The official layout (under ``model``), an mm
            checkpoint (under ``state_dict``) of the backbone or of a whole
            model, or a bare state dict.
        prefix (str | None): Prefix of the keys of the backbone in a whole
            model. None finds it by the stem. Default: None.
        entry (str | None): Key of the state dict in the checkpoint, such as
            ``'ema_state_dict'``. None finds it. Default: None.

    Returns:
        FoundBackbone: Its tensors and layout, and what else there is.

    Raises:
        NotCycleNetError: The checkpoint has tensors, but no CycleNet.
        CheckpointError: The checkpoint has no tensors, several networks, or
            values that are not tensors.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'a checkpoint is a dict, this is a {type(checkpoint).__name__}')
    state, layout, beside = _find_entry(_plain_dict(checkpoint), entry)
    tensors = {key: value for key, value in state.items()
               if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            "no tensors under 'state_dict', under 'model' or bare; the "
            f'checkpoint holds {sorted(map(str, checkpoint))[:8]}')
    rest = {key: value for key, value in state.items() if key not in tensors}
    if all(key.startswith('module.') for key in tensors):
        tensors = {key[len('module.'):]: value
                   for key, value in tensors.items()}
    prefix = _find_prefix(tensors, prefix)
    own = {key[len(prefix):]: value for key, value in tensors.items()
           if key.startswith(prefix)}
    _check_tensors(own, rest, prefix)
    parts = Counter(_part(key, prefix) for key in tensors
                    if not key.startswith(prefix))
    beside += [*map(str, rest), *(
        f'{part} ({number} tensors)'
        for part, number in sorted(parts.items()))]
    if any(map(_SWIN.match, own)) and not any(
            key.startswith('network.') for key in own):
        own = {_SWIN.sub(_from_swin, key): value
               for key, value in own.items()}
        layout += ", Swin's naming (layers.i as network.2i)"
    if prefix:
        layout += f', prefix {prefix!r}'
    return FoundBackbone(own, layout, beside, prefix)


def _plain_dict(mapping):
    # A pickle can replace methods of a subclass by attributes.
    return dict(dict.items(mapping))


def _find_entry(checkpoint, entry):
    """Return the state dict, a name for its layout, and the other keys."""
    layouts = {'state_dict': 'mm layout', 'model': 'official layout'}
    for key in layouts if entry is None else [entry]:
        if isinstance(checkpoint.get(key), dict):
            return (_plain_dict(checkpoint[key]),
                    layouts.get(key, f'entry {key!r}'),
                    [str(other) for other in checkpoint if other != key])
    if entry is not None:
        raise CheckpointError(
            f'no state dict under {entry!r}; the checkpoint holds '
            f'{sorted(map(str, checkpoint))[:8]}')
    return checkpoint, 'bare state dict', []


def _check_tensors(tensors, rest, prefix):
    """Check storages, and that other values have no names of tensors."""
    for key, value in tensors.items():
        available = value.untyped_storage().nbytes() // value.element_size()
        if value.numel() > available:
            raise CheckpointError(
                f'{prefix}{key} claims the shape {tuple(value.shape)} with '
                f'{available} numbers in the file')
    for key, value in rest.items():
        if isinstance(value, Tensor):
            raise CheckpointError(f'{key!r} is not a name of a tensor')
        # Paddle's table of names and an entry like 'epoch' do not match.
        if re.match(r'(module\.)?' + re.escape(prefix) + r'.+\.', str(key)):
            raise CheckpointError(
                f'{key} is not a tensor, but a {type(value).__name__}')


def _find_prefix(tensors, prefix):
    """Return the prefix of the keys of the backbone, with its last dot."""
    stem = 'patch_embed.proj.weight'
    if prefix is None:
        found = sorted(key[:-len(stem)] for key in tensors
                       if key == stem or key.endswith('.' + stem))
        if not found:
            raise NotCycleNetError(
                f'not a CycleNet: it has no {stem}; its keys begin with '
                f'{sorted(tensors)[:4]}')
        if len(found) > 1:
            raise CheckpointError(
                f'it has several networks, {found}: select one by prefix')
        return found[0]
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    if not any(key.startswith(prefix) for key in tensors):
        tops = sorted({key.split('.')[0] + '.' for key in tensors})
        raise CheckpointError(
            f'no key begins with prefix {prefix!r}; they begin with {tops}')
    return prefix


def _part(key, prefix):
    """Return the first part of a key that differs from the prefix."""
    names = key.split('.')
    same = 0
    for name, own in zip(names, prefix.split('.')):
        if name != own:
            break
        same += 1
    return '.'.join(names[:same + 1])


# A file of arch t, s or b can have the names of Swin, which has its sizes.
_SWIN = re.compile(r'^layers\.(0|[1-9]\d?)\.(?:blocks(?=\.\d)|(downsample)\.)')


def _from_swin(match):
    place = 2 * int(match[1])
    return f'network.{place + 1}.' if match[2] else f'network.{place}'


def adapt_state_dict(state: dict[str, Tensor], model: nn.Module,
                     ) -> tuple[dict[str, Tensor], LoadReport]:
    """Compare a state dict with a network, strictly in both directions.

    Keys of three kinds are dropped: ``head`` and ``norm`` of a classifier,
    if the network has none, and the ``offset`` buffers of official files,
    after they are verified. Output norms may be missing if all are, as in
    the file of a classifier, and so may the head. All other keys must match.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for.

    Returns:
        tuple[dict, LoadReport]: The tensors to load, and the report.

    Raises:
        MismatchError: A key is missing, unexpected or of another shape,
            or an offset is not that of the formula.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f'{key!r} is not a tensor, but of type '
                f'{type(value).__name__}: give the file to load_pretrained, '
                'which finds the weights in it')
    account = account_for(state, model)
    if account.misfits:
        raise MismatchError(_misfit(account, state, model))
    return account.adapted, LoadReport(
        sorted(account.adapted), sorted(account.dropped), account.kept)


def _misfit(account, state, model):
    """Return a message about the keys that do not fit, and the remedy."""
    keys = [*account.missing, *account.unexpected, *account.reshaped]
    if not keys:
        return account.wrong_offsets[0]
    if not account.adapted and not account.unexpected:
        return (
            'the checkpoint holds no tensor for this CycleNet, so nothing '
            'would be loaded. If the file is of a backbone alone, give it as '
            "backbone=dict(init_cfg=dict(type='Pretrained', "
            'checkpoint=...)); load_from and resume need whole models')
    lines = ['the checkpoint does not fit this CycleNet']
    for what, texts in (('missing', account.missing),
                        ('unexpected', account.unexpected),
                        ('of another shape', account.reshaped_texts)):
        if texts:
            more = f' and {len(texts) - 6} more' if len(texts) > 6 else ''
            lines.append(f'{what}: {", ".join(texts[:6])}{more}')
    lines.append(_remedy(keys, state, model))
    return '; '.join(lines)


def _remedy(keys, state, model):
    arch = recognize_arch(state, model.on_meta)
    if all(map(is_head, keys)):
        return ('set num_classes to that of the file, or drop its head: '
                'python -m mmcyclemlp convert_checkpoint --drop-head')
    if is_transposed(state, model):
        return TRANSPOSED
    if arch is not None and not same_arch(arch, model.arch):
        return (f'the file is of arch={arch!r}, the network of '
                f'arch={model.arch!r}: use the same arch for both')
    if any(key.startswith('patch_embed.') for key in keys):
        return 'set stem and in_channels to those of the file'
    if any(map(is_out_norm, keys)):
        if not model.fork_feat:
            return ('the file is of the backbone of a detector or '
                    'segmentor, which has no norm and head of a classifier')
        return ('set fork_feat, fork_last3 and out_indices to those that '
                'the file was trained with, as the output norms differ')
    if any(key.endswith('.mlp_c.bias') for key in keys):
        return 'set qkv_bias to that of the file'
    return ('check arch and in_channels, and that the file is of a CycleNet')


def load_pretrained(model: nn.Module, source: str | os.PathLike,
                    prefix: str | None = None,
                    trusted: bool = False) -> LoadReport:
    """Load a file into a network, strictly, and log the report.

    Args:
        model (CycleNet): The network.
        source (str | PathLike): Path or URL, see :func:`read_checkpoint`.
        prefix (str | None): See :func:`find_backbone`. Default: None.
        trusted (bool): See :func:`read_checkpoint`. Default: False.

    Returns:
        LoadReport: Which keys were loaded, dropped and kept.

    Raises:
        CheckpointError: The file cannot be read safely or does not fit.
    """
    checkpoint = read_checkpoint(source, trusted=trusted)
    name = os.fspath(source)
    try:
        found = find_backbone(checkpoint, prefix)
        name = f'{name} ({found.layout})'
        _, report = adapt_state_dict(found.tensors, model)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from None
    # Not strict, as keys may be dropped and output norms kept: the network
    # itself compares all keys.
    model.load_state_dict(found.tensors, strict=False)
    logger.info('CycleNet: %s, from %s', report, name)
    return report
