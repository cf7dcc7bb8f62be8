"""COCO annotation files: what mm makes of their entries."""

import gc
import json
import os
from collections import Counter
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .findings import Finding
from .masks import LEFT_OUT, TOLERANCE, many, mask_faults

_NUMBERS = (int, float, bool)
_KEYS = (int, float, bool, str, type(None))  # what a dict can be asked for
_LACKING = {}  # by file, its state and whether masks were read


class CocoFile(NamedTuple):
    """What the checks need of a file; the rest of it is let go.

    Attributes:
        path (str): The file.
        categories (list): (id, name) in the order of the file.
        images (list): (id, file name, width, height); an id once, as in mm.
        image (np.ndarray): For each annotation the place of its image, -1
            if there is none.
        category (np.ndarray): The same for its category.
        boxes (np.ndarray): The box of each, NaN where mm reads none.
        kept (np.ndarray): Whether mm keeps the annotation if its category
            is among the classes.
        crowd (np.ndarray): Whether it is a crowd, which is not trained on.
        named (Callable): Names of the annotations that an array marks.
        unknown (tuple): Text on the first ``category_id`` that the file does
            not list, and whether that is text in the place of a number.
        masks (dict): By the place of an annotation, the kind of what is
            wrong with its mask and a text on it.
        lacking (dict): By the key that COCO's evaluation needs, which
            annotations do not have it.
        findings (list): What is wrong with the file, whatever the classes.
    """

    path: str
    categories: list
    images: list
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    crowd: np.ndarray
    named: object
    unknown: tuple
    masks: dict
    lacking: dict
    findings: list


def parse(path):
    """Read a file as mm does.

    Raises:
        UserError: It is not a COCO file.
    """
    reason = ''
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except UnicodeDecodeError:
        reason = 'it is not text in UTF-8: save it as such'
    except (ValueError, RecursionError) as error:
        with open(path, 'rb') as file:
            mark = file.read(3) == b'\xef\xbb\xbf'
        reason = ('it begins with a byte order mark: save it as UTF-8 '
                  'without one' if mark else f'it is not JSON ({error})')
    except OSError as error:
        reason = f'it cannot be read ({error.strerror})'
    if reason:
        raise _no_coco(path, reason)
    if not isinstance(content, dict):
        raise _no_coco(path, f'it holds a {type(content).__name__}: write '
                       '{"images": [...], "annotations": [...], '
                       '"categories": [...]}')
    for key in ('images', 'annotations', 'categories'):
        # An absent list of annotations is an empty one.
        value = content.setdefault(key, []) if (
            key == 'annotations') else content.get(key)
        if not isinstance(value, list):
            raise _no_coco(path, f'its {key!r} is no list' if key in content
                           else f'it has no {key!r}')
        for place, one in enumerate(value):
            if not isinstance(one, dict):
                raise _no_coco(path, f'number {place} of its {key!r} is '
                               f'{one!r}, which is no object')
    return content


def _no_coco(path, reason):
    return UserError(f'{path} is not a COCO annotation file: {reason}')


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
        state = _state(path)
        file = _columns(path, parse(path), masks)
    finally:
        if enabled:
            gc.enable()
    _LACKING[state, masks] = set(file.lacking) | {
        'mask' for kind, _ in file.masks.values() if kind in LEFT_OUT}
    return file


def _state(path):
    try:
        stat = os.stat(path)
    except OSError:
        return path
    return os.path.realpath(path), stat.st_size, stat.st_mtime_ns


def lacking(path, masks):
    """Keys that a file lacks, without reading it again if that is known.

    Args:
        path (str): The file.
        masks (bool): Whether masks are used.

    Returns:
        set[str]: Some of 'area', 'iscrowd', 'id', 'bbox' and 'mask'.
    """
    state = _state(path)
    if (state, True) not in _LACKING and (state, masks) not in _LACKING:
        try:
            read_coco(path, masks)
        except UserError:
            return set()  # the check has said so
    found = _LACKING.get((state, True), _LACKING.get((state, masks), set()))
    return found if masks else found - {'mask'}


def _columns(path, content, masks):
    categories = [_category(path, one) for one in content['categories']]
    rows = [_image(path, one) for one in content['images']]
    images = list({one[0]: one for one in rows}.values())
    report = _Report(path)
    _doubles(report, rows)
    entries = content['annotations']
    place = {one[0]: at for at, one in enumerate(images)}
    entries = _sound(report, entries, place, images)

    image = np.array([place.get(one['image_id'], -1) for one in entries], int)
    listed = {one[0]: at for at, one in enumerate(categories)}
    category = np.array(
        [listed.get(one['category_id'], -1) for one in entries], int)
    named = _Names(entries, image, images)
    ids = [one['id'] for one in entries]
    report('duplicate annotation id', several_of(ids), lambda value: (
        f'annotation id {value!r} is there more than once'),
        f'{len(ids)} annotations', 'mm refuses the file: number them')
    _orphans(report, entries, image, place, named)
    lost = np.flatnonzero(category < 0)
    unknown = _text(entries, lost, 'category_id', listed)
    boxes, looked, kept = _boxes(report, entries, image, images, named)
    known = image >= 0
    return CocoFile(
        path, categories, images, image, category, boxes, kept,
        np.array([bool(one.get('iscrowd')) for one in entries], bool),
        named, unknown,
        mask_faults(entries, np.flatnonzero(known), image, images)
        if masks else {}, _lacking(entries, known, looked), report.findings)


