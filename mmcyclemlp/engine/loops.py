"""Training loops that can be left and taken up again at any batch.

What a draw of an image gives, its augmentation included, depends on the seed
of the run and on the number of the draw: not on the worker that makes it, nor
on what was drawn before. So a loop that is taken up skips what is done
without loading it, and goes on as if it had never been left.
"""

import copy
import logging
from itertools import islice

import mmcv
import torch
from mmengine import fileio
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler

from ..errors import UserError, describe
from .randomness import seeded
from .signals import shield_workers


class _Draw(int):
    """The index of an image, with the numbers that seed its draw."""

    numbers = ()


class NumberedBatches:
    """A batch sampler that can begin anywhere and numbers its draws.

    Args:
        sampler (Sampler): What gives indices.
        batch_size (int): How many of them make a batch.
        batch_sampler (dict): Config of the batch sampler that is numbered.
        seed (int): Seed of the run.
        endless (bool): Whether to begin again after the last batch.
    """

    def __init__(self, sampler, batch_size, batch_sampler, seed, endless):
        self.inner = DATA_SAMPLERS.build(
            batch_sampler,
            default_args=dict(sampler=sampler, batch_size=batch_size))
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = getattr(self.inner, 'drop_last', False)
        self.seed = seed
        self.endless = endless
        self.start = None

    def begin(self, epoch, batches_done):
        """Say where to begin; nothing is given before."""
        self.start = epoch, batches_done

    def __iter__(self):
        if self.start is None:  # mmengine 0.10.7 asks before it is time
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

    def __len__(self):
        return len(self.inner)


class NamedImages:
    """What a dataset gives for a batch, or the name of what is unreadable.

    As ``__getitems__`` of the dataset it is what torch calls.

    Args:
        dataset (Dataset): The dataset.
        unreadable (str): What to do about an image that cannot be read:
            'stop', or 'skip' to draw another one, and count.
            Default: 'stop'.

    Attributes:
        skipped (Tensor): How many draws were skipped, by all workers.
    """

    def __init__(self, dataset, unreadable='stop'):
        self.dataset = dataset
        self.skip = unreadable == 'skip'
        self.skipped = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __call__(self, draws):
        return [self._image(draw) for draw in draws]

    def _image(self, draw):
        if not isinstance(draw, _Draw):  # validation draws nothing
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
                f'{path} cannot be read: another image is drawn for it '
                f'({int(self.skipped)} so far)', logger='current',
                level=logging.WARNING)
            index = int(torch.randint(len(self.dataset), ()))
        raise UserError(
            f'{path} cannot be read: mend or remove it (tools/'
            'check_dataset.py finds all such). '
            "train_cfg.unreadable='skip' trains on without")

    def _info(self, index):
        """What the dataset says of an image, {} if nothing."""
        try:
            info = self.dataset.get_data_info(index)
        except Exception:  # a wrapper that has no such method
            info = None
        return info if isinstance(info, dict) else {}


def _unreadable_file(info):
    """Image or label map that is missing or broken, None if neither is."""
    for key in ('img_path', 'seg_map_path'):
        path = info.get(key)
        if path is None:
            continue
        try:
            if mmcv.imfrombytes(fileio.get(path), 'unchanged') is None:
                return path
        except Exception:  # no file, no right, no decoder
            return path
    return None


def name_images(dataloader, unreadable='stop'):
    """Have a data loader name what it cannot read, and its workers endure.

    Args:
        dataloader (DataLoader): The data loader; changed in place.
        unreadable (str): See :class:`NamedImages`.

    Returns:
        NamedImages: What its dataset is asked through.
    """
    dataset = dataloader.dataset
    if not hasattr(dataset, '__getitems__'):
        dataset.__getitems__ = NamedImages(dataset, unreadable)
        shield_workers(dataloader)
    return dataset.__getitems__


