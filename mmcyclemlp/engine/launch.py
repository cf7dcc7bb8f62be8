"""From a config to a runner, as train and test commands need it."""

import os.path as osp
from collections import Counter
from contextlib import contextmanager
from pickle import UnpicklingError

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import CheckpointLoader, Runner

from ..backbones.checkpoint import (
    CheckpointError,
    NotCycleNetError,
    find_state_dict,
    read_checkpoint,
)
from .errors import UserError


def read_config(path, work_dir=None, launcher='none', options=None):
    """Read a config and settle where its run lives.

    Args:
        path (str): Config file.
        work_dir (str | None): Folder of the run; None for the config's own,
            or ``work_dirs/<name of the config>``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        options (dict | None): Values that win over the config's.

    Returns:
        Config: With ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: The file does not exist, or an import it asks for fails.
    """
    if not osp.isfile(path):
        raise UserError(f'there is no config file {path}')
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is the user's own Python
        raise UserError(f'{path} cannot be read: {type(error).__name__}: '
                        f'{error}') from error
    if options:
        cfg.merge_from_dict(options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(
            osp.basename(path))[0])
    cfg.launcher = launcher
    if launcher == 'pytorch' and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    return cfg


def _distribute_on_cpu(cfg):
    """Several processes without a GPU, which mmengine does not foresee."""
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))

    def replace(node):
        # SyncBN is for GPUs.
        if isinstance(node, dict):
            if node.get('type') == 'SyncBN':
                node['type'] = 'BN'
            for value in node.values():
                replace(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                replace(value)

    replace(cfg.model)


def use_backbone_file(cfg):
    """Turn a ``load_from`` that is a backbone alone into its ``init_cfg``.

    A whole model would take nothing from such a file.

    Raises:
        UserError: The model has no ``backbone``.
        CheckpointError: The file cannot be read safely.
    """
    if not cfg.get('load_from'):
        return
    try:
        _, layout = find_state_dict(_read(cfg.load_from))
    except NotCycleNetError:
        return  # another network's, for mm to load
    if 'prefix' in layout:
        return
    if 'backbone' not in cfg.model:
        raise UserError(
            f'load_from {cfg.load_from} is a backbone, and the model of the '
            "config has no 'backbone'")
    cfg.model.backbone.init_cfg = ConfigDict(
        type='Pretrained', checkpoint=cfg.load_from)
    cfg.load_from = None


def build_runner(cfg, testing=False):
    """Build the runner; checkpoints are read without unpickling code.

    Args:
        cfg (Config): The config.
        testing (bool): Whether to evaluate ``load_from``. For a classifier
            it needs a head then, and may be a released file.
            Default: False.

    Returns:
        Runner: The runner.
    """
    # mm logs the end of its name.
    def load_from_file(filename, map_location=None):
        checkpoint = _read(filename)
        if filename != cfg.get('load_from'):
            return checkpoint
        if cfg.get('resume'):
            _check_resumable(checkpoint, filename)
        elif testing and _is_classifier(cfg.model):
            return _as_classifier(checkpoint, filename)
        elif testing:
            _check_whole(checkpoint, filename)
        return checkpoint

    CheckpointLoader.register_scheme(
        ('', 'http://', 'https://'), load_from_file, force=True)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    runner = (RUNNERS.build(cfg) if 'runner_type' in cfg
              else Runner.from_cfg(cfg))
    runner.register_hook(_BatchesHook())
    return runner


@contextmanager
def naming(filename):
    """Say in errors about a checkpoint which file it is, if any was given."""
    try:
        yield
    except CheckpointError as error:
        if not filename or filename in str(error):
            raise
        raise CheckpointError(f'{filename}: {error}') from None


class _BatchesHook(Hook):
    """Refuse to train on no batch at all, which mm does without a word."""

    def before_train(self, runner):
        loader = runner.train_dataloader
        if len(loader) == 0:
            raise UserError(
                f'the {len(loader.dataset)} images of train_dataloader make '
                f'no batch of {loader.batch_size} in each process, and '
                'drop_last leaves out what is smaller: make batch_size '
                'smaller, or drop_last=False')


def leave_group():
    """End a run of several processes, if it was one.

    Together: a gloo thread that outlives the other ranks aborts its process.
    """
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _read(filename):
    """A checkpoint, with what mm keeps in it; tensors on the CPU."""
    return read_checkpoint(filename, _allowed())


def _check_resumable(checkpoint, filename):
    if not (isinstance(checkpoint, dict) and 'state_dict' in checkpoint
            and 'iter' in (checkpoint.get('meta') or {})):
        raise CheckpointError(
            f'{filename} is not from a run of mm, so there is nothing to '
            'resume: give weights as load_from')


def _is_classifier(model):
    """Whether the backbone is all of the model that has weights."""
    model = model.get('module', model)  # inside test-time augmentation
    return model.get('backbone', {}).get('fork_feat', True) is False


def _check_whole(checkpoint, filename):
    state = checkpoint.get('state_dict') if isinstance(
        checkpoint, dict) else None
    if isinstance(state, dict) and state and all(
            str(key).startswith('backbone.') for key in state):
        raise CheckpointError(
            f'{filename} has a backbone and no other part of the model, so '
            'there is nothing to evaluate: train first, with the file as '
            'load_from')


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


def _allowed():
    """What mm keeps beside the weights: logs in numpy arrays."""
    import _codecs

    import numpy as np

    core = np.core if np.__version__.startswith('1.') else np._core
    allowed = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        '_codecs.encode': _codecs.encode,
        # MultiStepLR keeps its milestones so.
        'collections.Counter': Counter,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        '__builtin__.getattr': _history_statistic,
        'builtins.getattr': _history_statistic,
    }
    for name in ('numpy.core', 'numpy._core'):
        allowed[f'{name}.multiarray._reconstruct'] = (
            core.multiarray._reconstruct)
        allowed[f'{name}.multiarray.scalar'] = core.multiarray.scalar
    return allowed


def _history_statistic(owner, name):
    """The one attribute mm's checkpoints ask for: HistoryBuffer's methods."""
    if owner is not HistoryBuffer or name not in (
            'min', 'max', 'current', 'mean'):
        raise UnpicklingError(f'refused attribute {name!r} of {owner!r}')
    return getattr(owner, name)