class _Report:
    """Collects findings on a file."""

    def __init__(self, path):
        self.path, self.findings = path, []

    def __call__(self, kind, names, text, total, remedy, error=True):
        """Text: of the first name, what is wrong with it."""
        if names:
            self.findings.append(Finding(
                kind, f'{self.path}: {text(names[0])}: {len(names)} of '
                f'{total}; {remedy}', names, error))


class _Names:
    """Names of annotations, with their image."""

    def __init__(self, entries, image, images):
        self.ids = [one['id'] for one in entries]
        self.of = [one['image_id'] for one in entries]
        self.image, self.images = image, images

    def __call__(self, which):
        return [self.name(at) for at in np.flatnonzero(which)]

    def name(self, at):
        file = (f' ({self.images[self.image[at]][1]})'
                if self.image[at] >= 0 else '')
        return (f'annotation {self.ids[at]!r} of image '
                f'{self.of[at]!r}{file}')


def _category(path, one):
    if not ('id' in one and 'name' in one and type(one['id']) in _KEYS
            and type(one['name']) in _KEYS):
        raise _no_coco(path, f'category {one!r} has no id and name')
    return one['id'], one['name']


def _image(path, one):
    number, name = one.get('id'), one.get('file_name')
    width, height = one.get('width'), one.get('height')
    if 'id' in one and type(number) in _KEYS and isinstance(name, str) and (
            type(width) in _NUMBERS and type(height) in _NUMBERS):
        return number, name, width, height
    raise _no_coco(
        path, f'image {number!r} has the file_name {name!r}, width {width!r} '
        f'and height {height!r}: mm needs an id, a text and two numbers'
        + _hint(width, height))


def _hint(*values):
    text = next((one for one in values if isinstance(one, str)), None)
    return '' if text is None else f' (write {text}, not {text!r})'


def several_of(values):
    if len(set(values)) == len(values):
        return []
    return [one for one, count in Counter(values).items() if count > 1]


def _doubles(report, rows):
    number, distinct = f'{len(rows)} images', set(rows)
    several = several_of([one[0] for one in distinct])
    same = [one for one in several_of([one[0] for one in rows])
            if one not in set(several)]
    for kind, values, remedy in (
            ('duplicate image id', several, 'mm uses the last of them with '
             'the annotations of all: number them'),
            ('image listed twice', same, 'mm uses it once')):
        report(kind, values, lambda value: (
            f'image id {value!r} is there more than once'), number, remedy,
            values is several)
    report('duplicate file name', several_of(
        [one[1] for one in distinct]), lambda value: (
        f'file_name {value!r} is there more than once'), number,
        'each is used as if it had its own annotations alone: join them',
        False)
    flat = [row[1] for row in rows if min(row[2:]) <= 0]
    report('image without size', flat, lambda name: (
        f'{name!r} has no width or height above 0'), number,
        'mm leaves out its annotations: write the size of the image',
        many(len(flat), len(rows)))


def _sound(report, entries, place, images):
    """Entries that mm can parse."""
    sound, names, text = [], [], ''
    for at, one in enumerate(entries):
        fault = _fault(one, place)
        if not fault:
            sound.append(one)
            continue
        text = text or fault
        image = one.get('image_id')
        file = (f' ({images[place[image]][1]})'
                if type(image) in _KEYS and image in place else '')
        names.append((f'annotation {one["id"]!r}' if 'id' in one else
                      f'annotation number {at}')
                     + f' of image {image!r}{file}')
    report('malformed annotation', names, lambda name: f'{name} has {text}',
           f'{len(entries)} annotations', 'mm would fail on it: correct it')
    wrong = [one for one in sound if isinstance(one.get('iscrowd'), str)
             and one['iscrowd'] != '1']
    report('iscrowd as text', [f'annotation {one["id"]!r}' for one in wrong],
           lambda name: f'{name} has iscrowd {wrong[0]["iscrowd"]!r}',
           f'{len(entries)} annotations', 'mm takes it for a crowd, which is '
           "not trained on: write 0, not '0'")
    return sound


