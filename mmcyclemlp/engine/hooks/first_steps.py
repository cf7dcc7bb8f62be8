"""Report in one line the errors of the first steps of a run.

The first training step is a step of the run: if it fails, nothing is changed
yet. The first validation batch is tried before training, so that no run fails
after its first epoch.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, ValLoop
from mmengine.runner.amp import autocast
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from ...errors import UserError
from ..config_nodes import is_mm
from ..loops import name_images
from ..randomness import get_rng_state, set_rng_state
from ..step_errors import explain, has_one_value, samples_of


class FirstStepsHook(Hook):
    """Follow the first step of a run, and try the first validation batch.

    Args:
        check (str): What to do if the validation batch fails, or if the
            last batch of an epoch will fail: 'error', 'warn', or 'off' to
            check neither. Default: 'error'.

    Attributes:
        begun (bool): Whether mm has built everything from the config.
        stage (str | None): Name of the current part of the first step; None
            before and after it.
    """

    priority = 'LOW'  # after hooks that prepare the model

    def __init__(self, check: str = 'error') -> None:
        self.check = check
        self.begun = False
        self.stage = None
        self._loader = None  # name in the config
        self._batch = None
        self._watch = None

    def before_run(self, runner):
        """Note that the run starts; mm loads a checkpoint after this."""
        self.begun = True
        self.stage = 'the run, before its first step,'

    def before_train(self, runner):
        """Try the first validation batch."""
        if self.check != 'off':
            with self._as_checked():
                try_validation(runner)

    def before_train_epoch(self, runner):
        if self.stage is not None:
            self.stage = 'loading the first training batch'
            self._loader = 'train_dataloader'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.stage is None:
            return
        self.stage = 'the first training step'
        self._batch = data_batch
        if self.check != 'off' and last_batch_is_one(runner):
            self._watch = _SingleValues(
                runner.model, len(samples_of(data_batch)))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """End the first step, and check the size of the last batch."""
        self.stage = self._batch = None
        watch, self._watch = self._watch, None
        if watch is not None:
            with self._as_checked():
                watch.check(runner.train_dataloader)

    def before_test_epoch(self, runner):
        self.stage = 'loading the first test batch'
        self._loader = 'test_dataloader'

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        if self.stage is not None:
            self.stage = 'the first test step'
            self._batch = data_batch

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None):
        self.stage = self._batch = None

    def explain(self, runner: Runner, error: Exception) -> UserError:
        """Describe in one line the exception that the stage raised.

        Args:
            runner (Runner): The runner.
            error (Exception): The exception, as it was caught.

        Returns:
            UserError: Error with the config keys that cause the failure.
        """
        loader = self._loader and getattr(runner, self._loader)
        return explain(runner.model, self.stage, error, self._batch,
                       self._loader, getattr(loader, 'dataset', None))

    @contextlib.contextmanager
    def _as_checked(self):
        try:
            yield
        except UserError as error:
            if self.check == 'error':
                raise
            print_log(f'{error}', 'current', logging.WARNING)


def log_traceback(logger: logging.Logger, error: Exception) -> None:
    """Write a traceback to the log file of a run, but not to the screen.

    Args:
        logger (Logger): Logger of the run.
        error (Exception): The exception, as it was caught.
    """
    text = ''.join(traceback.format_exception(
        type(error), error, error.__traceback__))
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def is_full_disk(error: Exception) -> bool:
    """Return whether the disk is full, for which there is a message."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def last_batch_is_one(runner: Runner) -> bool:
    """Return whether only the last batch of each epoch has one image."""
    batches = getattr(runner.train_dataloader, 'batch_sampler', None)
    if getattr(batches, 'endless', False) or runner.cfg.get('compile'):
        return False
    batches = getattr(batches, 'inner', batches)
    return (type(batches) is BatchSampler and not batches.drop_last
            and batches.batch_size > 1
            and len(batches.sampler) % batches.batch_size == 1)


class _SingleValues:
    """Find batch norms that get one value per channel and image.

    Args:
        model (nn.Module): The model, before a training step.
        images (int): Number of images in the batch.
    """

    def __init__(self, model: nn.Module, images: int) -> None:
        self.images = images
        self.found = []
        self.handles = [
            module.register_forward_pre_hook(self._watch(name))
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.training
            and not (isinstance(module, SyncBatchNorm)
                     and torch.distributed.is_initialized())]

    def _watch(self, name):
        def watch(module, inputs):
            if (len(inputs[0]) == self.images and module.training
                    and has_one_value(inputs[0][:1])):
                self.found.append(name)
        return watch

    def check(self, loader: DataLoader) -> None:
        """Check, after the step, that a batch of one image would pass.

        Raises:
            UserError: A batch norm would fail.
        """
        for handle in self.handles:
            handle.remove()
        if self.found:
            raise UserError(
                f'model.{self.found[0].removeprefix("module.")} gets a 1x1 '
                'map, and the last batch of an epoch has one image '
                f'({len(loader.sampler)} images, batch_size '
                f'{loader.batch_sampler.batch_size}), but batch norm needs '
                'more than one value per channel: set '
                'train_dataloader.drop_last=True, or another batch_size')


