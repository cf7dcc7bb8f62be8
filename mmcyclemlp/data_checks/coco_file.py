"""Read COCO annotation files and find what mm fails on or drops."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .masks import DROPPED, TOLERANCE, many, mask_faults
from .report import Report

_NUMBERS = (int, float, bool)
_KEYS = (int, float, bool, str, type(None))  # of JSON, what can be hashed
_LACKING = {}  # by the state of a file and whether its masks were read


class CocoFile(NamedTuple):
    """What the checks need of a file; the rest is not kept in memory.

    Attributes:
        path (str): The file.
        categories (list): (id, name) in the order of the file.
        images (list): (id, file name, width, height), each id once, as in
            mm.
        image (np.ndarray): (N, ) For each annotation the place of its image,
            -1 if there is none.
        category (np.ndarray): (N, ) The same for its category.
        boxes (np.ndarray): (N, 4) Its box, NaN where mm reads none.
        kept (np.ndarray): (N, ) Whether mm keeps the annotation if its
            category is among the classes.
        crowd (np.ndarray): (N, ) Whether it is a crowd, which mm does not
            train on.
        annotations (Annotations): Names of the annotations.
        unknown (list): Each ``category_id`` that the file does not list.
        masks (dict): By the place of an annotation, the kind of fault of its
            mask and a text on it.
        lacking (set): Keys of COCO's evaluation that annotations lack.
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
    annotations: Annotations
    unknown: list
    masks: dict
    lacking: set
    findings: list


class Annotations:
    """Names of the annotations of a file.

    Args:
        path (str): The file.
        entries (list[dict]): Its annotations.
        images (list): (id, file name, ...) of its images.
    """

    def __init__(self, path, entries, images):
        self.path = path
        self.ids = [(one.get('id'), one.get('image_id')) for one in entries]
        self.files = {one[0]: one[1] for one in images}

    def name(self, place: int) -> str:
        """Return the name of the annotation in this place."""
        number, image = self.ids[place]
        file = self.files.get(image) if type(image) in _KEYS else None
        return f'annotation {number!r} of image {image!r}' + (
            '' if file is None else f' ({file})')

    def add_to(self, report: Report, kind: str, places, text: str,
               remedy: str, error: bool = True) -> None:
        """Report annotations, if there are any.

        Args:
            report (Report): Where to add them.
            kind (str): Kind of the finding.
            places (Sequence[int]): Places of the annotations.
            text (str): What the first of them has.
            remedy (str): What mm does about them, and what to do.
            error (bool): Whether it is an error. Default: True.
        """
        if len(places):
            names = [self.name(place) for place in places]
            report.add(
                kind, f'{self.path}: {names[0]} has {text}: {len(names)} of '
                f'{len(self.ids)} annotations; {remedy}', names, error)


