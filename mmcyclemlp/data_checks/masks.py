"""Find masks of COCO files that mm fails on, hangs on or drops."""

from __future__ import annotations

import numpy as np

from .report import Report

# Boxes and masks may leave the image by a pixel: they are rounded.
TOLERANCE = 1
# COCO itself has a few boxes that mm drops. Where there are more of them,
# boxes are of another form.
_SHARE = 0.05
# Of a small file, so many are no sign of that.
_FEW = 2


def many(number: int, total: int) -> bool:
    """Whether there are too many of a kind for an accident."""
    return number > max(_FEW, _SHARE * total)


# pycocotools may take all memory and time for these.
HANGS = 'unreadable mask'
DROPPED = 'malformed mask'
# What is done about it, and whether a single one is an error.
_FAULTS = {
    'missing mask': ('mm fails in a step: add the mask', True),
    HANGS: (
        'mm fails or hangs in a step: write polygons [[x, y, x, y, ...]] or '
        'a run-length code {"size": ..., "counts": ...}', True),
    'mask of another size': (
        'mm fails in a step: encode it for [height, width] of its image',
        True),
    DROPPED: ('mm drops polygons that do not have x and y of three or more '
              'points', False),
    'mask outside': ('mm trains on it as an empty one: correct it', False),
}
# COCO's evaluation cannot read these.
UNREAD = ('missing mask', HANGS, 'mask of another size')


def mask_faults(entries: list, image: np.ndarray, images: list) -> dict:
    """Find what is wrong with masks.

    Args:
        entries (list): The annotations.
        image (np.ndarray): The place of the image of each, -1 if none.
        images (list): (id, file name, width, height).

    Returns:
        dict: By the place of an annotation, a kind and a text.
    """
    faults = {}
    for at in np.flatnonzero(image >= 0).tolist():
        fault = _fault(entries[at].get('segmentation'),
                       *images[image[at]][2:])
        if fault:
            faults[at] = fault
    return faults


def check_masks(report: Report, file, which: np.ndarray) -> None:
    """Report the masks of some annotations.

    Args:
        report (Report): Where to add what is wrong.
        file (CocoFile): The file.
        which (np.ndarray): (N, ) Whether the mask of each is used.
    """
    for kind, (remedy, error) in _FAULTS.items():
        places = [at for at, fault in file.masks.items()
                  if fault[0] == kind and which[at]]
        if places:
            file.annotations.add_to(
                report, kind, places, file.masks[places[0]][1], remedy,
                error or many(len(places), len(which)))


def trained_part(mask: list | dict) -> list | dict | None:
    """Return what mm trains on of a mask, None if it drops all of it."""
    if isinstance(mask, list):
        return [one for one in mask
                if len(one) >= 6 and len(one) % 2 == 0] or None
    return mask if isinstance(mask.get('counts'), (list, str)) and (
        mask.get('size') is not None) else None


def _fault(mask, width, height):
    if not mask:
        return 'missing mask', f'the segmentation {mask!r}'
    text = f'the segmentation {_short(mask)}'
    if isinstance(mask, dict):
        return _run_length_fault(mask, [height, width], text)
    if not isinstance(mask, list) or not all(
            isinstance(one, (list, dict)) for one in mask):
        return HANGS, text
    polygons = trained_part(mask)
    if polygons is None:
        return DROPPED, text
    try:
        left, top, right, bottom = _bounds(polygons)
    except (TypeError, ValueError, KeyError):
        return HANGS, text
    if len(polygons) < len(mask):
        return DROPPED, text
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return 'mask outside', (
            f'{text} outside of its image of {width:g}x{height:g}')
    return None


def _bounds(polygons):
    """Return the box around polygons; NumPy takes longer."""
    left = top = float('inf')
    right = bottom = -left
    for polygon in polygons:
        if isinstance(polygon[0], str):
            polygon = [float(one) for one in polygon]  # as mm reads it
        if sum(polygon) * 0 != 0:
            raise ValueError('NaN or infinity')
        x, y = polygon[::2], polygon[1::2]
        left, right = min(left, *x), max(right, *x)
        top, bottom = min(top, *y), max(bottom, *y)
    return left, top, right, bottom


def _run_length_fault(mask, size, text):
    if trained_part(mask) is None:
        return DROPPED, f'{text} without "size" and "counts"'
    counts, own = mask['counts'], mask['size']
    if not (isinstance(own, list) and len(own) == 2
            and all(type(one) in (int, float) for one in own)):
        return HANGS, text
    if isinstance(counts, list) and not (
            all(type(one) in (int, float) and one >= 0 for one in counts)
            and sum(counts) == own[0] * own[1]):
        return HANGS, f'{text} whose counts do not add up to its size'
    if own != size:
        return 'mask of another size', (
            f'a run-length code of size {own} in an image of [height, '
            f'width] {size}')
    return None


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:60]}...'
