"""Weights from any file into the layout that another program reads."""

import os
from typing import NamedTuple

import torch

from ..checkpoint_files import (
    check_target,
    read_file,
    sha256,
    write_checkpoint,
)
from ..errors import CheckpointError, one_line
from ..ops import CycleFC, cycle_offsets
from .account import account_for
from .arch import Recognized, recognize
from .cyclenet import CycleNet
from .weights import find_backbone

LAYOUTS = ('official', 'mm')
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ConversionReport(NamedTuple):
    """What was read, what became of it, what was written.

    Attributes:
        source (str): What was read: file, kind and layout.
        what (str): Backbone or classifier, and what it lacks.
        network (Recognized): How it is built.
        tensors (int): Number of weights.
        parameters (int): Number of numbers in them.
        dtypes (str): Their types.
        transposed (int): How many were turned, as Paddle keeps them.
        verified (int): How many offset buffers were read and held to the
            formula.
        left_out (list[str]): What else the file held.
        target (str): What was written: file and layout.
        source_sha256 (str): Of the file read.
        target_sha256 (str): Of the file written.
    """

    source: str
    what: str
    network: Recognized
    tensors: int
    parameters: int
    dtypes: str
    transposed: int
    verified: int
    left_out: list
    target: str
    source_sha256: str
    target_sha256: str

    def __str__(self):
        return '\n'.join(map(one_line, [
            f'read        {self.source}',
            f'sha256      {self.source_sha256}',
            f'network     {self.what}: {self.network}',
            f'weights     {self.tensors} tensors, {self.parameters} '
            f'parameters, {self.dtypes}; {self.transposed} transposed',
            f'offsets     {self.verified} verified',
            f'left out    {", ".join(self.left_out) or "nothing"}',
            f'wrote       {self.target}',
            f'sha256      {self.target_sha256}',
        ]))


def convert_checkpoint(source, target, layout='official', arch=None,
                       prefix=None, entry=None, drop_head=False,
                       force=False, trusted=False):
    """Convert a file of weights, with every key accounted for.

    The official layout is the state dict of the official code under the
    key ``model``, ``offset`` buffers included; the mm layout is the state
    dict of an mm model that has the network as ``backbone``, under the key
    ``state_dict``. A ``.safetensors`` holds the state dict itself.

    Args:
        source (str | PathLike): What to read, see :func:`read_checkpoint`.
        target (str | PathLike): What to write: a ``.pth`` or a
            ``.safetensors``.
        layout (str): 'official' or 'mm'. Default: 'official'.
        arch (str | dict | None): What the arch must be; needed for sizes of
            one's own. None takes a named one off the tensors. Default: None.
        prefix (str | None): Where in a whole model the backbone lies.
            None finds it. Default: None.
        entry (str | None): Under which key of the file the weights lie,
            e.g. 'ema_state_dict'. None finds them. Default: None.
        drop_head (bool): Whether to leave out the head of a classifier.
            Default: False.
        force (bool): Whether another file ``target`` may be replaced.
            Default: False.
        trusted (bool): See :func:`read_checkpoint`. Default: False.

    Returns:
        ConversionReport: What was read, recognized and written.

    Raises:
        CheckpointError: The file cannot be read safely, is not of one
            CycleNet to the last key, or cannot be written; nothing is.
    """
    if layout not in LAYOUTS:
        raise CheckpointError(f'layout is one of {LAYOUTS}, not {layout!r}')
    source = os.fspath(source)
    check_target(target, source, force)
    file, name = read_file(source, trusted=trusted), source
    try:
        found = find_backbone(file.content, prefix, entry)
        name = f'{source} ({found.layout})'
        tensors, left_out = dict(found.tensors), list(found.beside)
        if drop_head:
            left_out = _drop_head(tensors) + left_out
        _check_numbers(tensors)
        network = recognize(tensors, CycleNet.on_meta, arch)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from error
    account = account_for(tensors, network.model)
    if layout == 'official':
        state = _with_offsets(tensors, network.model)
        content = {'model': state}
    else:
        state = {f'backbone.{key}': _plain(tensors[key])
                 for key in network.model.state_dict() if key in tensors}
        backbone = dict(type='CycleNet', **network.options)
        content = {'meta': {'backbone': backbone}, 'state_dict': state}
    is_flat = os.fspath(target).endswith('.safetensors')
    write_checkpoint(state if is_flat else content, target)
    weights = account.adapted.values()
    return ConversionReport(
        source=f'{source} ({file.kind} file, {found.layout})',
        what=_what(network, account),
        network=network,
        tensors=len(weights),
        parameters=sum(value.numel() for value in weights),
        dtypes=' and '.join(sorted({_name(value) for value in weights})),
        transposed=sum(value.dim() == 2 for value in weights)
        if file.kind == 'Paddle' else 0,
        verified=sum(key.endswith('.offset') for key in account.dropped),
        left_out=left_out,
        target=f'{os.fspath(target)} ({layout} layout)',
        source_sha256=sha256(file.path),
        target_sha256=sha256(target))


def _what(network, account):
    if network.model.fork_feat:
        return 'backbone' + ' without output norms' * bool(account.kept)
    if account.kept:
        return 'classifier without head'
    return f'classifier of {network.options["num_classes"]} classes'


def _drop_head(tensors):
    """Take out the head; names of what was taken."""
    names = [key for key in tensors if key.startswith('head.')]
    if not names:
        raise CheckpointError('--drop-head: there is no head in it')
    for key in names:
        del tensors[key]
    return names


def _check_numbers(tensors):
    for key, value in tensors.items():
        if not value.numel():
            raise CheckpointError(f'{key} {tuple(value.shape)} is empty')
        if key.endswith('.offset'):
            continue
        if value.dtype not in _FLOATS:
            raise CheckpointError(
                f'{key} is of type {_name(value)}: weights are of '
                'floating-point types')
        if not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f'{key} holds {count} values that are NaN or infinite: '
                'training has diverged, or the file is damaged')


def _with_offsets(tensors, model):
    """A state dict of the official code, in its order."""
    layers = {f'{name}.{list(module.state_dict())[-1]}': (name, module)
              for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    state = {}
    for key in model.state_dict():
        if key in tensors:
            state[key] = _plain(tensors[key])
        if key in layers:
            name, layer = layers[key]
            dtype = tensors[f'{name}.weight'].dtype
            held = tensors.get(f'{name}.offset')
            if held is not None and held.is_floating_point():
                dtype = held.dtype
            offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
            state[f'{name}.offset'] = offsets.to(dtype).reshape(1, -1, 1, 1)
    return state


def _plain(tensor):
    """A tensor with memory of its own, and no more than it needs."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _name(tensor):
    return str(tensor.dtype).replace('torch.', '')