def parse(path: str) -> dict:
    """Read a file as mm does.

    Raises:
        UserError: It is not a COCO file.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise _not_coco(path, error) from error
    if not isinstance(content, dict):
        raise _not_coco(
            path, f'it holds a {type(content).__name__}: write {{"images": '
            '[...], "annotations": [...], "categories": [...]}')
    content.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        value = content.get(key)
        if not isinstance(value, list) or not all(
                isinstance(one, dict) for one in value):
            raise _not_coco(path, f'its {key!r} is not a list of objects')
    return content


def _not_coco(path, reason):
    return UserError(f'{path} is not a COCO annotation file: {reason}')


def read_coco(path: str, masks: bool) -> CocoFile:
    """Read a file once for all data sets that use it.

    Args:
        path (str): The file.
        masks (bool): Whether masks are used, and so are checked.

    Raises:
        UserError: It is not a COCO file.
    """
    # The collector takes half of the time, and there is no garbage.
    enabled = gc.isenabled()
    gc.disable()
    try:
        state = _state(path)
        file = _columns(path, parse(path), masks)
    finally:
        if enabled:
            gc.enable()
    _LACKING[state, masks] = file.lacking | {
        'mask' for kind, _ in file.masks.values() if kind == DROPPED}
    return file


def _state(path):
    try:
        stat = os.stat(path)
    except OSError:
        return path
    return os.path.realpath(path), stat.st_size, stat.st_mtime_ns


def lacking(path: str, masks: bool) -> set[str]:
    """Return the keys that a file lacks; read it only if it is unknown.

    Args:
        path (str): The file.
        masks (bool): Whether masks are used.

    Returns:
        set[str]: Some of 'area', 'iscrowd', 'id' and 'mask'.
    """
    state = _state(path)
    if (state, True) not in _LACKING and (state, masks) not in _LACKING:
        try:
            read_coco(path, masks)
        except UserError:
            return set()  # the check has reported it
    found = _LACKING.get((state, True), _LACKING.get((state, masks), set()))
    return found if masks else found - {'mask'}


def _columns(path, content, masks):
    categories = [_category(path, one) for one in content['categories']]
    rows = [_image(path, one) for one in content['images']]
    images = list({row[0]: row for row in rows}.values())
    report = Report()
    # The same entry twice does no harm.
    several = several_of([row[0] for row in set(rows)])
    if several:
        report.error(
            'duplicate image id', f'{path}: image id {several[0]!r} is there '
            f'more than once: {len(several)} of {len(rows)} images; mm uses '
            'the last of them with the annotations of all: number them',
            several)
    place = {row[0]: at for at, row in enumerate(images)}
    entries = _well_formed(report, path, content['annotations'], place,
                           images)
    named = Annotations(path, entries, images)
    image = np.array([place.get(one['image_id'], -1) for one in entries], int)
    listed = {one[0]: at for at, one in enumerate(categories)}
    category = np.array(
        [listed.get(one['category_id'], -1) for one in entries], int)
    texts = [at for at, one in enumerate(entries) if isinstance(
        one.get('iscrowd'), str) and one['iscrowd'] != '1']
    named.add_to(
        report, 'iscrowd as text', texts,
        f'iscrowd {entries[texts[0]]["iscrowd"]!r}' if texts else '',
        "mm takes it for a crowd, which it does not train on: write 0, "
        "not '0'")
    lost = np.flatnonzero(image < 0)
    named.add_to(
        report, 'annotation without image', lost,
        'an image_id that the file does not list', 'mm drops it: correct '
        'image_id, unless the image was deleted', len(lost) == len(entries))
    boxes, kept = _boxes(report, named, entries, image, images)
    return CocoFile(
        path, categories, images, image, category, boxes, kept,
        np.array([bool(one.get('iscrowd')) for one in entries], bool), named,
        [one['category_id'] for one, known in zip(entries, category >= 0)
         if not known],
        mask_faults(entries, image, images) if masks else {},
        _lacking(entries, image), report.findings)


def _category(path, one):
    if not ('id' in one and 'name' in one and type(one['id']) in _KEYS
            and type(one['name']) in _KEYS):
        raise _not_coco(path, f'category {one!r} has no id and name')
    return one['id'], one['name']


def _image(path, one):
    number, name = one.get('id'), one.get('file_name')
    width, height = one.get('width'), one.get('height')
    if 'id' in one and type(number) in _KEYS and isinstance(name, str) and (
            type(width) in _NUMBERS and type(height) in _NUMBERS):
        return number, name, width, height
    raise _not_coco(
        path, f'image {number!r} has the file_name {name!r}, width {width!r} '
        f'and height {height!r}: mm needs an id, a text and two numbers')


def several_of(values: list) -> list:
    """Return the values that are there more than once."""
    if len(set(values)) == len(values):
        return []
    return [one for one, count in Counter(values).items() if count > 1]


def _well_formed(report, path, entries, place, images):
    """Return the entries that mm can parse; report the others."""
    faults = [_fault(one, place) for one in entries]
    places = [at for at, fault in enumerate(faults) if fault]
    if not places:
        return entries
    Annotations(path, entries, images).add_to(
        report, 'malformed annotation', places, faults[places[0]],
        'mm fails on it: correct it')
    return [one for one, fault in zip(entries, faults) if not fault]


def _fault(entry, place):
    """Return what mm fails on, '' if nothing."""
    for key in ('id', 'image_id', 'category_id'):
        if key not in entry:
            return f'no {key}'
        if type(entry[key]) not in _KEYS:
            return f'the {key} {entry[key]!r}'
    if entry['image_id'] not in place or entry.get('ignore'):
        return ''  # mm drops it before it reads more
    if not is_box(entry.get('bbox')):
        return (f'the bbox {entry.get("bbox")!r}, which is not four finite '
                'numbers')
    area = entry.get('area')
    if area is not None and type(area) not in _NUMBERS:
        return f'the area {area!r}, which is not a number'
    return ''


def is_box(box: object) -> bool:
    """Whether a value is a list of four numbers that are not infinite."""
    if type(box) is not list or len(box) != 4:
        return False
    x, y, w, h = box
    if not (type(x) in _NUMBERS and type(y) in _NUMBERS
            and type(w) in _NUMBERS and type(h) in _NUMBERS):
        return False
    # mm drops NaN.
    return float('inf') not in box and -float('inf') not in box


def _boxes(report, named, entries, image, images):
    """Return boxes and whether mm keeps them; report those it does not."""
    nothing = [np.nan] * 4
    boxes = np.array([one['bbox'] if is_box(one.get('bbox')) else nothing
                      for one in entries], float).reshape(-1, 4)
    x, y, w, h = boxes.T
    area = np.array([one['area'] if type(one.get('area')) in _NUMBERS
                     else 1 for one in entries], float)
    # The last is for annotations of no image, whose place is -1.
    width, height = np.array(
        [one[2:] for one in images] + [(0, 0)], float)[image].T
    looked = (image >= 0) & ~np.array(
        [bool(one.get('ignore')) for one in entries], bool)
    kept = (looked & (w >= 1) & (h >= 1) & (area > 0) & (x + w > 0)
            & (y + h > 0) & (x < width) & (y < height))
    beyond = kept & ((x < -TOLERANCE) | (y < -TOLERANCE)
                     | (x + w > width + TOLERANCE)
                     | (y + h > height + TOLERANCE))
    form = 'boxes are [x, y, width, height] in pixels'
    for kind, which, remedy in (
            ('box that mm drops', looked & ~kept, 'mm drops boxes outside '
             f'of the image, with NaN or of less than one pixel: {form}'),
            ('box partly outside', beyond, form)):
        found = np.flatnonzero(which)
        if len(found):
            at = found[0]
            named.add_to(
                report, kind, found, f'the bbox {entries[at]["bbox"]!r} and '
                f'the area {entries[at].get("area")!r} in an image of '
                f'{width[at]:g}x{height[at]:g}', remedy,
                many(len(found), len(entries)))
    return boxes, kept


def _lacking(entries, image):
    """Return the keys of the evaluation that some annotations lack."""
    known = [one for one, place in zip(entries, image.tolist()) if place >= 0]
    found = dict(
        area=all(type(one.get('area')) in _NUMBERS for one in known),
        iscrowd=all(one.get('iscrowd') is not None for one in known),
        id=all(is_number(one['id']) for one in known))
    return {key for key, complete in found.items() if not complete}


def is_number(value: object) -> bool:
    """Whether COCO's evaluation can tell an id from 'not found', its 0."""
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return False
    return type(value) in (int, float) and value != 0
