"""Run all checks of the data of a config."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..errors import UserError
from .classification import (
    check_classifier,
    check_labeled,
    check_list,
    check_names,
    count_of_classes,
    is_labeled,
)
from .coco import check_coco
from .coco_file import read_coco
from .completion import completed
from .datasets import build, check_instances, list_samples
from .evaluation import check_evaluators
from .images import Look, check_opened
from .masks import HANGS
from .report import Finding, Report
from .samples import open_samples
from .segmentation import check_binary, check_labels, check_own_classes
from .sources import check_heads, paths_exist, sources

# Files of a data set that are opened before a run.
_QUICK = 32
_UNREADABLE = ('missing image', 'undecodable image', 'missing label map',
               'undecodable label map')


def check_data(cfg: Config, splits: Sequence[str],
               level: str = 'error') -> None:
    """Check the data that a run will read, its class names and counts.

    Annotations are read in whole, images and label maps in a sample.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain, as its
            ``default_scope`` says.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
        level (str): 'error' to raise errors, 'warn' to log them, 'off' to
            check nothing. Default: 'error'.

    Raises:
        UserError: All that a run would fail on or learn wrongly, one line
            each. Remarks are logged, and so are training images that cannot
            be read where ``train_cfg.unreadable`` says to skip them.
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
    opened = '; '.join(
        f'{split}: {listed} images, {opened} of them opened'
        for split, (listed, opened) in check.numbers.items())
    if opened:
        print_log(f'data checked in {time.perf_counter() - start:.1f} s '
                  f'({opened}; python -m mmcyclemlp check_dataset opens '
                  'all)', 'current')


class DataCheck:
    """All checks of the data of a config.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
        look (Look): How many files to open, and how.

    Attributes:
        numbers (dict): By split, the number of images and how many of them
            were opened.
    """

    def __init__(self, cfg: Config, splits: Sequence[str], look: Look):
        self.cfg = cfg
        self.splits = splits
        self.look = look
        self.scope = cfg.get('default_scope', 'mmengine')
        self.numbers = {}
        self._report = Report()
        # Each annotation file is parsed once, and forgotten with the check.
        self._read = functools.cache(read_coco)
        self._folders = {}  # of classes
        self._named = set()  # classes that a split has boxes of
        self._orders = {}  # of class names, by the set of them
        self._counted = set()  # class names that heads were compared with

    def run(self) -> list[Finding]:
        """Check everything.

        Returns:
            list[Finding]: What was found, each thing once.
        """
        if self.scope == 'mmpretrain':
            if count_of_classes(self.cfg.model)[0] is None:
                return []
            check_classifier(self._report, self.cfg, [
                split for split in self.splits
                if self.cfg.get(f'{split}_dataloader')])
        for split in self.splits:
            self._report.split = split
            self._check_split(split)
        return self._report.findings

    def _check_split(self, split):
        try:
            found = sources(self.cfg, split)
        except UserError as error:
            self._report.error('unknown data set', str(error))
            return
        for source in found:
            try:
                self._check_source(source)
            except UserError as error:
                self._report.error('class names', str(error))
        if found:
            check_evaluators(self._report, self.cfg, split, found, self._read)

    def _check_source(self, source):
        if self.scope == 'mmpretrain' and not is_labeled(source):
            return
        found = source.remote or paths_exist(self._report, source)
        classes = source.classes
        if classes is not None:
            self._check_classes(source, classes)
        if source.remote:
            self._report.remark(
                'not checked', f'not checked: {source.option}, which is not '
                'on a disk of this machine', (source.option, ))
        elif found:
            self._report.wrong = set()
            if source.is_a('CocoDataset') and source.config.get('ann_file'):
                check_coco(self._report, source, classes, self._read)
            elif source.is_a('BaseSegDataset'):
                check_own_classes(self._report, source, classes)
            elif self.scope == 'mmpretrain' and source.listed:
                check_list(self._report, source.listed)
            self._build(source)

    def _check_classes(self, source, classes):
        """Compare class names with other splits and with the heads."""
        others, option = self._orders.setdefault(
            frozenset(classes), (tuple(classes), source.option))
        label = next((label for label, pair in enumerate(zip(classes, others))
                      if pair[0] != pair[1]), None)
        if label is not None:
            self._report.error(
                'order of classes',
                f'label {label} of {source.option} is {classes[label]!r}, '
                f'and of {option} {others[label]!r}: write the classes in '
                'one order, in metainfo.classes and in the annotation files',
                (source.option, ))
        if self.cfg.get('model') and tuple(classes) not in self._counted:
            self._counted.add(tuple(classes))
            if self.scope == 'mmpretrain':
                check_names(self._report, self.cfg, source, classes)
            check_heads(self._report, self.cfg, source, classes)
            if source.is_a('BaseSegDataset'):
                check_binary(self._report, self.cfg, classes)

    def _build(self, source):
        """Build a data set as mm does, and check what it has."""
        try:
            with completed(source) as whole:
                dataset = build(whole, self.scope)
        except UserError as error:
            if not self._report.wrong:  # an error before is the reason
                self._report.error('data set that cannot be built',
                                   str(error), (source.option, ))
            return
        if not isinstance(dataset, BaseDataset):
            self._report.remark(
                'not checked', f'not checked: {source.kind.__name__}, which '
                "is not a data set of mmengine's BaseDataset",
                (source.option, ))
            return
        if self.scope == 'mmpretrain':
            check_labeled(self._report, self.cfg, source, dataset,
                          self._folders)
        classes = dataset.metainfo.get('classes')
        if classes is None and self.cfg.get('model') and (
                self.scope != 'mmpretrain'):
            self._report.remark(
                'not checked', f'not checked: the classes of '
                f'{source.option}, which has no names', (source.option, ))
        if not source.reads_like('CocoDataset', 'load_data_list',
                                 'parse_data_info') and (
                source.is_a('BaseDetDataset')) and classes:
            # Also images that filter_cfg leaves out.
            self._named |= check_instances(
                self._report, source, build(source.unfiltered(), self.scope),
                classes, self._named)
        samples = list_samples(self._report, source, dataset)
        if samples and HANGS not in self._report.wrong:
            opened = open_samples(source, dataset, samples, self.look)
            check_opened(self._report, source, opened)
            if source.is_a('BaseSegDataset'):
                check_labels(self._report, self.cfg, source, dataset,
                             classes, opened, len(opened) == len(samples))
            listed, before = self.numbers.get(source.split, (0, 0))
            self.numbers[source.split] = (listed + len(samples),
                                          before + len(opened))
