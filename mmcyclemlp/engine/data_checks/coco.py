"""COCO annotation files: entries, classes, boxes and masks."""

import gc
import json
import os.path as osp
from collections import Counter
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .findings import Finding, some
from .images import Sample, absent

# Boxes and masks may leave the image by a pixel: they are rounded.
_TOLERANCE = 1
# COCO itself has a few boxes that mm leaves out. Where there are more of
# them, boxes are of another form.
_SHARE = 0.05


class CocoFile(NamedTuple):
    """What the checks need of a file; the rest of it is let go.

    Attributes:
        path (str): The file.
        categories (list): (id, name) in the order of the file.
        images (list): (id, file name, width, height).
        image (np.ndarray): For each annotation the place of its image, -1
            if there is none.
        category (np.ndarray): The same for its category.
        kept (np.ndarray): Whether mm keeps the annotation if its category
            is among the classes.
        crowd (np.ndarray): Whether it is a crowd, which is not trained on.
        findings (list): What is wrong with the file, whatever the classes.
    """

    path: str
    categories: list
    images: list
    image: np.ndarray
    category: np.ndarray
    kept: np.ndarray
    crowd: np.ndarray
    findings: list


def read_coco(path, masks):
    """Read a file once for all data sets that use it.

    Args:
        path (str): The file.
        masks (bool): Whether masks are used, and so are looked at.

    Raises:
        UserError: It is not a COCO file.
    """
    # Half of the time is for objects that are not garbage yet.
    enabled = gc.isenabled()
    gc.disable()
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        return _columns(path, content, masks)
    except (ValueError, KeyError, TypeError, AttributeError,
            OSError) as error:
        raise UserError(
            f'{path} is not a COCO annotation file '
            f'({type(error).__name__}: {error})') from error
    finally:
        if enabled:
            gc.enable()


def _columns(path, content, masks):
    findings = []

    def report(kind, names, text, error=True):
        """Text: what is wrong with the first; then the remedy."""
        if names:
            findings.append(Finding(kind, f'{path}: {names[0]} {text[0]}: '
                                    f'{len(names)} of {text[1]}; {text[2]}',
                                    names, error))

    categories = [(one['id'], one['name']) for one in content['categories']]
    images = [(one['id'], one['file_name'], one['width'], one['height'])
              for one in content['images']]
    for number, name, width, height in images:
        if not (isinstance(name, str) and type(width) in _NUMBERS
                and type(height) in _NUMBERS and min(width, height) > 0):
            raise ValueError(
                f'image {number} has the file_name {name}, width {width} and '
                f'height {height}')
    entries = content.get('annotations') or []
    sound = [entry for entry in entries if _is_sound(entry)]
    report('malformed annotation',
           [f'annotation {entry.get("id", "without id")}' for entry in entries
            if not _is_sound(entry)] if len(sound) < len(entries) else [],
           ('has not id, image_id, category_id, area and a bbox of four '
            'finite numbers', f'{len(entries)} annotations',
            'mm would fail in a step: complete it'))
    entries = sound

    place = {one[0]: at for at, one in enumerate(images)}
    image = np.array([place.get(one['image_id'], -1) for one in entries], int)
    place = {one[0]: at for at, one in enumerate(categories)}
    category = np.array(
        [place.get(one['category_id'], -1) for one in entries], int)
    crowd = np.array([bool(one.get('iscrowd')) for one in entries], bool)
    ignored = np.array([bool(one.get('ignore')) for one in entries], bool)
    area = np.array([one['area'] for one in entries], float)
    boxes = np.array([one['bbox'] for one in entries], float).reshape(-1, 4)

    def named(which):
        return [f'annotation {entries[at]["id"]} ({_name(at)})'
                for at in np.flatnonzero(which)]

    def _name(at):
        return (images[image[at]][1] if image[at] >= 0
                else f'image {entries[at]["image_id"]}')

    number = f'{len(entries)} annotations'
    for kind, values, remedy in (
            ('duplicate image id', [one[0] for one in images],
             'mm would use one of the images with the annotations of all: '
             'number them'),
            ('duplicate file name', [one[1] for one in images],
             'each would be trained on as if it had its own annotations '
             'alone: join them'),
            ('duplicate category id', [one[0] for one in categories],
             'number them'),
            ('duplicate category name', [one[1] for one in categories],
             'labels would exceed the number of classes: join or rename '
             'them'),
            ('duplicate annotation id', [one['id'] for one in entries],
             'mm refuses the file: number them')):
        if len(set(values)) < len(values):
            several = [value for value, count in Counter(values).items()
                       if count > 1]
            report(kind, several,
                   (f'is a {kind}', f'{len(set(values))}', remedy))

    report('annotation of no image', named(image < 0), (
        'is for an image id that the file does not have', number,
        'mm would drop it without a word: correct image_id'))
    report('unknown category id', named(category < 0), (
        'has a category_id that the file does not list', number,
        'mm would drop it without a word: correct it, or add the category'))

    width = np.array([one[2] for one in images], float)[image] if images else (
        np.zeros(len(entries)))
    height = np.array([one[3] for one in images], float)[image] if (
        images) else np.zeros(len(entries))
    looked = (image >= 0) & ~ignored
    x, y, w, h = boxes.T
    negative = looked & ((w < 0) | (h < 0))
    empty = looked & ~negative & ((w < 1) | (h < 1) | (area <= 0))
    right, bottom = x + w, y + h
    away = looked & ~negative & ~empty & (
        (right <= 0) | (bottom <= 0) | (x >= width) | (y >= height))
    kept = looked & ~negative & ~empty & ~away
    beyond = kept & ((x < -_TOLERANCE) | (y < -_TOLERANCE)
                     | (right > width + _TOLERANCE)
                     | (bottom > height + _TOLERANCE))

    form = 'boxes are [x, y, width, height] in pixels'
    report('box of negative size', named(negative), (
        'has a box of negative width or height', number,
        f'mm would drop it without a word: {form}'))
    report('empty box', named(empty), (
        'has a box or an area below one pixel', number,
        f'mm leaves it out: {form}'), empty.sum() > _SHARE * len(entries))
    report('box outside', named(away), (
        'has a box that lies outside of its image', number,
        f'mm would drop it without a word: {form}'))
    report('box partly outside', named(beyond), (
        'has a box that reaches out of its image', number, form),
        beyond.sum() > _SHARE * len(entries))
    if masks:
        _look_at_masks(entries, kept, width, height, named, report)
    return CocoFile(path, categories, images, image, category, kept, crowd,
                    findings)


