"""Build and start a runner for the commands train and test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from ..errors import UserError, describe
from .channels import check_channels
from .config_nodes import loop_of, name_of, networks
from .hooks.checkpoint import WholeCheckpointHook
from .hooks.finite_loss import FiniteLossHook
from .hooks.first_steps import FirstStepsHook, is_full_disk, log_traceback
from .hooks.resume import ResumeHook
from .hooks.stop import StopHook
from .loops import name_images
from .mm_checkpoints import check_fit, replace_loader

_LOOPS = {
    'EpochBasedTrainLoop': 'ResumableEpochLoop',
    'IterBasedTrainLoop': 'ResumableIterLoop',
}


def build_runner(cfg: Config, testing: bool = False, trusted: bool = False,
                 resume_with: str = 'checkpoint',
                 checkpoint: dict | None = None) -> Runner:
    """Build a runner whose training can be resumed from any step.

    mm's own loops and checkpoint hook are replaced. Loops and hooks of the
    user stay. Checkpoints are read without running code from them.

    Args:
        cfg (Config): The config; changed in place.
        testing (bool): Whether to evaluate ``load_from``. For a classifier
            it must have a head, and may be a released file.
            Default: False.
        trusted (bool): Whether code in checkpoints may be run.
            Default: False.
        resume_with (str): Source of the learning rate and the schedule of a
            resumed run, 'checkpoint' or 'config'. Default: 'checkpoint'.
        checkpoint (dict | None): Content of ``load_from`` that was read
            before. Default: None.

    Returns:
        Runner: The runner.

    Raises:
        UserError: The runner cannot be built from the config.
        CheckpointError: A file of weights cannot be read safely.
    """
    replace_loader(cfg, testing, trusted, checkpoint)
    for network in networks(cfg.model):
        if trusted and network.get('init_cfg'):
            network.init_cfg.trusted = True
    if not testing:
        _make_resumable(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with _explain_errors():
        runner = (RUNNERS.build(cfg) if 'runner_type' in cfg
                  else Runner.from_cfg(cfg))
    check_channels(_unwrap(runner.model))
    runner.register_hook(_DataLoaderHook())
    # With another runner each process may have only a part of the weights.
    if testing or (cfg.get('resume') and isinstance(runner, Runner)):
        runner.register_hook(_CheckFitHook())
    if not testing:
        if not any(isinstance(hook, FiniteLossHook) for hook in runner.hooks):
            runner.register_hook(FiniteLossHook())
        runner.register_hook(ResumeHook(resume_with))
        if any(isinstance(hook, WholeCheckpointHook)
               for hook in runner.hooks):
            runner.register_hook(StopHook())
    return runner


def start(runner: Runner, action: str, check: str = 'error') -> None:
    """Train or test.

    Args:
        runner (Runner): Runner from :func:`build_runner`.
        action (str): 'train' or 'test'.
        check (str): See :class:`FirstStepsHook`. Default: 'error'.

    Raises:
        UserError: Data, optimizer or loop cannot be built from the config,
            or the first step fails.
        CheckpointError: A checkpoint cannot be read, or does not fit.
        Stopped: A signal stopped the run, and it is saved.
    """
    first_steps = FirstStepsHook(check)
    runner.register_hook(first_steps)
    with _explain_errors(runner, first_steps):
        getattr(runner, action)()


@contextmanager
def _explain_errors(runner: Runner | None = None,
                    first_steps: FirstStepsHook | None = None,
                    ) -> Iterator[None]:
    """Turn errors that the config causes into one line.

    After the first step an error has another cause, and is not changed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a config is Python code of the user
        if first_steps is None or not first_steps.begun:
            raise UserError('the config cannot be run: '
                            f'{describe(error)}') from error
        if first_steps.stage is None or is_full_disk(error):
            raise
        log_traceback(runner.logger, error)
        raise first_steps.explain(runner, error) from error


def _make_resumable(cfg: Config) -> None:
    """Replace mm's loop and checkpoint hook by those that resume anywhere."""
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


class _DataLoaderHook(Hook):
    """Check data loaders, and name images that cannot be read."""

    def before_train(self, runner: Runner) -> None:
        """Check that there is a batch: mm would train on none."""
        loader = runner.train_dataloader
        if len(loader) == 0:
            raise UserError(
                f'the {len(loader.dataset)} images of train_dataloader make '
                f'no batch of {loader.batch_sampler.batch_size} in each '
                'process, and drop_last skips a smaller batch: make '
                'batch_size smaller, or set drop_last=False')

    def before_val(self, runner: Runner) -> None:
        """Name images that cannot be read."""
        name_images(runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Name images that cannot be read."""
        name_images(runner.test_dataloader)


class _CheckFitHook(Hook):
    """Refuse a checkpoint of another model, of which mm only warns."""

    def after_load_checkpoint(self, runner: Runner,
                              checkpoint: dict) -> None:
        """Check that the checkpoint has every tensor of the model."""
        state = {re.sub(r'^module\.', '', key): value for key, value in
                 checkpoint['state_dict'].items()}
        check_fit(_unwrap(runner.model), state, runner._load_from)


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DDP or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
