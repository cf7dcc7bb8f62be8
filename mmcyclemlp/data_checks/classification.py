"""Check data of classifiers: class folders, or a list of image and label."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterable

from mmengine.config import Config
from mmengine.fileio import list_from_file

from ..backbones import CycleNet
from .images import Sample, absent
from .report import Report, some
from .sources import Source, evaluators, exists, init_defaults


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


def count_of_classes(model: dict) -> tuple[int | None, str]:
    """Return the number of classes of a classifier, and its config key."""
    backbone, head = model.get('backbone') or {}, model.get('head') or {}
    if backbone.get('fork_feat', True):
        return head.get('num_classes'), 'model.head.num_classes'
    default = init_defaults(CycleNet)['num_classes']
    return (backbone.get('num_classes', default),
            'model.backbone.num_classes')


def check_labeled(report: Report, source: Source, number: int, option: str,
                  known: dict[str, list[str]], whole: bool) -> list[Sample]:
    """Check a data set of mmpretrain's CustomDataset kind.

    Args:
        report (Report): Where to add what is wrong.
        source (Source): The data set.
        number (int): Number of classes of the model.
        option (str): The config key of that.
        known (dict): Names of class folders by folder, of the data sets
            before this one. Those of this one are added.
        whole (bool): Whether to list all images of class folders, or one of
            each.

    Returns:
        list[Sample]: Its images.
    """
    unlabeled = not source.config.get('with_label', True) or (
        source.is_a('ImageNet') and source.config.get('split') == 'test')
    if not source.is_a('CustomDataset') or unlabeled:
        return []
    names = _class_names(report, source, number, option)
    if source.remote:
        return []
    folder, ann_file = _places(source)
    found = exists(report, folder, f'{source.option}.data_prefix')
    if ann_file:
        return _check_list(report, source, ann_file, folder, number,
                           option) if exists(
            report, ann_file, f'{source.option}.ann_file') and found else []
    if not found:
        return []
    folders, samples = _check_folders(report, source, folder, number, option,
                                      whole)
    _compare_folders(report, source, folder, folders, names, known)
    known[folder] = folders
    return samples


def _class_names(report, source, number, option):
    """Return the class names of the config, and check their number."""
    names = source.config.get('classes') or source.classes
    if isinstance(names, str):
        names = list_from_file(names) if exists(
            report, names, f'{source.option}.classes') else None
    if names and len(names) != number:
        report.error(
            'class count of a head',
            f'{source.option} of type {source.config["type"]} has '
            f'{len(names)} class names ({some(names)}), but {option} is '
            f"{number}: make them equal, or use type='CustomDataset', which "
            'has no names by default', (source.option, ))
    return names


def _places(source):
    """Return the folder of the images and the list of them, '' if none."""
    config = source.config
    prefix = config.get('data_prefix') or config.get('split') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path') or ''
    ann_file = config.get('ann_file') or ''
    if not ann_file and config.get('split'):
        # Where ImageNet looks for one.
        listed = osp.join('meta', f'{config["split"]}.txt')
        ann_file = listed if osp.exists(source.below_root(listed)) else ''
    return osp.expanduser(source.below_root(prefix)), ann_file and (
        osp.expanduser(source.below_root(ann_file)))


def _compare_folders(report, source, folder, folders, names, known):
    """Check that folders number the labels in one order everywhere."""
    if names and list(names) != folders and set(names) == set(folders):
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


def _check_list(report, source, ann_file, folder, number, option):
    """Check that each line has an image that exists and a label."""
    try:
        lines = list_from_file(ann_file)
    except UnicodeDecodeError as error:
        report.error('malformed list', f'{ann_file} is no text in UTF-8: '
                     f'{error}', (ann_file, ))
        return []
    paths, malformed, beyond = [], [], []
    for place, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.lstrip('-').isdecimal():
            malformed.append((place, line))
            continue
        if not 0 <= int(label) < number:
            beyond.append((place, label))
        paths.append(osp.join(folder, name))

    def add(kind, found, text):
        if found:
            place, value = found[0]
            report.error(
                kind, f'{ann_file}, line {place}: {text.format(value)}: '
                f'{len(found)} of {len(lines)} lines',
                [f'line {place}' for place, _ in found])

    add('malformed list', malformed,
        "'{}' is not the name of an image, a blank and a label")
    add('label out of range', beyond, 'label {} is not in 0 to '
        f'{number - 1}, which {option}={number} allows')
    if not lines:
        report.error('no images', f'{ann_file} lists no images',
                     (ann_file, ))
    paths = source.subset(paths)
    missing = absent(paths)
    if missing:
        report.error(
            'missing image',
            f'{missing[0]!r} does not exist: {len(missing)} of {len(paths)} '
            f'images that {ann_file} lists are missing', missing)
    gone = set(missing)
    return [Sample(path) for path in paths if path not in gone]


def _check_folders(report, source, folder, number, option, whole):
    """Check that each class has a folder with images; return both."""
    extensions = tuple(
        source.config.get('extensions') or init_defaults(source.kind).get(
            'extensions') or source.kind.IMG_EXTENSIONS)
    folders = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir())
    if len(folders) != number:
        report.error(
            'class folders',
            f'{folder} has {len(folders)} class folders ({some(folders)}), '
            f'but {option} is {number}: make them equal' if folders else
            f'{folder} has no class folders: set {source.option}.ann_file to '
            'a list of its images, "name label" per line', (folder, ))
    samples, empty = [], []
    for name in folders:
        images = _images(osp.join(folder, name), extensions)
        found = [Sample(path) for path in
                 (images if whole else [next(images, None)]) if path]
        samples.extend(found)
        if not found:
            empty.append(name)
    if empty:
        report.error(
            'class without example',
            f'{osp.join(folder, empty[0])} has no image '
            f'({", ".join(sorted(extensions))}): {len(empty)} of '
            f'{len(folders)} class folders are empty', empty)
    return folders, samples


def _images(folder, extensions):
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if name.lower().endswith(extensions):
                yield osp.join(place, name)
