"""Data that is missing, broken or named wrongly, found before a run starts.

mm drops the ground truth of categories it does not find, and answers a class
count or a label that does not fit in the middle of a step. The same checks
look at a sample of the files before each run and at all of them from
tools/check_dataset.py.
"""

import functools
import logging
import os.path as osp
import time
from contextlib import closing

from mmengine.logging import print_log

from ..errors import UserError
from .classification import (
    check_classifier,
    check_labelled,
    count_of_classes,
)
from .coco import check_coco, read_coco
from .findings import Finding
from .images import Look, check_overlap, open_samples
from .segmentation import check_labels, check_segmentation
from .sources import check_exists, check_heads, evaluators, sources

# Files of a data set that are opened before a run.
_QUICK = 32
_UNREADABLE = ('missing image', 'undecodable image', 'missing label map',
               'undecodable label map')


def check_data(cfg, splits):
    """Check the data that a run will read, its class names and counts.

    Annotations are read in whole, images and label maps in a sample.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain, which its
            ``default_scope`` says.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.

    Raises:
        UserError: The first thing found that a run would crash on, leave
            out or learn wrongly. What is merely worth knowing is logged,
            and so are training images that cannot be read where
            ``train_cfg.unreadable`` says to skip them.
    """
    skip = (cfg.get('train_cfg') or {}).get('unreadable') == 'skip'
    start = time.perf_counter()
    check = DataCheck(cfg, splits, Look(_QUICK))
    with closing(check.run()) as findings:
        for finding in findings:
            skipped = (skip and finding.split == 'train'
                       and finding.kind in _UNREADABLE)
            if finding.error and not skipped:
                raise UserError(finding.message)
            print_log(f'{finding.split} data: {finding.message}', 'current',
                      logging.WARNING)
    looked = '; '.join(
        f'{split}: {listed} images, {opened} of them opened'
        for split, (listed, opened) in check.numbers.items())
    if looked:
        print_log(f'data checked in {time.perf_counter() - start:.1f} s '
                  f'({looked}; tools/check_dataset.py opens all)', 'current')


class DataCheck:
    """All checks of the data of a config.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
        look (Look): How closely to look.

    Attributes:
        numbers (dict): By split, how many images there are and how many of
            them were opened.
    """

    def __init__(self, cfg, splits, look):
        self.cfg = cfg
        self.splits = splits
        self.look = look
        self.numbers = {}
        # Each annotation file is parsed once, and forgotten with the check.
        self._read = functools.cache(read_coco)
        self._folders = {}  # of classes
        self._images = {}  # split -> path -> hash or None

    def run(self):
        """Look at everything.

        Yields:
            Finding: Each thing that was found, once.
        """
        scope = self.cfg.get('default_scope', 'mmengine')
        if scope == 'mmpretrain':
            if count_of_classes(self.cfg.model)[0] is None:
                return
            yield from check_classifier(self.cfg, [
                split for split in self.splits
                if self.cfg.get(f'{split}_dataloader')])
        for split in self.splits:
            seen = set()
            for finding in self._split(split, scope):
                if (finding.kind, finding.message) not in seen:
                    seen.add((finding.kind, finding.message))
                    yield finding._replace(split=split)
        yield from self._overlaps()

    def _split(self, split, scope):
        try:
            found = sources(self.cfg, split)
        except UserError as error:
            yield Finding('unknown data set', str(error))
            return
        for source in found:
            try:
                yield from self._source(source, scope)
            except UserError as error:
                yield Finding('class names', str(error))
        for evaluator in evaluators(self.cfg, split) if found else ():
            if evaluator.get('ann_file'):
                yield from check_exists(evaluator['ann_file'],
                                        f'{split}_evaluator.ann_file')

    def _source(self, source, scope):
        classes = None
        if scope == 'mmpretrain':
            samples = yield from check_labelled(
                source, *count_of_classes(self.cfg.model), self._folders,
                self.look.number is None)
        else:
            missing = list(_missing(source))
            yield from missing
            classes = source.classes
            if classes is not None:
                yield from check_heads(self.cfg, source, classes)
            if missing or source.remote:
                return
            samples = []
            if source.is_a('CocoDataset') and source.config.get('ann_file'):
                samples = yield from check_coco(source, classes, self._read)
            elif source.is_a('BaseSegDataset'):
                samples = yield from check_segmentation(source, classes)
        if not samples:
            return
        opened = yield from open_samples(source, samples, self.look)
        if source.is_a('BaseSegDataset'):
            yield from check_labels(self.cfg, source, classes, opened,
                                    len(opened) == len(samples))
        listed, before = self.numbers.get(source.split, (0, 0))
        self.numbers[source.split] = (listed + len(samples),
                                      before + len(opened))
        images = self._images.setdefault(source.split, {})
        images.update((one.image, None) for one in samples)
        images.update((one.sample.image, one.digest or None)
                      for one in opened)

    def _overlaps(self):
        train = self._images.get('train', {})
        by_path = {osp.abspath(path): path for path in train}
        by_content = {digest: path for path, digest in train.items()
                      if digest}
        for split in ('val', 'test'):
            images = self._images.get(split, {})
            found = list(check_overlap(
                split, by_path,
                {osp.abspath(path): path for path in images}, 'also'))
            yield from found or check_overlap(
                split, by_content,
                {digest: path for path, digest in images.items() if digest},
                'by its content also')


def _missing(source):
    """Files and folders that the config names and that are not there."""
    option = source.option
    if source.remote:
        return
    if source.root:
        yield from check_exists(source.root, f'{option}.data_root')
    if source.config.get('ann_file'):
        yield from check_exists(source.below_root(source.config['ann_file']),
                                f'{option}.ann_file')
    for name, folder in source.folders.items():
        if (name == 'seg' and source.kind.__name__ == 'CocoDataset'
                and not source.transform('LoadAnnotations').get('with_seg')):
            continue  # as in mmdet's Mask2Former, of instances alone
        yield from check_exists(folder, f'{option}.data_prefix.{name}')
