"""From a config to a runner, as train and test commands need it."""

import os.path as osp
import pickle
import re
import time
from contextlib import contextmanager

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from ..backbones.checkpoint import (
    CheckpointError,
    NotCycleNetError,
    find_state_dict,
)
from ..carried import find_config
from ..ops import BackendUnavailable
from .channels import check_channels
from .config_shape import all_nodes, loop_of, name_of
from .dry_step import FirstStepsHook, is_full_disk, log_traceback
from .errors import UserError, describe
from .hooks.checkpoint import WholeCheckpointHook
from .hooks.finite_loss import FiniteLossHook
from .hooks.stop import StopHook
from .loading import (
    check_fit,
    check_resumable,
    find_resumable,
    read,
    read_safely,
)
from .loops import name_images
from .resume import ResumeHook


def read_config(path, work_dir=None, launcher='none', options=None):
    """Read a config and settle where its run lives.

    Args:
        path (str): Config file, or the name of one that comes with the
            package.
        work_dir (str | None): Folder of the run; None for the config's own,
            or ``work_dirs/<name of the config>``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        options (dict | None): Values that win over the config's.

    Returns:
        Config: With ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: The file does not exist, or an import it asks for fails.
    """
    _import_yapf()
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is the user's own Python
        raise UserError(f'{path} cannot be read: {describe(error)}') from error
    if options:
        try:
            cfg.merge_from_dict(options)
        except Exception as error:  # of mm, in what does not fit
            raise UserError(
                f'--cfg-options: {" ".join(options)} cannot be put into '
                f'{path}: {type(error).__name__}: {error}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', path.stem)
    cfg.launcher = launcher
    if launcher == 'pytorch' and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    return cfg


