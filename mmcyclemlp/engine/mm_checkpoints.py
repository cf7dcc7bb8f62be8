"""Checkpoints for mm's runner, read without running code from them."""

import os
import os.path as osp
from contextlib import contextmanager
from glob import escape, glob

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..backbones.weights import find_state_dict, read_checkpoint
from ..errors import CheckpointError, UserError
from .saved_objects import allowed

# What comes before the names that mm has for files, and where they are.
_NAMED = {
    'torchvision://': get_torchvision_models,
    'modelzoo://': get_torchvision_models,
    'open-mmlab://': get_external_models,
    'openmmlab://': get_external_models,
    'mmcls://': get_mmcls_models,
}


def read(filename, trusted=False):
    """A checkpoint, with what mm keeps in it; tensors on the CPU.

    Args:
        filename (str): Path, http(s) URL, or one of mm's names such as
            ``torchvision://resnet50``.
        trusted (bool): Whether its code may be run. Default: False.

    Returns:
        dict: What it holds, but for the text of a config that mm would run.

    Raises:
        CheckpointError: It cannot be read safely.
    """
    for start, models in _NAMED.items():
        if filename.startswith(start):
            name = filename[len(start):]
            try:
                filename = models()[name]
            except (ImportError, KeyError) as error:
                raise CheckpointError(
                    f'mm knows no file {filename} ({error!r})') from error
    if '://' in filename and not filename.startswith('http'):
        raise CheckpointError(
            f'{filename} would be read by unpickling whatever it asks for: '
            'download it, and give its path')
    checkpoint = read_checkpoint(filename, allowed(), trusted)
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)  # Runner.resume would run it
    return checkpoint


def check_readable(path):
    """Read a checkpoint that was just written, as resuming will.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        read(os.fspath(path))
    except CheckpointError as error:
        if 'is refused' not in str(error):
            raise
        print_log(f'{error} To resume from it takes --trust-checkpoint.',
                  logger='current')


def find_resumable(folder, trusted=False):
    """The newest whole checkpoint of a run, naming what is passed over.

    Args:
        folder (str): Work dir of the run.
        trusted (bool): Whether code in the files may be run.
            Default: False.

    Returns:
        str | None: Its path; None if there are no checkpoints.

    Raises:
        UserError: There are checkpoints, and none is whole.
    """
    paths = [path for path in glob(osp.join(escape(folder), '*.pth'))
             if not osp.basename(path).startswith('best_')]
    last = osp.join(folder, 'last_checkpoint')
    if osp.isfile(last):  # it may lie in another folder
        with open(last, encoding='utf-8') as file:
            paths.append(osp.join(folder, file.read().strip()))
    paths = {osp.realpath(path) for path in paths if osp.isfile(path)}
    passed_over = []
    for path in sorted(paths, key=osp.getmtime, reverse=True):
        try:
            check_resumable(read(path, trusted), path)
            return path
        except CheckpointError as error:
            passed_over.append(str(error))
            print_log(f'passed over: {error}', logger='current')
    if passed_over:
        raise UserError(
            f'no checkpoint in {folder} can be resumed: {passed_over[0]}. '
            'To start anew, give another --work-dir')
    return None


def check_resumable(checkpoint, filename):
    """See that a checkpoint is of a run.

    Raises:
        CheckpointError: It is not.
    """
    if not (isinstance(checkpoint, dict) and 'state_dict' in checkpoint
            and 'iter' in (checkpoint.get('meta') or {})):
        raise CheckpointError(
            f'{filename} is not from a run of mm, so there is nothing to '
            'resume: give weights as load_from')


def read_safely(cfg, testing, trusted):
    """Have mm read all checkpoints by :func:`read`, checked for their use.

    Args:
        cfg (Config): The config of the run.
        testing (bool): Whether to evaluate ``load_from``.
        trusted (bool): Whether code in checkpoints may be run.
    """
    # mm logs the end of its name.
    def load_from_file(filename, map_location=None):
        if filename == cfg.get('load_from') and testing:
            return read_whole(filename, cfg.model, trusted)
        return read(filename, trusted)

    # Whatever mm has a loader for.
    schemes = tuple(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme(schemes, load_from_file, force=True)


def read_whole(filename, model, trusted=False):
    """As :func:`read`, a checkpoint that a model is to be evaluated with.

    Args:
        filename (str): See there.
        model (dict): Config of the model.
        trusted (bool): See there. Default: False.

    Returns:
        dict: The checkpoint, weights under ``state_dict``; of a classifier
        also from a released file.

    Raises:
        CheckpointError: It cannot be read safely, is a backbone alone, or
            holds no weights.
    """
    checkpoint = read(filename, trusted)
    if _is_classifier(model):
        return _as_classifier(checkpoint, filename)
    return _as_whole(checkpoint, filename)


def check_fit(model, state, filename):
    """See that no part of the model would be left at random.

    Args:
        model (nn.Module): The whole model.
        state (dict): Tensors by key.
        filename (str): What errors name.

    Raises:
        CheckpointError: Keys are missing or of another shape.
    """
    own = model.state_dict()
    absent = [key for key in own if key not in state]
    other = [f'{key} {tuple(state[key].shape)} for {tuple(value.shape)}'
             for key, value in own.items()
             if key in state and state[key].shape != value.shape]
    for what, keys in (('lacks', absent), ('has, of another shape,', other)):
        if keys:
            more = f' and {len(keys) - 3} more' if len(keys) > 3 else ''
            raise CheckpointError(
                f'{filename} {what} {", ".join(keys[:3])}{more}: give the '
                'config that it was trained with')


@contextmanager
def naming(filename):
    """Say in errors about a checkpoint which file it is, if any was given."""
    try:
        yield
    except CheckpointError as error:
        if not filename or filename in str(error):
            raise
        raise CheckpointError(f'{filename}: {error}') from None


def _is_classifier(model):
    """Whether the backbone is all of the model that has weights."""
    model = model.get('module', model)  # inside test-time augmentation
    return model.get('backbone', {}).get('fork_feat', True) is False


def _as_whole(checkpoint, filename):
    """See that there is more than a backbone; give it as mm saves it."""
    try:
        _, layout = find_state_dict(checkpoint)
    except CheckpointError:
        layout = 'prefix'  # another network's, or none
    state = checkpoint
    if isinstance(checkpoint, dict):
        state = checkpoint.get('state_dict', checkpoint)
    held = isinstance(state, dict) and any(
        isinstance(value, torch.Tensor) for value in state.values())
    if 'prefix' not in layout or held and all(
            str(key).startswith('backbone.') for key in state):
        raise CheckpointError(
            f'{filename} is a backbone alone ({layout}), without the other '
            'parts of the model: train first, with the file as load_from, '
            'and give the checkpoint of that')
    if not held:
        raise CheckpointError(f'{filename} holds no weights of a model')
    return (checkpoint if 'state_dict' in checkpoint
            else {'state_dict': state})


def _as_classifier(checkpoint, filename):
    """Put the backbone in its place where a file has it alone."""
    try:
        state, layout = find_state_dict(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f'{filename}: {error}') from None
    if 'head.weight' not in state:
        raise CheckpointError(
            f'{filename} has no head (head.weight), so there is nothing to '
            'evaluate: train one first, with the file as load_from')
    if 'prefix' in layout:
        return checkpoint
    return {'state_dict': {f'backbone.{key}': value
                           for key, value in state.items()}}
