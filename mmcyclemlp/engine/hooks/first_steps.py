"""The first steps of a run, that its config may doom.

The first training step is the run's own: when it fails, nothing is changed
yet, and one line says why. The first validation batch is tried before
training, so that no run ends after its first epoch.
"""

import contextlib
import copy
import errno
import io
import logging
import traceback
import warnings

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import ValLoop
from mmengine.runner.amp import autocast
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.utils.data import BatchSampler

from ...errors import UserError
from ..config_nodes import is_mm
from ..loops import name_images
from ..randomness import get_rng_state, set_rng_state
from ..step_errors import explain, one_value, samples_of


class FirstStepsHook(Hook):
    """Know how far a run has come, and try its first validation batch.

    Args:
        check (str): What to do when that batch fails, or the last batch of
            an epoch will: 'error', 'warn', or 'off' to try neither.
            Default: 'error'.

    Attributes:
        stage (str | None): What is under way until the first step is done.
            None before all that the config asks for is built, and after
            the step.
    """

    priority = 'LOW'  # after hooks that prepare the model

    def __init__(self, check='error'):
        self.check = check
        self.begun = False
        self.stage = None
        self._loader = None  # name in the config
        self._batch = None
        self._watch = None

    def before_run(self, runner):
        """Called once by mm, before a checkpoint is read."""
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
        if self.check != 'off' and last_is_one(runner):
            self._watch = _OneByOne(runner.model, len(samples_of(data_batch)))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """The step is done; the last batch may be smaller."""
        self.stage = self._batch = None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()
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

    def explain(self, runner, error):
        """Turn what a stage raised into one line.

        Args:
            runner (Runner): The runner.
            error (Exception): As it was caught.

        Returns:
            UserError: With the keys of the config that are to blame.
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


def log_traceback(logger, error):
    """Write a traceback into the log file of a run, and not on the screen.

    Args:
        logger (Logger): Of the run.
        error (Exception): As it was caught.
    """
    text = ''.join(traceback.format_exception(
        type(error), error, error.__traceback__))
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def is_full_disk(error):
    """Whether an error has a remedy that its command tells."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def last_is_one(runner):
    """Whether the last batch of each epoch has one image, others more."""
    batches = getattr(runner.train_dataloader, 'batch_sampler', None)
    if getattr(batches, 'endless', False) or runner.cfg.get('compile'):
        return False
    batches = getattr(batches, 'inner', batches)
    return (type(batches) is BatchSampler and not batches.drop_last
            and batches.batch_size > 1
            and len(batches.sampler) % batches.batch_size == 1)


class _OneByOne:
    """Batch norms that get one value per channel and image.

    Args:
        model (nn.Module): The model, about to do a step.
        images (int): Number of images in the batch.
    """

    def __init__(self, model, images):
        self.images = images
        self.found = []
        self.handles = [
            module.register_forward_pre_hook(self._look(name))
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.training
            and not (isinstance(module, SyncBatchNorm)
                     and torch.distributed.is_initialized())]

    def _look(self, name):
        def look(module, inputs):
            if (len(inputs[0]) == self.images and one_value(inputs[0][:1])
                    and module.training and name not in self.found):
                self.found.append(name)
        return look

    def end(self):
        for handle in self.handles:
            handle.remove()

    def check(self, loader):
        """See that no batch of one image comes.

        Raises:
            UserError: One comes, and mm would stop there.
        """
        if self.found:
            name = self.found[0]
            name = name[len('module.'):] if name.startswith(
                'module.') else name
            raise UserError(
                f'model.{name} gets a map of 1x1, and the last batch of an '
                f'epoch has one image ({len(loader.sampler)} images, '
                f'batch_size {loader.batch_sampler.batch_size}), of which '
                'batch norm has one value per channel: set '
                'train_dataloader.drop_last=True, or another batch_size')


def try_validation(runner):
    """Do what validation does with its first batch; nothing is changed.

    Loops other than mm's own are left alone.

    Args:
        runner (Runner): The runner, about to train.

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
            given = _evaluate(loop.evaluator, outputs, batch)
    except UserError:
        raise
    except Exception as error:  # of any model, transform or metric
        if is_full_disk(error):
            raise
        log_traceback(runner.logger, error)
        raise explain(runner.model, step, error, batch, 'val_dataloader',
                      loader.dataset) from error
    if given is not None:
        _check_best(runner, given)


def _is_ever_due(loop):
    return getattr(loop, 'val_begin', 1) <= max(
        getattr(loop, 'max_epochs', 0), getattr(loop, 'max_iters', 0))


def _first_batch(loader):
    """The first batch, from a worker if the loader has workers.

    What is opened in this process must not be shared with the workers that
    start later.
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
def _unchanged(runner):
    """Put back what a step in eval mode changes, and print nothing."""
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


# Metrics that are computed of one batch as they are of all.
_COMPUTED = ('mmdet.evaluation.metrics.coco_metric.CocoMetric',
             'mmseg.evaluation.metrics.iou_metric.IoUMetric',
             'mmpretrain.evaluation.metrics.single_label.Accuracy')


def _evaluate(evaluator, outputs, batch):
    """Evaluate one batch by copies of the metrics, in this process alone.

    Returns:
        list[str] | None: Names of all values; None if some are not known.
    """
    all_metrics, evaluator = evaluator.metrics, copy.copy(evaluator)
    copies = [_separate(metric) for metric in all_metrics]
    evaluator.metrics = [metric for metric in copies if metric is not None]
    evaluator.process(data_samples=outputs, data_batch=batch)
    given = None if None in copies else []
    for metric in evaluator.metrics:
        kind = type(metric)
        if f'{kind.__module__}.{kind.__name__}' not in _COMPUTED:
            given = None
            continue
        kinds = []
        if kind.__name__ == 'CocoMetric':
            kinds = metric.metrics
            metric.img_ids = [truth['img_id'] for truth, _ in metric.results]
            metric.outfile_prefix = None
            metric.format_only = False
        values = metric.compute_metrics(metric.results)
        # Without a detection CocoMetric gives none.
        if not values or not all(
                any(f'{name}'.startswith(f'{kind}_') for name in values)
                for kind in kinds):
            given = None
        if given is not None:
            given += [f'{metric.prefix}/{name}' if metric.prefix else name
                      for name in values]
    return given


def _separate(metric):
    """A copy that keeps results of its own, and writes no label maps.

    Returns:
        BaseMetric | None: None if a metric of the user's cannot be copied.
    """
    if not is_mm(metric):
        try:
            return copy.deepcopy(metric)
        except Exception:  # of any object that it holds
            return None
    # mm's are copied as far as they change: their ground truth is large.
    other = copy.copy(metric)
    for name, value in vars(metric).items():
        if isinstance(value, (dict, list, set)):
            setattr(other, name, copy.copy(value))
    other.results = []
    if getattr(other, 'output_dir', None) and not getattr(
            other, 'format_only', False):
        other.output_dir = None
    return other


def _check_best(runner, given):
    """See that save_best names what the evaluator gives."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            unknown = [name for name in hook.key_indicators
                       if name not in ('auto', *given)]
            if unknown:
                raise UserError(
                    f'default_hooks.checkpoint.save_best is {unknown[0]!r}, '
                    f'and val_evaluator gives {", ".join(given)}: name one '
                    "of them, or 'auto'")