_NUMBERS = (int, float)


def _is_sound(entry):
    if not ('id' in entry and 'image_id' in entry and 'category_id' in entry):
        return False
    box = entry.get('bbox')
    if type(box) is not list or len(box) != 4 or (
            type(entry.get('area')) not in _NUMBERS):
        return False
    x, y, w, h = box
    if not (type(x) in _NUMBERS and type(y) in _NUMBERS
            and type(w) in _NUMBERS and type(h) in _NUMBERS):
        return False
    # Not for NaN and infinity.
    return (x + y + w + h) * 0 == 0


_MASK_FAULTS = {
    'missing mask': (
        'has no segmentation', 'mm would fail in a step: add the mask'),
    'malformed mask': (
        'has a segmentation that is neither polygons of six or more numbers '
        'nor a run-length code', 'mm would leave it out or fail: correct it'),
    'mask of another size': (
        'has a run-length mask that has not the size of its image',
        'mm would fail in a step: encode it for [height, width]'),
    'mask outside': (
        'has a mask that lies outside of its image',
        'it would be trained on as an empty one: correct it'),
    # Remarks.
    'mask partly outside': (
        'has a mask that reaches out of its image', 'mm cuts it off'),
    'malformed part of a mask': (
        'has a polygon of fewer than six numbers, or an odd number, beside '
        'others', 'mm leaves that part out'),
}


def _look_at_masks(entries, kept, width, height, named, report):
    faults = np.zeros(len(entries), int)
    numbers = {None: 0}
    for kind in _MASK_FAULTS:
        numbers[kind] = len(numbers)
    for at in np.flatnonzero(kept).tolist():
        try:
            fault = _mask_fault(entries[at].get('segmentation'), width[at],
                                height[at])
        except (TypeError, ValueError, KeyError):
            fault = 'malformed mask'
        faults[at] = numbers[fault]
    for kind, (text, remedy) in _MASK_FAULTS.items():
        which = faults == numbers[kind]
        remark = 'part' in kind and which.sum() <= _SHARE * len(entries)
        report(kind, named(which), (
            text, f'{len(entries)} annotations', remedy), not remark)


def _mask_fault(mask, width, height):
    if not mask:
        return 'missing mask'
    if isinstance(mask, dict):
        counts = mask['counts']
        if not isinstance(counts, (list, str)):
            return 'malformed mask'
        if list(mask['size']) != [height, width] or (
                isinstance(counts, list) and sum(counts) != height * width):
            return 'mask of another size'
        return None
    if not isinstance(mask, list):
        return 'malformed mask'
    polygons = [one for one in mask if len(one) >= 6 and len(one) % 2 == 0]
    if not polygons:
        return 'malformed mask'
    left = top = float('inf')
    right = bottom = -left
    for polygon in polygons:
        x, y = polygon[::2], polygon[1::2]
        left, right = min(left, min(x)), max(right, max(x))
        top, bottom = min(top, min(y)), max(bottom, max(y))
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return 'mask outside'
    if (left < -_TOLERANCE or top < -_TOLERANCE
            or right > width + _TOLERANCE or bottom > height + _TOLERANCE):
        return 'mask partly outside'
    return 'malformed part of a mask' if len(polygons) < len(mask) else None