class _Resumable:
    """What the two loops have in common.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        unreadable (str): What to do about an image that cannot be read:
            'stop', or 'skip' to draw another one, and count.
            Default: 'stop'.
        kwargs: As of mmengine's loop.

    Raises:
        UserError: ``unreadable`` is neither.
    """

    endless = False

    def __init__(self, runner, dataloader, unreadable='stop', **kwargs):
        if unreadable not in ('stop', 'skip'):
            raise UserError(
                f"train_cfg.unreadable is {unreadable!r}: 'stop' or 'skip'")
        dataloader = copy.deepcopy(dataloader)
        dataloader.setdefault('batch_size', 1)  # as torch does
        inner = dataloader.get('batch_sampler') or dict(
            type=BatchSampler, drop_last=dataloader.pop('drop_last', False))
        dataloader['batch_sampler'] = dict(
            type=NumberedBatches, batch_sampler=inner, seed=runner.seed,
            endless=self.endless)
        dataloader = runner.build_dataloader(
            dataloader, runner.seed,
            runner.cfg.get('randomness', {}).get('diff_rank_seed', False))
        # Seeds for workers come from here, not from what the model draws.
        dataloader.generator = torch.Generator()
        # Before there are workers: mmengine 0.10.7 starts them at once.
        self.images = name_images(dataloader, unreadable)
        self.batches = dataloader.batch_sampler
        super().__init__(runner, dataloader, **kwargs)

    def run(self):
        """Train, and say how many images could not be read."""
        done, end, key = self.length
        model = super().run()
        if done >= end:
            print_log(f'{self.runner.work_dir} is finished: {key[4:-1]} '
                      f'{done} of {end}; raise train_cfg.{key} to go on',
                      logger='current')
        if self.images.skipped:
            print_log(f'{int(self.images.skipped)} draws of images that '
                      'cannot be read were skipped', logger='current',
                      level=logging.WARNING)
        return model


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's EpochBasedTrainLoop, resumable within an epoch.

    Attributes:
        batches_done (int): Batches of this epoch that are behind the
            weights.
    """

    batches_done = 0

    @property
    def length(self):
        """Epochs that are done, how many there are, and their key."""
        return self._epoch, self._max_epochs, 'max_epochs'

    def run_epoch(self):
        """Go through what remains of an epoch."""
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

    def validation_is_due(self):
        """Whether it would follow the epoch that was the last to end."""
        self._decide_current_val_interval()
        return 0 < self._epoch >= self.val_begin and (
            self._epoch % self.val_interval == 0
            or self._epoch == self._max_epochs) and self.batches_done == 0


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's IterBasedTrainLoop, resumable without loading data anew."""

    endless = True

    def __init__(self, runner, dataloader, unreadable='stop', **kwargs):
        super().__init__(runner, dataloader, unreadable, **kwargs)
        mm_calls_next = not hasattr(self.dataloader_iterator, 'skip_iter')
        self.dataloader_iterator = _Onward(self, mm_calls_next)

    @property
    def length(self):
        """Steps that are done, how many there are, and their key."""
        return self._iter, self._max_iters, 'max_iters'

    def validation_is_due(self):
        """Whether it would follow the step that was the last to end."""
        self._decide_current_val_interval()
        return 0 < self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0
            or self._iter == self._max_iters)


class _Onward:
    """Batches from where the run is, to which mm need not be led."""

    def __init__(self, loop, mm_calls_next):
        self.loop = loop
        self.mm_calls_next = mm_calls_next
        self.to_skip = None

    def skip_iter(self, count):
        """By which mmengine 0.10.12 asks to skip; 0.10.7 calls next."""

    def __next__(self):
        if self.to_skip is None:
            self.to_skip = self.loop.iter if self.mm_calls_next else 0
            self.loop.batches.begin(0, self.loop.iter)
            self.iterator = iter(self.loop.dataloader)
        if self.to_skip:
            self.to_skip -= 1
            return None
        return next(self.iterator)
