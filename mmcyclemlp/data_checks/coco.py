"""Check data sets of COCO files: classes, boxes and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import UserError
from .coco_file import CocoFile, several_of
from .masks import check_masks
from .report import Report, some
from .sources import Source


def check_coco(report: Report, source: Source,
               classes: Sequence[str] | None, read: Callable) -> None:
    """Check a data set of mmdet's CocoDataset kind.

    Args:
        report (Report): Where to add what is wrong.
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.
        read (Callable): ``read_coco``, or one that remembers.
    """
    if not is_coco(source):
        return
    path = source.listed
    try:
        file = read(path, loads_masks(source))
    except UserError as error:
        report.error('not a COCO file', str(error), (path, ))
        return
    if not file.images:
        report.error('no images', f'{path} lists no images', (path, ))
        return
    classes = tuple(classes or ())
    _compare_classes(report, source, file, classes)
    for finding in file.findings:
        report.add(*finding[:4])
    _report_unknown(report, file, classes)
    check_masks(report, file, chosen(file, classes) & file.kept)
    report_lacking(report, file, ('area', ))
    _report_empty(report, source, file, classes)


def is_coco(source: Source) -> bool:
    """Whether mm reads a data set as its CocoDataset."""
    return bool(source.config.get('ann_file')) and source.reads_like(
        'CocoDataset', 'load_data_list', 'parse_data_info')


def loads_masks(source: Source) -> bool:
    """Whether the pipeline of a data set loads masks."""
    return bool(source.transform('LoadAnnotations').get('with_mask'))


_LACKING = dict(area='area', iscrowd='iscrowd',
                id='an id that is a number other than 0')


def report_lacking(report: Report, file: CocoFile,
                   keys: Sequence[str]) -> None:
    """Report keys that ``complete_annotations`` adds to a copy."""
    lacking = [_LACKING[key] for key in keys if key in file.lacking]
    if lacking:
        report.remark(
            'incomplete annotations',
            f'{file.path} has annotations without {" and ".join(lacking)}: '
            'a run writes a completed copy to its work_dir and reads that',
            lacking)


def _compare_classes(report, source, file, classes):
    names = [name for _, name in file.categories]
    missing = [name for name in classes if name not in names]
    if missing:
        report.error(
            'class name without category',
            f'{file.path} has no categories {some(map(repr, missing))}; it '
            f'has {some(map(repr, names))}. Without a match mmdet would drop '
            f'their ground truth: set {source.option}.metainfo='
            'dict(classes=...) to the names in the file, or add them to its '
            'categories', missing)
    used = [one for one in file.categories if one[1] in classes]
    numbers = {number for number, _ in used}
    for key, values in (
            ('name', [name for _, name in used]),
            ('id', [one[0] for one in file.categories if one[0] in numbers])):
        several = several_of(values)
        if several:
            report.error(
                f'duplicate category {key}',
                f'{file.path} has the category {key} {several[0]!r} more '
                'than once, so mm numbers labels wrongly: join or rename the '
                'categories', several)
    order = list(dict.fromkeys(name for _, name in used))
    if not missing and order != list(classes):
        report.error(
            'order of classes',
            f'{file.path} has its categories in the order {some(order)}, and '
            'mmdet numbers labels in that order whatever the order of the '
            f'class names ({some(classes)}): write the names in the order of '
            'the file, and use the same order in the files of all splits',
            order)
    others = [name for name in names if name not in classes]
    if classes and others:
        number = int((~chosen(file, classes) & (file.category >= 0)).sum())
        report.remark(
            'category that is not a class',
            f'{file.path}: categories {some(others)} are not among the '
            f'classes, and their {number} annotations are not used', others)


def _report_unknown(report, file, classes):
    lost = file.category < 0
    if lost.any():
        seen = {file.categories[at][1] for at in set(file.category[~lost])}
        absent = [name for name in classes if name not in seen]
        file.annotations.add_to(
            report, 'unknown category id', np.flatnonzero(lost),
            f'the category_id {file.unknown[0]!r}, and the file lists '
            f'{some(repr(one[0]) for one in file.categories)}',
            'mm drops it: correct it, or add the category'
            + (f'. The classes {some(absent)} have no annotation' if absent
               else ''), bool(absent))


def chosen(file: CocoFile, classes: Sequence[str]) -> np.ndarray:
    """Whether the category of each annotation is among the classes."""
    # The last is for annotations of no category, whose place is -1.
    inside = [name in classes for _, name in file.categories] + [False]
    return np.array(inside)[file.category]


def used_images(source: Source, file: CocoFile,
                classes: Sequence[str]) -> list[int]:
    """Return the places of the images that mm's filter and indices leave."""
    of_class = chosen(file, classes) & (file.image >= 0)
    wanted = _filter(source)
    annotated = np.bincount(file.image[of_class],
                            minlength=len(file.images)) > 0
    large = np.array([min(one[2:]) >= wanted.get('min_size', -np.inf)
                      for one in file.images])
    used = large & annotated if wanted.get('filter_empty_gt') else large
    return source.subset(np.flatnonzero(used).tolist())


def _filter(source):
    return {} if source.config.get('test_mode') else (
        source.config.get('filter_cfg') or {})


def _report_empty(report, source, file, classes):
    """Report images and classes that have no boxes to learn from."""
    # mm trains neither on boxes that it drops nor on crowds.
    trained = chosen(file, classes) & file.kept & ~file.crowd
    present = set(file.category[trained].tolist())
    filled = np.bincount(file.image[trained], minlength=len(file.images)) > 0
    empty = [file.images[at][1] for at in np.flatnonzero(~filled)]
    used = used_images(source, file, classes)
    nothing = not any(filled[at] for at in used)
    # An error of the file explains why nothing is left.
    if empty and not (nothing and any(one.error for one in file.findings)):
        left = sum(not filled[at] for at in used)
        report.add(
            'images without ground truth',
            f'{file.path}: {len(empty)} of {len(file.images)} images '
            f'({len(empty) / len(file.images):.1%}) have no box of a class '
            f'to train on; {left} of them are used'
            + ('; there is nothing to learn: check the classes and boxes'
               if nothing else ''), empty,
            error=nothing and source.split == 'train')
    least = _filter(source).get('min_size', 0)
    small = [name for _, name, *size in file.images if min(size) < least]
    if small:
        report.remark(
            'small images',
            f'{file.path}: {len(small)} of {len(file.images)} images are '
            f'smaller than {least}, and filter_cfg leaves them out', small)
    lacking = [name for at, (_, name) in enumerate(file.categories)
               if name in classes and at not in present]
    if lacking:
        report.remark(
            'class without example',
            f'{file.path} has no box of the classes {some(lacking)}',
            lacking)
