"""Stop training before a loss that is not finite damages a checkpoint."""

from __future__ import annotations

import json
import math
import os.path as osp
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...errors import UserError


class _Step(NamedTuple):
    """Data of a step, stored until its losses are on the CPU."""

    iteration: int
    epoch: int
    names: list
    values: torch.Tensor  # (len(names), ) on the CPU
    copied: Any  # CUDA event after which values may be read, or None
    learning_rates: dict
    images: list


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop when a loss is NaN or infinite, and name the images.

    The losses of a step are copied to the CPU during the next step and read
    after it, so that the CPU never waits for a GPU. The losses of the last
    step are also read before validation, before a checkpoint is written and
    at the end. No checkpoint is written after a loss that is not finite. Nor
    is one written if the weights are not finite, which the loss of another
    process can cause.

    ``nonfinite_loss.json`` in the work dir has the iteration, all losses, the
    learning rates and the images of the batch. With several processes its
    name has the rank.

    Args:
        stop (bool): Whether to stop training. Otherwise a warning is logged
            each time. Default: True.

    Raises:
        UserError: A loss or a weight is not finite.
    """

    def __init__(self, stop: bool = True) -> None:
        self.stop = stop
        self._last = None

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self._check_last(runner)
        if not outputs:
            return
        # mm adds all values with 'loss' in their names as outputs['loss'].
        terms = {
            name: torch.as_tensor(
                value, dtype=torch.float32, device=outputs['loss'].device)
            for name, value in outputs.items() if 'loss' in name
        }
        values = torch.stack(list(terms.values())).detach()
        copied = None
        if values.is_cuda:
            # Pinned memory, or the copy would wait for the step.
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
            values = host
        self._last = _Step(
            runner.iter + 1, runner.epoch + 1, list(terms), values, copied,
            runner.optim_wrapper.get_lr(), _image_paths(data_batch))

    def before_val(self, runner):
        self._check_last(runner)

    def before_save_checkpoint(self, runner, checkpoint):
        self._check_last(runner)
        if not self.stop:
            return
        finite = [torch.isfinite(weight.detach()).all()
                  for weight in runner.model.parameters()]
        if finite and not torch.stack(finite).all():
            raise UserError(
                'the weights are not finite, so no checkpoint is written: '
                'lower the learning rate or clip gradients, and resume from '
                'the last checkpoint')

    def after_train(self, runner):
        self._check_last(runner)

    def _check_last(self, runner: Runner) -> None:
        step, self._last = self._last, None
        if step is None:
            return
        if step.copied is not None:
            step.copied.synchronize()
        losses = dict(zip(step.names, step.values.tolist()))
        bad = {name: value for name, value in losses.items()
               if not math.isfinite(value)}
        if not bad:
            return
        rank = f'_rank{get_rank()}' if is_distributed() else ''
        path = osp.join(runner.work_dir, f'nonfinite_loss{rank}.json')
        with open(path, 'w', encoding='utf-8') as file:
            # As text, since JSON has no NaN.
            json.dump(dict(
                iteration=step.iteration, epoch=step.epoch,
                losses={**losses, **{name: str(value)
                                     for name, value in bad.items()}},
                learning_rates=step.learning_rates, images=step.images),
                file, indent=2)
        terms = ', '.join(f'{name} {value}' for name, value in bad.items())
        images = ', '.join(step.images[:3]) or 'images without a name'
        message = (
            f'the loss of iteration {step.iteration} is not finite ({terms}), '
            f'on {images}; {path} has the whole batch: look at its images '
            'and labels, else lower the learning rate or clip gradients')
        if self.stop:
            raise UserError(message)
        runner.logger.warning(message)


def _image_paths(data_batch):
    """Return the image paths in a batch of any form."""
    if isinstance(data_batch, dict):
        return _image_paths(data_batch.get('data_samples'))
    if isinstance(data_batch, (list, tuple)):
        return [path for one in data_batch for path in _image_paths(one)]
    path = getattr(data_batch, 'img_path', None)
    return [] if path is None else [str(path)]
