"""Data sets of COCO annotation files: classes, boxes and images."""

import numpy as np

from ..errors import UserError
from .coco_file import read_coco, several_of
from .findings import Finding, some
from .masks import check_masks

__all__ = ['check_coco', 'read_coco']


def check_coco(source, classes, read):
    """Check a data set of mmdet's CocoDataset kind.

    Args:
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.
        read (Callable): ``read_coco``, or one that remembers.

    Yields:
        Finding: What is wrong.
    """
    if not is_coco(source):
        return
    path = source.below_root(source.config['ann_file'])
    try:
        file = read(path, bool(
            source.transform('LoadAnnotations').get('with_mask')))
    except UserError as error:
        yield Finding('not a COCO file', str(error), (path, ))
        return
    if not file.images:
        yield Finding('no images', f'{path} lists no images', (path, ))
        return
    classes = tuple(classes or ())
    yield from _class_names(source, file, classes)
    yield from file.findings
    yield from _unknown(file, classes)
    yield from check_masks(file, chosen(file, classes) & file.kept)
    if 'area' in file.lacking:
        yield lacks(file, 'area')
    yield from _ground_truth(source, file, classes,
                             used_images(source, file, classes),
                             any(one.error for one in file.findings))


def is_coco(source):
    """Whether mm reads a data set as its CocoDataset."""
    return bool(source.config.get('ann_file')) and source.reads_like(
        'CocoDataset', 'load_data_list', 'parse_data_info')


_FILLED = dict(
    area='width times height of the box stands for it', iscrowd='0 stands '
    'for it', id="COCO's evaluation takes numbers other than 0: others stand "
    'for them')


def lacks(file, key):
    """A remark on annotations that ``complete_annotations`` completes."""
    places = file.lacking[key]
    names = [file.named.name(at) for at in places]
    has = (f'has {key} {file.named.ids[places[0]]!r}' if key == 'id'
           else f'has no {key}')
    return Finding(
        f'annotation without {key}',
        f'{file.path}: {names[0]} {has}: {len(places)} of '
        f'{len(file.image)} annotations; {_FILLED[key]} in a completed copy, '
        'which a run writes to its work_dir', names, error=False)


def _class_names(source, file, classes):
    names = [name for _, name in file.categories]
    missing = [name for name in classes if name not in names]
    if missing:
        yield Finding(
            'class name without category',
            f'{file.path} has no categories {some(map(repr, missing))}; it '
            f'has {some(map(repr, names))}. Without a match mmdet would drop '
            f'their ground truth: set {source.option}.metainfo='
            'dict(classes=...) to the names in the file, or add them to its '
            'categories', missing)
    used = [one for one in file.categories if one[1] in classes]
    numbers = {number for number, _ in used}
    for kind, values in (
            ('duplicate category name', [name for _, name in used]),
            ('duplicate category id',
             [one[0] for one in file.categories if one[0] in numbers])):
        several = several_of(values)
        if several:
            yield Finding(
                kind, f'{file.path} has the {kind[10:]} {several[0]!r} more '
                'than once, and so mm numbers labels wrongly: join or '
                'rename the categories', several)
    order = list(dict.fromkeys(name for _, name in used))
    if not missing and order != list(classes):
        yield Finding(
            'order of classes',
            f'{file.path} has its categories in the order {some(order)}, and '
            'by that mmdet numbers labels whatever the order of the class '
            f'names ({some(classes)}): give the names in the order of the '
            'file, and have the same order in the files of all splits', order)
    others = [name for name in names if name not in classes]
    if classes and others:
        number = int((~chosen(file, classes) & (file.category >= 0)).sum())
        yield Finding(
            'category that is no class',
            f'{file.path}: categories {some(others)} are none of the '
            f'classes, and their {number} annotations are not used', others,
            error=False)


def _unknown(file, classes):
    lost = file.category < 0
    if not lost.any():
        return
    text, as_text = file.unknown
    names = file.named(lost)
    seen = {file.categories[at][1] for at in set(file.category[~lost])}
    absent = [name for name in classes if name not in seen]
    yield Finding(
        'unknown category id',
        f'{file.path}: {names[0]} has {text}: {len(names)} of {len(lost)} '
        'annotations; mm leaves it out'
        + ('' if as_text else ': correct it, or add the category')
        + (f'. The classes {some(absent)} have no annotation' if absent
           else ''), names, as_text or bool(absent))


def chosen(file, classes):
    """Whether the category of each annotation is among the classes."""
    # The last is for annotations of no category, whose place is -1.
    inside = [name in classes for _, name in file.categories] + [False]
    return np.array(inside)[file.category]


def used_images(source, file, classes):
    """Places of the images that mm's filter and ``indices`` leave."""
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


def _ground_truth(source, file, classes, used, explained):
    """Images, sizes and classes without boxes to learn from.

    An error of the file explains why nothing is left.
    """
    # Boxes that mm leaves out do not count, nor do crowds.
    filled = chosen(file, classes) & file.kept & ~file.crowd
    present = set(file.category[filled].tolist())
    filled = np.bincount(file.image[filled], minlength=len(file.images)) > 0
    empty = [file.images[at][1] for at in np.flatnonzero(~filled)]
    nothing = not any(filled[at] for at in used)
    if empty and not (nothing and explained):
        left = sum(not filled[at] for at in used)
        yield Finding(
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
        yield Finding(
            'small images',
            f'{file.path}: {len(small)} of {len(file.images)} images are '
            f'smaller than {least}, and filter_cfg leaves them out', small,
            error=False)
    lacking = [name for at, (_, name) in enumerate(file.categories)
               if name in classes and at not in present]
    if lacking:
        yield Finding(
            'class without example',
            f'{file.path} has no box of the classes {some(lacking)}',
            lacking, error=False)
