"""Read checkpoints for mm's runner without running code from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch import nn

from ..backbones.weights import find_backbone
from ..checkpoint_files import read_checkpoint
from ..errors import CheckpointError, MismatchError, RefusedError
from .config_nodes import is_classifier
from .saved_objects import allowed

# mm's schemes for named files, and the function that lists their URLs.
_NAMED = {
    'torchvision://': get_torchvision_models,
    'modelzoo://': get_torchvision_models,
    'open-mmlab://': get_external_models,
    'openmmlab://': get_external_models,
    'mmcls://': get_mmcls_models,
}


def read(filename: str, trusted: bool = False) -> Any:
    """Read a checkpoint with the objects that mm saves beside tensors.

    Args:
        filename (str): Path, http(s) URL, or one of mm's names such as
            ``torchvision://resnet50``.
        trusted (bool): Whether code in the file may be run. Default: False.

    Returns:
        dict: The content, with tensors on the CPU. The text of the config
        in ``meta`` is left out, since mm would run it.

    Raises:
        CheckpointError: The file cannot be read safely.
    """
    for scheme, models in _NAMED.items():
        if filename.startswith(scheme):
            name = filename[len(scheme):]
            try:
                filename = models()[name]
            except (ImportError, KeyError) as error:
                raise CheckpointError(
                    f'mm knows no file {filename} ({error!r})') from error
    if '://' in filename and not filename.startswith('http'):
        raise CheckpointError(
            f'{filename} cannot be read safely, as mm unpickles files of '
            'this scheme: download the file, and give its path')
    checkpoint = read_checkpoint(filename, allowed(), trusted)
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


def check_readable(path: str | os.PathLike) -> None:
    """Check that a checkpoint that was just written can be read.

    Args:
        path (str | PathLike): The file.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        read(os.fspath(path))
    except RefusedError as error:  # a hook of the user saved an object
        print_log(f'{error} To resume from it, give --trust-checkpoint.',
                  logger='current')


def replace_loader(cfg: Config, testing: bool, trusted: bool,
                   checkpoint: dict | None = None) -> None:
    """Make mm read all checkpoints with :func:`read`.

    Args:
        cfg (Config): Config of the run.
        testing (bool): Whether ``load_from`` is evaluated, and is read with
            :func:`read_whole_model`.
        trusted (bool): Whether code in checkpoints may be run.
        checkpoint (dict | None): Content of ``load_from``, if it was read
            before; mm gets it the first time. Default: None.
    """
    contents = {} if checkpoint is None else {cfg.load_from: checkpoint}

    # mm logs the part of this name after 'load_from'.
    def load_from_file(filename, map_location=None):
        if filename in contents:
            return contents.pop(filename)  # mm changes it, and frees it
        if testing and filename == cfg.get('load_from'):
            return read_whole_model(filename, cfg.model, trusted)
        return read(filename, trusted)

    CheckpointLoader.register_scheme(
        tuple(CheckpointLoader._schemes), load_from_file, force=True)


def read_whole_model(filename: str, model: dict, trusted: bool = False,
                     ) -> dict:
    """Read a checkpoint that a model is evaluated with.

    Args:
        filename (str): See :func:`read`.
        model (dict): Config of the model.
        trusted (bool): See :func:`read`. Default: False.

    Returns:
        dict: The checkpoint, with weights under ``state_dict``. For a
        classifier the file may also be a backbone with a head, as the
        released files are.

    Raises:
        CheckpointError: The file cannot be read safely, is a backbone
            alone, or has no weights.
    """
    checkpoint = read(filename, trusted)
    if is_classifier(model):
        return _as_classifier(checkpoint, filename)
    return _as_whole_model(checkpoint, filename)


def check_fit(model: nn.Module, state: dict, filename: str) -> None:
    """Check that a state dict has every tensor of a model.

    mm only warns, and leaves what is missing at random.

    Args:
        model (nn.Module): The whole model.
        state (dict): Tensors by key.
        filename (str): Name of the file for messages.

    Raises:
        CheckpointError: Keys are missing or of another shape.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    reshaped = [f'{key} {tuple(state[key].shape)} for {tuple(value.shape)}'
                for key, value in own.items()
                if key in state and state[key].shape != value.shape]
    for what, keys in (('lacks', missing),
                       ('has another shape:', reshaped)):
        if keys:
            more = f' and {len(keys) - 3} more' if len(keys) > 3 else ''
            raise CheckpointError(
                f'{filename} {what} {", ".join(keys[:3])}{more}: give the '
                'config that it was trained with')


@contextmanager
def name_mismatch(filename: str | None) -> Iterator[None]:
    """Add the name of the file to errors about weights that do not fit.

    Args:
        filename (str | None): The file; None if there is none.

    Raises:
        CheckpointError: The weights do not fit.
    """
    try:
        yield
    except MismatchError as error:
        if not filename:
            raise
        raise CheckpointError(f'{filename}: {error}') from None


def _as_whole_model(checkpoint, filename):
    """Return a checkpoint of a detector or segmentor in mm's layout."""
    try:
        backbone = find_backbone(checkpoint)
    except CheckpointError:
        backbone = None  # another network, or no tensors
    state = checkpoint
    if isinstance(checkpoint, dict):
        state = checkpoint.get('state_dict', checkpoint)
    has_tensors = isinstance(state, dict) and any(
        isinstance(value, torch.Tensor) for value in state.values())
    if backbone and not backbone.prefix or has_tensors and all(
            str(key).startswith('backbone.') for key in state):
        layout = f' ({backbone.layout})' if backbone else ''
        raise CheckpointError(
            f'{filename} is a backbone alone{layout}, without the other '
            'parts of the model: train first, with the file as load_from, '
            'and give the checkpoint of that training')
    if not has_tensors:
        raise CheckpointError(f'{filename} holds no weights of a model')
    return (checkpoint if 'state_dict' in checkpoint
            else {'state_dict': state})


def _as_classifier(checkpoint, filename):
    """Return a checkpoint of a classifier in mm's layout."""
    try:
        backbone = find_backbone(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f'{filename}: {error}') from None
    if 'head.weight' not in backbone.tensors:
        raise CheckpointError(
            f'{filename} has no head (head.weight), so there is nothing to '
            'evaluate: train one first, with the file as load_from')
    if backbone.prefix:
        return checkpoint
    return {'state_dict': {f'backbone.{key}': value
                           for key, value in backbone.tensors.items()}}