def _fault(entry, place):
    """What mm would fail on; '' if nothing."""
    for key in ('id', 'image_id', 'category_id'):
        if key not in entry:
            return f'no {key}'
        if type(entry[key]) not in _KEYS:
            return f'the {key} {entry[key]!r}'
    if entry['image_id'] not in place or entry.get('ignore'):
        return ''  # mm leaves it out before it looks at more
    box = entry.get('bbox')
    if not is_box(box):
        return (f'the bbox {box!r}, which is not four finite numbers'
                + _hint(*box if isinstance(box, list) else ())
                if 'bbox' in entry else 'no bbox')
    area = entry.get('area')
    if area is not None and type(area) not in _NUMBERS:
        return f'the area {area!r}, which is no number' + _hint(area)
    return ''


def is_box(box):
    if type(box) is not list or len(box) != 4:
        return False
    x, y, w, h = box
    if not (type(x) in _NUMBERS and type(y) in _NUMBERS
            and type(w) in _NUMBERS and type(h) in _NUMBERS):
        return False
    # mm leaves NaN out.
    return float('inf') not in box and -float('inf') not in box


def _orphans(report, entries, image, place, named):
    lost = np.flatnonzero(image < 0)
    text, as_text = _text(entries, lost, 'image_id', place)
    report('annotation of no image', named(image < 0), lambda name: (
        f'{name} has {text}'), f'{len(entries)} annotations',
        'mm leaves it out' + ('' if as_text else ': correct image_id, if it '
                              'is not the annotation of a deleted image'),
        as_text or len(lost) == len(entries))


def _text(entries, lost, key, known):
    """What the first unknown id is, and whether it is one if not text."""
    if not len(lost):
        return '', False
    texts = {str(one): one for one in known}
    for at in lost.tolist():
        value = entries[at][key]
        if str(value) in texts:
            known = texts[str(value)]
            return (f'the {key} {value!r} where the file lists {known!r} '
                    f'(write {known!r}, not {value!r})', True)
    return (f'the {key} {entries[lost[0]][key]!r}, which the file does not '
            'list', False)


def _boxes(report, entries, image, images, named):
    """Boxes, and whether mm looks at an annotation and keeps it."""
    looked = (image >= 0) & ~np.array(
        [bool(one.get('ignore')) for one in entries], bool)
    nothing = [np.nan] * 4
    boxes = np.array([one['bbox'] if is_box(one.get('bbox')) else nothing
                      for one in entries], float).reshape(-1, 4)
    x, y, w, h = boxes.T
    area = np.array([one['area'] if type(one.get('area')) in _NUMBERS
                     else 1 for one in entries], float)
    sizes = np.array([one[2:] for one in images] + [(0, 0)], float)[image]
    width, height = sizes.T
    number = np.isfinite(boxes).all(1)
    bad = looked & ~number
    negative = looked & number & ((w < 0) | (h < 0))
    empty = looked & number & ~negative & ((w < 1) | (h < 1) | (area <= 0))
    right, bottom = x + w, y + h
    away = looked & number & ~negative & ~empty & (
        (right <= 0) | (bottom <= 0) | (x >= width) | (y >= height))
    kept = looked & number & ~negative & ~empty & ~away
    beyond = kept & ((x < -TOLERANCE) | (y < -TOLERANCE)
                     | (right > width + TOLERANCE)
                     | (bottom > height + TOLERANCE))
    total = f'{len(entries)} annotations'
    for kind, which, text, remedy in (
            ('box of NaN', bad, '', 'mm leaves it out'),
            ('box of negative size', negative, '', 'mm leaves it out'),
            ('empty box', empty, '', 'mm leaves out a box or an area below '
             'one pixel'),
            ('box outside', away, ' outside of', 'mm leaves it out'),
            ('box partly outside', beyond, ' that reaches out of', '')):
        found = np.flatnonzero(which)
        if len(found):
            at = found[0]
            inside = (f'{text} its image of {width[at]:g}x{height[at]:g}'
                      if text else '')
            value = f'the bbox {entries[at]["bbox"]!r}{inside}' + (
                f' and the area {entries[at].get("area")!r}'
                if kind == 'empty box' else '')
            report(kind, named(which),
                   lambda name, value=value: f'{name} has {value}', total,
                   (f'{remedy}: ' if remedy else '')
                   + 'boxes are [x, y, width, height] in pixels',
                   many(len(found), len(entries)))
    return boxes, looked, kept


def _lacking(entries, known, looked):
    """Places of annotations without what COCO's evaluation needs."""
    lacking = {key: [] for key in ('area', 'iscrowd', 'id', 'bbox')}
    for at in np.flatnonzero(known).tolist():
        entry = entries[at]
        if type(entry.get('area')) not in _NUMBERS:
            lacking['area'].append(at)
        if entry.get('iscrowd') is None:
            lacking['iscrowd'].append(at)
        if not is_number(entry['id']):
            lacking['id'].append(at)
        if not looked[at] and not is_box(entry.get('bbox')):
            lacking['bbox'].append(at)
    return {key: places for key, places in lacking.items() if places}


def is_number(value):
    """Whether COCO's evaluation can tell an id from 'not found', its 0."""
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return False
    return type(value) in (int, float) and value != 0