def check_coco(source, classes, read):
    """Check a data set of mmdet's CocoDataset kind.

    Args:
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.
        read (Callable): ``read_coco``, or one that remembers.

    Yields:
        Finding: What is wrong.

    Returns:
        list[Sample]: Images that are used and exist.
    """
    if not source.reads_like('CocoDataset', 'load_data_list',
                             'parse_data_info'):
        return []
    path = source.below_root(source.config['ann_file'])
    annotate = source.transform('LoadAnnotations')
    try:
        file = read(path, bool(annotate.get('with_mask')))
    except UserError as error:
        yield Finding('not a COCO file', str(error), (path, ))
        return []
    if not file.images:
        yield Finding('no images', f'{path} lists no images', (path, ))
        return []
    yield from _class_names(source, file, classes or ())
    yield from file.findings
    used = yield from _ground_truth(source, file, classes or ())
    return (yield from _existing(source, file, used))


def _class_names(source, file, classes):
    names = [name for _, name in file.categories]
    missing = [name for name in classes if name not in names]
    if missing:
        yield Finding(
            'class name without category',
            f'{file.path} has no categories {some(missing)}; it has '
            f'{some(names)}. Without a match mmdet would drop their '
            f'ground truth: set {source.option}.metainfo=dict(classes=...) '
            'to the names in the file', missing)
    order = [name for name in names if name in classes]
    if not missing and order != list(classes):
        yield Finding(
            'order of classes',
            f'{file.path} has its categories in the order {some(order)}, and '
            'by that mmdet numbers labels whatever the order of the class '
            f'names ({some(classes)}): give the names in the order of the '
            'file', order)
    others = [name for name in names if name not in classes]
    if classes and others:
        number = int((~_chosen(file, classes) & (file.category >= 0)).sum())
        yield Finding(
            'category that is no class',
            f'{file.path}: categories {some(others)} are none of the '
            f'classes, and their {number} annotations are not used', others,
            error=False)


def _chosen(file, classes):
    """Whether the category of each annotation is among the classes."""
    # The last is for annotations of no category, whose place is -1.
    chosen = [name in classes for _, name in file.categories] + [False]
    return np.array(chosen)[file.category]


def _ground_truth(source, file, classes):
    """What mm's filter leaves; give the places of the images."""
    of_class = _chosen(file, classes) & (file.image >= 0)
    wanted = {} if source.config.get('test_mode') else (
        source.config.get('filter_cfg') or {})
    least = wanted.get('min_size', 0)
    annotated = np.bincount(file.image[of_class],
                            minlength=len(file.images)) > 0
    # Boxes that mm leaves out do not count, nor do crowds.
    filled = np.bincount(file.image[of_class & file.kept & ~file.crowd],
                         minlength=len(file.images)) > 0
    large = np.array([min(one[2:]) >= least for one in file.images])
    used = large & annotated if wanted.get('filter_empty_gt') else large
    used = source.subset(np.flatnonzero(used).tolist())

    empty = [file.images[at][1] for at in np.flatnonzero(~filled)]
    if empty:
        nothing = not any(filled[at] for at in used)
        left = sum(not filled[at] for at in used)
        yield Finding(
            'images without ground truth',
            f'{file.path}: {len(empty)} of {len(file.images)} images '
            f'({len(empty) / len(file.images):.1%}) have no box of a class '
            f'to train on; {left} of them are used'
            + ('; there is nothing to learn: check the classes and boxes'
               if nothing else ''), empty,
            error=nothing and source.split == 'train')
    small = [file.images[at][1] for at in np.flatnonzero(~large)]
    if small:
        yield Finding(
            'small images',
            f'{file.path}: {len(small)} of {len(file.images)} images are '
            f'smaller than {least}, and filter_cfg leaves them out', small,
            error=False)
    present = set(file.category[of_class & file.kept & ~file.crowd].tolist())
    lacking = [name for at, (_, name) in enumerate(file.categories)
               if name in classes and at not in present]
    if lacking:
        yield Finding(
            'class without example',
            f'{file.path} has no box of the classes {some(lacking)}',
            lacking, error=False)
    return used


def _existing(source, file, used):
    folder = source.folders.get('img', source.root)
    samples = [Sample(osp.join(folder, file.images[at][1]),
                      file.images[at][2:]) for at in used]
    missing = absent([one.image for one in samples])
    if missing:
        yield Finding(
            'missing image',
            f'{missing[0]} does not exist: {len(missing)} of '
            f'{len(samples)} images that {file.path} lists are not there; '
            f'check {source.option}.data_prefix.img', missing)
        gone = set(missing)
        samples = [one for one in samples if one.image not in gone]
    return samples