def _import_yapf(patience=10):
    """Import what mm prints configs with, while others do so as well.

    The first import in an environment writes a file into the user's cache,
    and a process that is started beside it may read the half of it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            import yapf  # noqa: F401
            return
        except (EOFError, pickle.UnpicklingError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f'yapf cannot read its own cache ({error}): remove the '
                    'folder YAPF from your cache folder, ~/.cache on Linux'
                ) from error
        time.sleep(.1)


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

    replace(cfg.get('model'))


def use_backbone_file(cfg, trusted=False):
    """Turn a ``load_from`` that is a backbone alone into its ``init_cfg``.

    A whole model would take nothing from such a file.

    Args:
        cfg (Config): The config; changed in place.
        trusted (bool): Whether code in the file may be run. Default: False.

    Raises:
        UserError: The model has no ``backbone``.
        CheckpointError: The file cannot be read safely.
    """
    if not cfg.get('load_from'):
        return
    try:
        _, layout = find_state_dict(read(cfg.load_from, trusted))
    except NotCycleNetError:
        return  # another network's, for mm to load
    if 'prefix' in layout:
        return
    networks = ([cfg.model.backbone] if 'backbone' in cfg.model
                else list(_networks(cfg.model)))
    if not networks:
        raise UserError(
            f'load_from {cfg.load_from} is a backbone, and the model of the '
            "config has no 'backbone'")
    for network in networks:
        network.init_cfg = ConfigDict(
            type='Pretrained', checkpoint=cfg.load_from)
    cfg.load_from = None


def _networks(model):
    """Configs of the networks of the package, wherever they are in a model."""
    return (node for node in all_nodes(model)
            if name_of(node['type']).startswith(('CycleNet', 'CycleMLP_')))


def take_up(cfg, checkpoint=None, trusted=False):
    """Have a config continue a run, with the seed it began with.

    Args:
        cfg (Config): The config; changed in place.
        checkpoint (str | None): Path or URL; None for the newest whole one
            in the work dir. If there is none there, the run begins.
        trusted (bool): Whether code in the file may be run. Default: False.

    Raises:
        CheckpointError: The file cannot be read, or is not of a run.
        UserError: There are checkpoints, and none is whole.
    """
    path = checkpoint or find_resumable(cfg.work_dir, trusted)
    cfg.resume = path is not None
    if path is None:
        return
    cfg.load_from = path
    content = read(path, trusted)
    check_resumable(content, path)
    # mm takes it up too late for the order of the images.
    seed = content['meta'].get('seed')
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)


def build_runner(cfg, testing=False, trusted=False,
                 resume_with='checkpoint'):
    """Build the runner; training can be left at any step and taken up.

    mm's own loops and checkpoint hook are replaced, others are left alone.
    Checkpoints are read without running code from them.

    Args:
        cfg (Config): The config.
        testing (bool): Whether to evaluate ``load_from``. For a classifier
            it needs a head then, and may be a released file.
            Default: False.
        trusted (bool): Whether code in checkpoints may be run.
            Default: False.
        resume_with (str): Where a resumed run takes learning rate and
            schedule from, 'checkpoint' or 'config'. Default: 'checkpoint'.

    Returns:
        Runner: The runner.

    Raises:
        UserError: The config asks for what cannot be built.
        CheckpointError: A file of weights cannot be read safely.
    """
    read_safely(cfg, testing, trusted)
    for network in _networks(cfg.model):
        if trusted and network.get('init_cfg'):
            network.init_cfg.trusted = True
    if not testing:
        _make_resumable(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with _building():
        runner = (RUNNERS.build(cfg) if 'runner_type' in cfg
                  else Runner.from_cfg(cfg))
    check_channels(_bare(runner.model))
    runner.register_hook(_LoadersHook())
    # Of other runners each process may hold a part of the weights.
    if testing or (cfg.get('resume') and isinstance(runner, Runner)):
        runner.register_hook(_WholeHook())
    if not testing:
        if not any(isinstance(hook, FiniteLossHook) for hook in runner.hooks):
            runner.register_hook(FiniteLossHook())
        runner.register_hook(ResumeHook(resume_with))
        if any(isinstance(hook, WholeCheckpointHook)
               for hook in runner.hooks):
            runner.register_hook(StopHook())
    return runner


def start(runner, action, check='error'):
    """Train or test.

    Args:
        runner (Runner): As it was built here.
        action (str): 'train' or 'test'.
        check (str): See :class:`FirstStepsHook`. Default: 'error'.

    Raises:
        UserError: Data, optimizer or loop cannot be built from the config,
            or the first step fails.
        CheckpointError: A checkpoint cannot be read, or does not fit.
        Stopped: The run was asked to end.
    """
    first = FirstStepsHook(check)
    runner.register_hook(first)
    with _building(runner, first):
        getattr(runner, action)()


@contextmanager
def _building(runner=None, first=None):
    """Say in one line what the config dooms, until the first step is done."""
    try:
        yield
    except (UserError, CheckpointError, BackendUnavailable):
        raise
    except Exception as error:  # of the config: the user's own Python
        if first is None or not first.begun:
            raise UserError('the config cannot be run: '
                            f'{describe(error)}') from error
        if first.stage is None or is_full_disk(error):
            raise
        log_traceback(runner.logger, error)
        raise first.explain(runner, error) from error


def _make_resumable(cfg):
    """Replace what mm has by what can be taken up at any step."""
    loop = cfg.train_cfg
    kind = loop_of(loop)
    if kind in _LOOPS:
        loop.pop('by_epoch', None)
        loop['type'] = f'mmcyclemlp.engine.loops.{_LOOPS[kind]}'
    cfg.default_hooks = cfg.get('default_hooks') or ConfigDict()
    hook = cfg.default_hooks.setdefault(
        'checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if hook and name_of(hook.get('type')) == 'CheckpointHook':
        hook['type'] = 'mmcyclemlp.engine.hooks.checkpoint.WholeCheckpointHook'


_LOOPS = {
    'EpochBasedTrainLoop': 'ResumableEpochLoop',
    'IterBasedTrainLoop': 'ResumableIterLoop',
}


class _LoadersHook(Hook):
    """Say what is wrong with the data where mm says little or nothing."""

    def before_train(self, runner):
        """Refuse to train on no batch at all."""
        loader = runner.train_dataloader
        if len(loader) == 0:
            raise UserError(
                f'the {len(loader.dataset)} images of train_dataloader make '
                f'no batch of {loader.batch_sampler.batch_size} in each '
                'process, and drop_last leaves out what is smaller: make '
                'batch_size smaller, or drop_last=False')

    def before_val(self, runner):
        """Have an image that cannot be read name itself."""
        name_images(runner.val_dataloader)

    def before_test(self, runner):
        """Have an image that cannot be read name itself."""
        name_images(runner.test_dataloader)


class _WholeHook(Hook):
    """Refuse to evaluate or resume another model; mm only warns."""

    def after_load_checkpoint(self, runner, checkpoint):
        """See that the checkpoint has every tensor of the model."""
        state = {re.sub(r'^module\.', '', key): value for key, value in
                 checkpoint['state_dict'].items()}
        check_fit(_bare(runner.model), state, runner._load_from)


def _bare(model):
    """The model in what distributes or repeats it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def leave_group():
    """End a run of several processes, if it was one.

    Together: a gloo thread that outlives the other ranks aborts its process.
    """
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