def try_validation(runner: Runner) -> None:
    """Validate on the first batch; leave the runner unchanged.

    Only mm's own validation loop is tried.

    Args:
        runner (Runner): The runner, before training.

    Raises:
        UserError: Validation would fail.
    """
    loop = runner.val_loop
    if type(loop) is not ValLoop or not _is_ever_due(runner.train_loop):
        return
    loader = loop.dataloader
    name_images(loader)
    step = 'loading the first validation batch'
    batch = None
    try:
        with _unchanged(runner):
            batch = _first_batch(loader)
            if batch is None:
                return
            step = 'the first validation step'
            runner.model.eval()
            with torch.no_grad(), autocast(enabled=loop.fp16):
                outputs = runner.model.val_step(batch)
            step = 'val_evaluator, with the first validation batch,'
            names = _evaluate(loop.evaluator, outputs, batch)
    except UserError:
        raise
    except Exception as error:  # of any model, transform or metric
        if is_full_disk(error):
            raise
        log_traceback(runner.logger, error)
        raise explain(runner.model, step, error, batch, 'val_dataloader',
                      loader.dataset) from error
    if names is not None:
        _check_save_best(runner, names)


def _is_ever_due(loop: Any) -> bool:
    return getattr(loop, 'val_begin', 1) <= max(
        getattr(loop, 'max_epochs', 0), getattr(loop, 'max_iters', 0))


def _first_batch(loader: DataLoader) -> Any:
    """Load the first batch, in a worker if the loader has workers.

    Files that are opened in this process would be shared with the workers
    that start later.
    """
    indices = next(iter(loader.batch_sampler or ()), None)
    if indices is None:
        return None
    return next(iter(type(loader)(
        loader.dataset, batch_sampler=[indices],
        num_workers=min(1, loader.num_workers),
        collate_fn=loader.collate_fn, worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context)))


@contextlib.contextmanager
def _unchanged(runner: Runner) -> Iterator[None]:
    """Restore what a step in eval mode changes, and print nothing."""
    state = get_rng_state()
    modes = [(module, module.training) for module in runner.model.modules()]
    hub = {name: copy.deepcopy(getattr(runner.message_hub, name))
           for name in ('_log_scalars', '_runtime_info', '_resumed_keys')}
    disabled, runner.logger.disabled = runner.logger.disabled, True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(
                io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        runner.logger.disabled = disabled
        for name, value in hub.items():
            setattr(runner.message_hub, name, value)
        for module, training in modes:
            module.training = training
        set_rng_state(state)


# Metrics that can be computed on one batch.
_COMPUTED = ('mmdet.evaluation.metrics.coco_metric.CocoMetric',
             'mmseg.evaluation.metrics.iou_metric.IoUMetric',
             'mmpretrain.evaluation.metrics.single_label.Accuracy')


def _evaluate(evaluator: Evaluator, outputs: list, batch: Any,
              ) -> list[str] | None:
    """Evaluate one batch with copies of the metrics, in this process only.

    Returns:
        list[str] | None: Names of all values; None if some are unknown.
    """
    metrics, evaluator = evaluator.metrics, copy.copy(evaluator)
    copies = [_copy_metric(metric) for metric in metrics]
    evaluator.metrics = [metric for metric in copies if metric is not None]
    evaluator.process(data_samples=outputs, data_batch=batch)
    found = [_names_of_values(metric) for metric in evaluator.metrics]
    if None in copies or None in found:
        return None
    return [name for names in found for name in names]


def _names_of_values(metric: BaseMetric) -> list[str] | None:
    """Compute a metric of mm; return the names of its values if known."""
    kind = type(metric)
    if f'{kind.__module__}.{kind.__name__}' not in _COMPUTED:
        return None
    kinds = []
    if kind.__name__ == 'CocoMetric':
        kinds = metric.metrics
        metric.img_ids = [truth['img_id'] for truth, _ in metric.results]
        metric.outfile_prefix = None
        metric.format_only = False
    values = metric.compute_metrics(metric.results)
    # Without any detection CocoMetric returns no values.
    if not values or not all(
            any(f'{name}'.startswith(f'{kind}_') for name in values)
            for kind in kinds):
        return None
    return [f'{metric.prefix}/{name}' if metric.prefix else name
            for name in values]


def _copy_metric(metric: BaseMetric) -> BaseMetric | None:
    """Copy a metric with its own results; the copy writes no label maps.

    Returns:
        BaseMetric | None: None if a metric of the user cannot be copied.
    """
    if not is_mm(metric):
        try:
            return copy.deepcopy(metric)
        except Exception:  # of any object that it has
            return None
    # Of mm's metrics copy what changes: the ground truth is large.
    other = copy.copy(metric)
    for name, value in vars(metric).items():
        if isinstance(value, (dict, list, set)):
            setattr(other, name, copy.copy(value))
    other.results = []
    if getattr(other, 'output_dir', None) and not getattr(
            other, 'format_only', False):
        other.output_dir = None
    return other


def _check_save_best(runner: Runner, names: list[str]) -> None:
    """Check that the evaluator has a value of the name in save_best."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            unknown = [name for name in hook.key_indicators
                       if name not in ('auto', *names)]
            if unknown:
                raise UserError(
                    f'default_hooks.checkpoint.save_best is {unknown[0]!r}, '
                    f'but val_evaluator returns {", ".join(names)}: name one '
                    "of them, or 'auto'")
