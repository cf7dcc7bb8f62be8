"""A loss that is not finite ends training before it ruins a checkpoint."""

import json
import math
import os.path as osp
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...errors import UserError


class _Step(NamedTuple):
    """What is kept of a step until its losses have reached the CPU."""

    iteration: int
    epoch: int
    names: list
    values: torch.Tensor  # (len(names), ) on the CPU
    arrived: Any  # CUDA event after which values may be read, or None
    learning_rates: dict
    images: list


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop when a loss is NaN or infinite, and say on which images.

    The losses of a step are copied to the CPU beside the next step and read
    after it, so that a GPU is never waited for; before validation, before a
    checkpoint is written and at the end the last step's are read as well. No
    checkpoint is written after a loss that was not finite, nor with weights
    that are not, which another process' loss may have brought about.

    ``nonfinite_loss.json`` in the work dir (with the rank in its name where
    there are several) has the iteration, all losses, the learning rates and
    the images of the batch.

    Args:
        stop (bool): Whether to end training; otherwise a warning is logged
            each time. Default: True.
    """

    def __init__(self, stop=True):
        self.stop = stop
        self._last = None

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self._look(runner)
        if not outputs:
            return
        # mm sums what has 'loss' in its name up as outputs['loss'].
        terms = {
            name: torch.as_tensor(
                value, dtype=torch.float32, device=outputs['loss'].device)
            for name, value in outputs.items() if 'loss' in name
        }
        values = torch.stack(list(terms.values())).detach()
        arrived = None
        if values.is_cuda:
            # Pinned, or the copy would wait for the step.
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            values = host
        self._last = _Step(
            runner.iter + 1, runner.epoch + 1, list(terms), values, arrived,
            runner.optim_wrapper.get_lr(), _image_paths(data_batch))

    def before_val(self, runner):
        self._look(runner)

    def before_save_checkpoint(self, runner, checkpoint):
        self._look(runner)
        if not self.stop:
            return
        sound = [torch.isfinite(weight.detach()).all()
                 for weight in runner.model.parameters()]
        if sound and not torch.stack(sound).all():
            raise UserError(
                'the weights are not finite, so no checkpoint is written: '
                'lower the learning rate or clip gradients, and resume from '
                'the last checkpoint')

    def after_train(self, runner):
        self._look(runner)

    def _look(self, runner):
        step, self._last = self._last, None
        if step is None:
            return
        if step.arrived is not None:
            step.arrived.synchronize()
        losses = dict(zip(step.names, step.values.tolist()))
        wrong = {name: value for name, value in losses.items()
                 if not math.isfinite(value)}
        if not wrong:
            return
        rank = f'_rank{get_rank()}' if is_distributed() else ''
        path = osp.join(runner.work_dir, f'nonfinite_loss{rank}.json')
        with open(path, 'w', encoding='utf-8') as file:
            # JSON has no NaN: as text.
            json.dump(dict(
                iteration=step.iteration, epoch=step.epoch,
                losses={**losses, **{name: str(value)
                                     for name, value in wrong.items()}},
                learning_rates=step.learning_rates, images=step.images),
                file, indent=2)
        terms = ', '.join(f'{name} {value}' for name, value in wrong.items())
        images = ', '.join(step.images[:3]) or 'images without a name'
        message = (
            f'the loss of iteration {step.iteration} is not finite ({terms}), '
            f'on {images}; {path} has the whole batch: look at its images '
            'and labels, else lower the learning rate or clip gradients')
        if self.stop:
            raise UserError(message)
        runner.logger.warning(message)


def _image_paths(data_batch):
    """File names in a batch, of whatever form it is."""
    if isinstance(data_batch, dict):
        return _image_paths(data_batch.get('data_samples'))
    if isinstance(data_batch, (list, tuple)):
        return [path for one in data_batch for path in _image_paths(one)]
    path = getattr(data_batch, 'img_path', None)
    return [] if path is None else [str(path)]
