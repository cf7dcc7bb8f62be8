"""Training loops that can be resumed from any batch.

A draw of an image, with its augmentation, depends only on the seed of the run
and on the number of the draw. It does not depend on the worker, nor on the
draws before. So a resumed loop skips finished batches without loading them,
and the result is that of a run without interruption.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import mmcv
import torch
from mmengine import fileio
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ..errors import UserError, describe
from .randomness import seeded
from .signals import shield_workers


class _Draw(int):
    """Index of an image, with the numbers that seed its draw."""

    numbers = ()


class NumberedBatches:
    """Batch sampler that numbers its draws and can start at any batch.

    Args:
        sampler (Sampler): Sampler of indices.
        batch_size (int): Number of indices in a batch.
        batch_sampler (dict): Config of the batch sampler to number.
        seed (int): Seed of the run.
        endless (bool): Whether to start again after the last batch.
    """

    def __init__(self, sampler: Sampler, batch_size: int,
                 batch_sampler: dict, seed: int, endless: bool) -> None:
        self.inner = DATA_SAMPLERS.build(
            batch_sampler,
            default_args=dict(sampler=sampler, batch_size=batch_size))
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = getattr(self.inner, 'drop_last', False)
        self.seed = seed
        self.endless = endless
        self.start = None

    def begin(self, epoch: int, batches_done: int) -> None:
        """Set where to start. Before this call there are no batches."""
        self.start = epoch, batches_done

    def __iter__(self) -> Iterator[list[int]]:
        if self.start is None:  # mmengine 0.10.7 makes an iterator too early
            return iter(())
        epoch, batches_done = self.start
        return islice(self._batches(epoch), batches_done, None)

    def _batches(self, epoch):
        while True:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            for place, batch in enumerate(self.inner):
                yield [self._draw(index, epoch, place, number)
                       for number, index in enumerate(batch)]
            if not self.endless:
                return
            epoch += 1

    def _draw(self, index, *numbers):
        draw = _Draw(index)
        draw.numbers = (self.seed, get_rank(), *numbers)
        return draw

    def __len__(self) -> int:
        return len(self.inner)


class NamedImages:
    """Load the images of a batch, and name an image that cannot be read.

    torch calls it as ``__getitems__`` of the dataset.

    Args:
        dataset (Dataset): The dataset.
        unreadable (str): What to do with an image that cannot be read:
            'stop', or 'skip' to draw another image and count. Default:
            'stop'.

    Attributes:
        skipped (Tensor): Number of skipped draws of all workers, of shape
            (1, ).
    """

    def __init__(self, dataset: Dataset, unreadable: str = 'stop') -> None:
        self.dataset = dataset
        self.skip = unreadable == 'skip'
        self.skipped = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __call__(self, draws: list[int]) -> list:
        return [self._load(draw) for draw in draws]

    def _load(self, draw):
        if not isinstance(draw, _Draw):  # validation has plain indices
            return self._get(draw)
        with seeded(*draw.numbers):
            return self._get(int(draw))

    def _get(self, index):
        for _ in range(100):
            try:
                return self.dataset[index]
            except UserError:
                raise
            except Exception as error:  # of any transform
                info = self._info(index)
                path = _unreadable_file(info)
                if path is None:
                    raise UserError(
                        f'{info.get("img_path", f"image {index}")} cannot go '
                        f'through the pipeline: {describe(error)}') from error
            if not self.skip:
                break
            self.skipped += 1
            print_log(
                f'{path} cannot be read: another image is drawn '
                f'({int(self.skipped)} so far)', logger='current',
                level=logging.WARNING)
            index = int(torch.randint(len(self.dataset), ()))
        raise UserError(
            f'{path} cannot be read: fix or remove it (python -m mmcyclemlp '
            "check_dataset finds all such files). train_cfg.unreadable="
            "'skip' trains without it")

    def _info(self, index):
        """Return the annotation of an image, {} if there is none."""
        try:
            info = self.dataset.get_data_info(index)
        except Exception:  # a wrapper without this method
            info = None
        return info if isinstance(info, dict) else {}


def _unreadable_file(info):
    """Return the image or label map that cannot be read, None if both can."""
    for key in ('img_path', 'seg_map_path'):
        path = info.get(key)
        if path is None:
            continue
        try:
            if mmcv.imfrombytes(fileio.get(path), 'unchanged') is None:
                return path
        except Exception:  # no file, no permission, no decoder
            return path
    return None


def name_images(dataloader: DataLoader, unreadable: str = 'stop',
                ) -> NamedImages:
    """Make a data loader name images that cannot be read.

    Its workers also survive SIGTERM and SIGINT.

    Args:
        dataloader (DataLoader): The data loader; changed in place.
        unreadable (str): See :class:`NamedImages`. Default: 'stop'.

    Returns:
        NamedImages: The object that loads the images.
    """
    dataset = dataloader.dataset
    if not hasattr(dataset, '__getitems__'):
        dataset.__getitems__ = NamedImages(dataset, unreadable)
        shield_workers(dataloader)
    return dataset.__getitems__


class _Resumable:
    """Common part of the two loops.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        unreadable (str): See :class:`NamedImages`. Default: 'stop'.
        kwargs: Arguments of mmengine's loop.

    Raises:
        UserError: ``unreadable`` is neither 'stop' nor 'skip'.
    """

    endless = False

    def __init__(self, runner: Runner, dataloader: dict,
                 unreadable: str = 'stop', **kwargs: Any) -> None:
        if unreadable not in ('stop', 'skip'):
            raise UserError(
                f"train_cfg.unreadable is {unreadable!r}: set 'stop' or "
                "'skip'")
        dataloader = copy.deepcopy(dataloader)
        dataloader.setdefault('batch_size', 1)  # the default of torch
        inner = dataloader.get('batch_sampler') or dict(
            type=BatchSampler, drop_last=dataloader.pop('drop_last', False))
        dataloader['batch_sampler'] = dict(
            type=NumberedBatches, batch_sampler=inner, seed=runner.seed,
            endless=self.endless)
        dataloader = runner.build_dataloader(
            dataloader, runner.seed,
            runner.cfg.get('randomness', {}).get('diff_rank_seed', False))
        # So that seeds of workers are not drawn from the model's generator.
        dataloader.generator = torch.Generator()
        # Before mmengine's loop: 0.10.7 starts workers in its __init__.
        self.images = name_images(dataloader, unreadable)
        self.batches = dataloader.batch_sampler
        super().__init__(runner, dataloader, **kwargs)

    def run(self) -> nn.Module:
        """Train, and log how many images were skipped."""
        done, end, key = self.length
        model = super().run()
        if done >= end:
            print_log(f'{self.runner.work_dir} is finished: {key[4:-1]} '
                      f'{done} of {end}; raise train_cfg.{key} to continue',
                      logger='current')
        if self.images.skipped:
            print_log(f'{int(self.images.skipped)} draws of images that '
                      'cannot be read were skipped', logger='current',
                      level=logging.WARNING)
        return model

    def _is_due(self, done, end):
        self._decide_current_val_interval()
        return 0 < done >= self.val_begin and (
            done % self.val_interval == 0 or done == end)


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's EpochBasedTrainLoop that can be resumed within an epoch.

    Attributes:
        batches_done (int): Finished batches of the current epoch.
    """

    batches_done = 0

    @property
    def length(self) -> tuple[int, int, str]:
        """Finished epochs, all epochs, and the key of all epochs."""
        return self._epoch, self._max_epochs, 'max_epochs'

    def run_epoch(self) -> None:
        """Train on the rest of the epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches.begin(self._epoch, self.batches_done)
        for place, data_batch in enumerate(self.dataloader,
                                           self.batches_done):
            self.batches_done = place + 1
            self.run_iter(place, data_batch)
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def validation_is_due(self) -> bool:
        """Return whether validation follows the last finished epoch."""
        return self.batches_done == 0 and self._is_due(
            self._epoch, self._max_epochs)


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's IterBasedTrainLoop that resumes without loading old data."""

    endless = True

    def __init__(self, runner: Runner, dataloader: dict,
                 unreadable: str = 'stop', **kwargs: Any) -> None:
        super().__init__(runner, dataloader, unreadable, **kwargs)
        mm_calls_next = not hasattr(self.dataloader_iterator, 'skip_iter')
        self.dataloader_iterator = _ResumedIterator(self, mm_calls_next)

    @property
    def length(self) -> tuple[int, int, str]:
        """Finished steps, all steps, and the key of all steps."""
        return self._iter, self._max_iters, 'max_iters'

    def validation_is_due(self) -> bool:
        """Return whether validation follows the last finished step."""
        return self._is_due(self._iter, self._max_iters)


class _ResumedIterator:
    """Batches from the current step on; mm's own skipping does nothing.

    Args:
        loop (ResumableIterLoop): The loop.
        mm_calls_next (bool): Whether mm skips by calls of ``next``.
    """

    def __init__(self, loop, mm_calls_next):
        self.loop = loop
        self.mm_calls_next = mm_calls_next
        self.to_skip = None

    def skip_iter(self, count):
        """Do nothing; mmengine 0.10.12 calls this to skip batches."""

    def __next__(self):
        if self.to_skip is None:
            # mmengine 0.10.7 calls next for each finished step.
            self.to_skip = self.loop.iter if self.mm_calls_next else 0
            self.loop.batches.begin(0, self.loop.iter)
            self.iterator = iter(self.loop.dataloader)
        if self.to_skip:
            self.to_skip -= 1
            return None
        return next(self.iterator)
