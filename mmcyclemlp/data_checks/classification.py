"""Check data of classifiers: class folders, or a list of image and label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file

from ..backbones import CycleNet
from .report import Report, some
from .sources import Source, evaluators, init_defaults


def count_of_classes(model: dict) -> tuple[int | None, str]:
    """Return the number of classes of a classifier, and its config key."""
    backbone, head = model.get('backbone') or {}, model.get('head') or {}
    if backbone.get('fork_feat', True):
        return head.get('num_classes'), 'model.head.num_classes'
    default = init_defaults(CycleNet)['num_classes']
    return (backbone.get('num_classes', default),
            'model.backbone.num_classes')


def check_classifier(report: Report, cfg: Config,
                     splits: Iterable[str]) -> None:
    """Check the class counts of a classifier and its metrics."""
    number, option = count_of_classes(cfg.model)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    if preprocessor.get('num_classes', number) != number:
        report.error(
            'class count of a head',
            f'data_preprocessor.num_classes is {preprocessor.num_classes}, '
            f'but {option} is {number}: make them equal',
            ('data_preprocessor', ))
    for split in splits:
        report.split = split
        for evaluator in evaluators(cfg, split):
            topk = evaluator.get('topk', 1)
            highest = max(topk) if isinstance(topk, (list, tuple)) else topk
            if evaluator.get('type') == 'Accuracy' and highest > number:
                report.error(
                    'metric of more classes',
                    f'{split}_evaluator.topk has top-{highest} of {number} '
                    f'classes: set {split}_evaluator.topk=1',
                    (f'{split}_evaluator', ))


def is_labeled(source: Source) -> bool:
    """Whether a data set of mmpretrain's CustomDataset kind has labels."""
    return source.is_a('CustomDataset') and source.config.get(
        'with_label', True) and not (
            source.is_a('ImageNet') and source.config.get('split') == 'test')


def check_names(report: Report, cfg: Config, source: Source,
                classes: Sequence[str]) -> None:
    """Check that there are as many class names as the model has classes."""
    number, option = count_of_classes(cfg.model)
    if len(classes) != number:
        report.error(
            'class count of a head',
            f'{source.option} of type {source.config["type"]} has '
            f'{len(classes)} class names ({some(classes)}), but {option} is '
            f"{number}: make them equal, or use type='CustomDataset', which "
            'has no names by default', (source.option, ))


def check_labeled(report: Report, cfg: Config, source: Source,
                  dataset: BaseDataset, known: dict[str, list[str]]) -> None:
    """Check the labels and class folders of a data set.

    Args:
        report (Report): Where to add what is wrong.
        cfg (Config): The config, for the number of classes of the model.
        source (Source): The data set.
        dataset (BaseDataset): The data set as mm builds it.
        known (dict): Names of class folders by folder, of the data sets
            before this one. Those of this one are added.
    """
    number, option = count_of_classes(cfg.model)
    labels = Counter(info['gt_label'] for info in dataset.data_list)
    beyond = sorted(set(labels) - set(range(number)))
    folders = sorted(getattr(dataset, 'folder_to_idx', ()))
    if folders and len(folders) != number:
        report.error(
            'class folders', f'{dataset.img_prefix} has {len(folders)} class '
            f'folders ({some(folders)}), but {option} is {number}: make them '
            'equal', (dataset.img_prefix, ))
    elif beyond:
        report.error(
            'label out of range',
            f'{dataset.ann_file} has the label {beyond[0]} '
            f'{labels[beyond[0]]} times, which is not in 0 to {number - 1}, '
            f'as {option}={number} needs', beyond)
    classes = dataset.metainfo.get('classes') or range(number)
    lacking = [str(name) for label, name in enumerate(classes)
               if not labels[label]]
    if lacking and labels:
        report.remark(
            'class without example',
            f'{source.option} has no image of the classes {some(lacking)}',
            lacking)
    if folders:
        _compare_folders(report, source, dataset.img_prefix, folders, classes,
                         known)


def _compare_folders(report, source, folder, folders, classes, known):
    """Check that folders number the labels in one order everywhere."""
    if list(classes) != folders and set(classes) == set(folders):
        report.error(
            'order of classes',
            f'{source.option}: labels number the folders in sorted order '
            f'({some(folders)}): write the class names in that order',
            (source.option, ))
    other = next((one for one in known if known[one] != folders), None)
    if other is not None:
        odd = sorted(set(folders) ^ set(known[other]))
        report.error(
            'class folders that differ',
            f'{folder} and {other} do not have the same class folders '
            f'(only one has {some(odd)}), so a label would mean different '
            'classes: make them the same', odd)
    known[folder] = folders


def check_list(report: Report, path: str) -> None:
    """Check that each line of a list has an image and a label."""
    try:
        lines = list_from_file(path)
    except UnicodeDecodeError as error:
        report.error('malformed list', f'{path} is not text in UTF-8: '
                     f'{error}', (path, ))
        return
    malformed = [place for place, line in enumerate(lines, 1)
                 if not re.fullmatch(r'.+ -?\d+', line.strip())]
    if malformed:
        report.error(
            'malformed list',
            f'{path}, line {malformed[0]}: {lines[malformed[0] - 1]!r} is '
            'not the name of an image, a blank and a label: '
            f'{len(malformed)} of {len(lines)} lines',
            [f'line {place}' for place in malformed])
