"""Convert weights from any file to the layout that another program reads."""

from __future__ import annotations

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
from .account import account_for, is_head
from .arch import Recognized, recognize
from .cyclenet import CycleNet
from .weights import find_backbone

LAYOUTS = ('official', 'mm')
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ConversionReport(NamedTuple):
    """Result of a conversion.

    Attributes:
        source (str): The file that was read, its kind and layout.
        what (str): Backbone or classifier, and what it lacks.
        network (Recognized): The network.
        tensors (int): Number of weights.
        parameters (int): Number of parameters, the elements of all weights.
        dtypes (str): Types of the weights.
        transposed (int): Number of weights that were transposed.
        verified (int): Number of offset buffers that were read and are
            those of the formula.
        left_out (list[str]): Other content of the file.
        target (str): The file that was written, and its layout.
        source_sha256 (str): SHA-256 of the file that was read.
        target_sha256 (str): SHA-256 of the file that was written.
    """

    source: str
    what: str
    network: Recognized
    tensors: int
    parameters: int
    dtypes: str
    transposed: int
    verified: int
    left_out: list[str]
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


def convert_checkpoint(source: str | os.PathLike, target: str | os.PathLike,
                       layout: str = 'official',
                       arch: str | dict | None = None,
                       prefix: str | None = None, entry: str | None = None,
                       drop_head: bool = False, force: bool = False,
                       trusted: bool = False) -> ConversionReport:
    """Convert a file of weights, and account for every key.

    The official layout is the state dict of the official code under the
    key ``model``, with its ``offset`` buffers. The mm layout is the state
    dict of an mm model with the network as ``backbone``, under the key
    ``state_dict``. A ``.safetensors`` holds the state dict itself.

    Args:
        source (str | PathLike): File to read, see :func:`read_checkpoint`.
        target (str | PathLike): File to write, a ``.pth`` or a
            ``.safetensors``.
        layout (str): 'official' or 'mm'. Default: 'official'.
        arch (str | dict | None): Required arch, which must be given for
            sizes without a name. None finds it. Default: None.
        prefix (str | None): Prefix of the keys of the backbone in a whole
            model. None finds it. Default: None.
        entry (str | None): Key of the file that holds the weights, such as
            'ema_state_dict'. None finds it. Default: None.
        drop_head (bool): Whether to drop the head of a classifier.
            Default: False.
        force (bool): Whether to replace an existing file ``target``.
            Default: False.
        trusted (bool): See :func:`read_checkpoint`. Default: False.

    Returns:
        ConversionReport: What was read, recognized and written.

    Raises:
        CheckpointError: The file cannot be read safely, has a key that does
            not belong to one CycleNet, or cannot be written. Then nothing
            is written.
    """
    if layout not in LAYOUTS:
        raise CheckpointError(f'layout is one of {LAYOUTS}, not {layout!r}')
    source, target = os.fspath(source), os.fspath(target)
    check_target(target, source, force)
    file = read_file(source, trusted=trusted)
    found, network = _find(file, source, arch, prefix, entry, drop_head)
    write_checkpoint(
        _content(found.tensors, network, layout, target), target)
    return _report(file, source, found, network, target, layout)


def _find(file, name, arch, prefix, entry, drop_head):
    """Return the backbone in a file, and the network that it fits."""
    try:
        found = find_backbone(file.content, prefix, entry)
        name = f'{name} ({found.layout})'
        if drop_head:
            found = _without_head(found)
        _check_numbers(found.tensors)
        return found, recognize(found.tensors, CycleNet.on_meta, arch)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from error


def _report(file, source, found, network, target, layout):
    account = account_for(found.tensors, network.model)
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
        left_out=found.beside,
        target=f'{target} ({layout} layout)',
        source_sha256=sha256(file.path),
        target_sha256=sha256(target))


def _content(tensors, network, layout, target):
    """Return the content of the file to write."""
    if layout == 'official':
        state = _with_offsets(tensors, network.model)
        content = {'model': state}
    else:
        state = {f'backbone.{key}': _contiguous(tensors[key])
                 for key in network.model.state_dict() if key in tensors}
        backbone = dict(type='CycleNet', **network.options)
        content = {'meta': {'backbone': backbone}, 'state_dict': state}
    return state if target.endswith('.safetensors') else content


def _what(network, account):
    if network.model.fork_feat:
        return 'backbone' + ' without output norms' * bool(account.kept)
    if account.kept:
        return 'classifier without head'
    return f'classifier of {network.options["num_classes"]} classes'


def _without_head(found):
    """Move the head of a classifier to what is left out."""
    heads = list(filter(is_head, found.tensors))
    if not heads:
        raise CheckpointError('--drop-head: the file has no head')
    return found._replace(
        tensors={key: value for key, value in found.tensors.items()
                 if not is_head(key)},
        beside=heads + found.beside)


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
    """Return a state dict of the official code, in its order."""
    layers = {f'{name}.{list(module.state_dict())[-1]}': (name, module)
              for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    state = {}
    for key in model.state_dict():
        if key in tensors:
            state[key] = _contiguous(tensors[key])
        if key in layers:
            name, layer = layers[key]
            dtype = tensors[f'{name}.weight'].dtype
            found = tensors.get(f'{name}.offset')
            if found is not None and found.is_floating_point():
                dtype = found.dtype
            offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
            state[f'{name}.offset'] = offsets.to(dtype).reshape(1, -1, 1, 1)
    return state


def _contiguous(tensor):
    """Copy a tensor, so that its storage has only its elements."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _name(tensor):
    return str(tensor.dtype).replace('torch.', '')
