"""From a config to a runner, as train and test commands need it."""

import re
from contextlib import contextmanager

from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from ..errors import (
    BackendUnavailable,
    CheckpointError,
    UserError,
    describe,
)
from .channels import check_channels
from .config_nodes import loop_of, name_of, networks
from .hooks.checkpoint import WholeCheckpointHook
from .hooks.finite_loss import FiniteLossHook
from .hooks.first_steps import FirstStepsHook, is_full_disk, log_traceback
from .hooks.resume import ResumeHook
from .hooks.stop import StopHook
from .loops import name_images
from .mm_checkpoints import (
    check_fit,
    read_safely,
)


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
    for network in networks(cfg.model):
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
