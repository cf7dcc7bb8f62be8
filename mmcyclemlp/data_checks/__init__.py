"""Data that is missing, broken or named wrongly, found before a run starts.

mm drops the ground truth of categories it does not find, and answers a class
count or a label that does not fit in the middle of a step. The checks build
each data set and run its pipeline as mm does. They open a sample of the
files before each run and all of them from tools/check_dataset.py.
"""

import functools
import logging
import os.path as osp
import time
from types import SimpleNamespace

from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

from ..errors import UserError
from .class_folders import check_classifier, check_labelled, count_of_classes
from .coco import check_coco, read_coco
from .completion import complete_annotations, completed
from .datasets import build, check_instances, list_samples
from .evaluation import check_evaluators
from .findings import Finding
from .images import Look, check_opened, check_overlap
from .masks import HANGS
from .samples import open_samples
from .segmentation import check_binary, check_labels, check_segmentation
from .sources import check_exists, check_heads, sources

__all__ = ['DataCheck', 'Look', 'check_data', 'complete_annotations']

# Files of a data set that are opened before a run.
_QUICK = 32
_UNREADABLE = ('missing image', 'undecodable image', 'missing label map',
               'undecodable label map')


def check_data(cfg, splits, level='error'):
    """Check the data that a run will read, its class names and counts.

    Annotations are read in whole, images and label maps in a sample.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain, which its
            ``default_scope`` says.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
        level (str): 'error' to raise errors, 'warn' to log them, 'off' to
            look at nothing. Default: 'error'.

    Raises:
        UserError: All that a run would crash on or learn wrongly, one line
            each. What is merely worth knowing is logged, and so are training
            images that cannot be read where ``train_cfg.unreadable`` says to
            skip them.
    """
    if level == 'off':
        return
    skip = (cfg.get('train_cfg') or {}).get('unreadable') == 'skip'
    start = time.perf_counter()
    check = DataCheck(cfg, splits, Look(_QUICK))
    errors = []
    for finding in check.run():
        skipped = (skip and finding.split == 'train'
                   and finding.kind in _UNREADABLE)
        if finding.error and not skipped and level == 'error':
            errors.append(finding.message)
        else:
            print_log(f'{finding.split} data: {finding.message}', 'current',
                      logging.WARNING)
    if errors:
        raise UserError('\nerror: '.join(dict.fromkeys(errors)))
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
        self.scope = cfg.get('default_scope', 'mmengine')
        self.numbers = {}
        # Each annotation file is parsed once, and forgotten with the check.
        self._read = functools.cache(read_coco)
        self._folders = {}  # of classes
        self._images = {}  # split -> path -> hash or None
        self._named = set()  # classes that a split has boxes of
        self._orders = {}  # of class names, by the set of them
        self._counted = set()  # class names that heads were compared with

    def run(self):
        """Look at everything.

        Yields:
            Finding: Each thing that was found, once.
        """
        if self.scope == 'mmpretrain':
            if count_of_classes(self.cfg.model)[0] is None:
                return
            yield from check_classifier(self.cfg, [
                split for split in self.splits
                if self.cfg.get(f'{split}_dataloader')])
        for split in self.splits:
            seen = set()
            for finding in self._split(split):
                if (finding.kind, finding.message) not in seen:
                    seen.add((finding.kind, finding.message))
                    yield finding._replace(split=split)
        yield from self._overlaps()

    def _split(self, split):
        try:
            found = sources(self.cfg, split)
        except UserError as error:
            yield Finding('unknown data set', str(error))
            return
        for source in found:
            try:
                yield from self._source(source)
            except UserError as error:
                yield Finding('class names', str(error))
        if found:
            yield from check_evaluators(self.cfg, split, found, self._read)

    def _source(self, source):
        if self.scope == 'mmpretrain':
            samples = yield from check_labelled(
                source, *count_of_classes(self.cfg.model), self._folders,
                self.look.number is None)
            if samples:
                with TRANSFORMS.switch_scope_and_registry(self.scope):
                    pipeline = Compose(source.config.get('pipeline') or ())
                opened = open_samples(
                    source, SimpleNamespace(pipeline=pipeline), samples,
                    self.look)
                yield from check_opened(source, opened)
                self._count(source, samples, opened)
            return
        missing = list(_missing(source))
        yield from missing
        classes = source.classes
        if classes is not None:
            yield from self._order(source, classes)
        if classes is not None and self.cfg.get('model') and (
                tuple(classes) not in self._counted):
            self._counted.add(tuple(classes))
            yield from check_heads(self.cfg, source, classes)
            if source.is_a('BaseSegDataset'):
                yield from check_binary(self.cfg, classes)
        if source.remote:
            yield Finding('not checked', f'not checked: {source.option}, '
                          'which is not on a disk of this machine',
                          (source.option, ), error=False)
        if missing or source.remote:
            return
        wrong = set()  # kinds of errors so far, which have others follow
        for finding in self._annotations(source, classes):
            if finding.error:
                wrong.add(finding.kind)
            yield finding
        with completed(source) as whole:
            tried = _Returning(build(whole, self.scope))
            for finding in tried:
                if not (wrong and finding.error):
                    yield finding
        if tried.value is not None:
            yield from self._built(source, tried.value, wrong)

    def _order(self, source, classes):
        """A label means the same class in all splits."""
        others, option = self._orders.setdefault(
            frozenset(classes), (tuple(classes), source.option))
        label = next((label for label, pair in enumerate(zip(classes, others))
                      if pair[0] != pair[1]), None)
        if label is not None:
            yield Finding(
                'order of classes',
                f'label {label} of {source.option} is {classes[label]!r}, '
                f'and of {option} {others[label]!r}: give the classes in one '
                'order, in metainfo.classes and in the annotation files',
                (source.option, ))

    def _annotations(self, source, classes):
        if source.is_a('CocoDataset') and source.config.get('ann_file'):
            yield from check_coco(source, classes, self._read)
        elif source.is_a('BaseSegDataset'):
            yield from check_segmentation(source, classes)

    def _built(self, source, dataset, wrong):
        """Check what the data set itself gives."""
        classes = dataset.metainfo.get('classes')
        if classes is None and self.cfg.get('model'):
            yield Finding('not checked', f'not checked: the classes of '
                          f'{source.option}, which has no names',
                          (source.option, ), error=False)
        if not source.reads_like('CocoDataset', 'load_data_list',
                                 'parse_data_info') and (
                source.is_a('BaseDetDataset')) and classes:
            # Also of images that filter_cfg leaves out.
            unfiltered = _Returning(build(source.unfiltered(), self.scope))
            list(unfiltered)
            if unfiltered.value is not None:
                found = _Returning(check_instances(
                    source, unfiltered.value, classes, self._named))
                for finding in found:
                    if finding.error:
                        wrong.add(finding.kind)
                    yield finding
                self._named |= found.value
        listed = _Returning(list_samples(source, dataset))
        for finding in listed:
            if finding.kind not in wrong and not (
                    wrong and finding.kind == 'no images'):
                yield finding
        samples = listed.value
        if not samples or wrong & HANGS:
            return
        opened = open_samples(source, dataset, samples, self.look)
        for finding in check_opened(source, opened):
            # Settings of it that differ make the pipeline fail.
            if not (finding.kind == 'pipeline that fails'
                    and 'reduce_zero_label' in wrong):
                yield finding
        if source.is_a('BaseSegDataset'):
            yield from check_labels(self.cfg, source, dataset, classes,
                                    opened, len(opened) == len(samples))
        self._count(source, samples, opened)

    def _count(self, source, samples, opened):
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


class _Returning:
    """Findings of a generator, and then what it returns."""

    def __init__(self, generator):
        self.generator, self.value = generator, None

    def __iter__(self):
        self.value = yield from self.generator


def _missing(source):
    """Files and folders that the config names and that are not there."""
    option = source.option
    if source.remote:
        return
    if source.root:
        found = list(check_exists(source.root, f'{option}.data_root'))
        if found:
            yield from found
            return  # what lies below it is not there either
    if source.config.get('ann_file'):
        yield from check_exists(source.below_root(source.config['ann_file']),
                                f'{option}.ann_file')
    for name, folder in source.folders.items():
        if (name == 'seg' and source.kind.__name__ == 'CocoDataset'
                and not source.transform('LoadAnnotations').get('with_seg')):
            continue  # as in mmdet's Mask2Former, of instances alone
        yield from check_exists(folder, f'{option}.data_prefix.{name}')
