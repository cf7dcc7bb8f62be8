"""Masks of COCO annotation files."""

from .findings import Finding

# Boxes and masks may leave the image by a pixel: they are rounded.
TOLERANCE = 1
# COCO itself has a few boxes that mm leaves out. Where there are more of
# them, boxes are of another form.
_SHARE = 0.05
# Of a small file, so many say nothing.
_FEW = 2


def many(number, total):
    """Whether so many of a kind are no accident."""
    return number > max(_FEW, _SHARE * total)


# What is done about it, and whether a single one is an error.
_FAULTS = {
    'missing mask': ('mm would fail in a step: add the mask', True),
    'unreadable mask': (
        'mm would fail or hang in a step: write polygons [[x, y, x, y, ...]] '
        'or a run-length code {"size": ..., "counts": ...}', True),
    'mask of another size': (
        'mm would fail in a step: encode it for [height, width] of '
        'its image', True),
    'malformed mask': (
        'mm leaves it out: a polygon has six or more numbers, x and y in '
        'turn', False),
    'mask outside': ('mm trains on it as an empty one: correct it', False),
    'mask partly outside': ('mm cuts it off', False),
    'malformed part of a mask': (
        'mm leaves that part out: a polygon has six or more numbers, x and '
        'y in turn', False),
}
# Of these, COCO's evaluation reads no mask.
UNREAD = ('missing mask', 'unreadable mask', 'mask of another size')
# pycocotools may take all memory and time for these.
HANGS = frozenset(('unreadable mask', ))
LEFT_OUT = ('malformed mask', 'malformed part of a mask')


def mask_faults(entries, places, image, images):
    """Find what is wrong with masks.

    Args:
        entries (list): The annotations.
        places (Sequence[int]): Which of them have an image.
        image (np.ndarray): The place of the image of each.
        images (list): (id, file name, width, height).

    Returns:
        dict: By the place of an annotation, a kind and a text.
    """
    faults = {}
    for at in places.tolist():
        fault = _fault(entries[at].get('segmentation'),
                       *images[image[at]][2:])
        if fault:
            faults[at] = fault
    return faults


def check_masks(file, which):
    """Report the masks of some annotations.

    Args:
        file (CocoFile): The file.
        which (np.ndarray): For each annotation, whether its mask is used.

    Yields:
        Finding: What is wrong.
    """
    for kind, (remedy, error) in _FAULTS.items():
        places = [at for at, fault in file.masks.items()
                  if fault[0] == kind and which[at]]
        if places:
            names = [file.named.name(at) for at in places]
            yield Finding(
                kind, f'{file.path}: {names[0]} has '
                f'{file.masks[places[0]][1]}: {len(places)} of {len(which)} '
                f'annotations; {remedy}', names,
                error or many(len(places), len(which)))


def taken(mask):
    """What mm takes of a mask when it trains; None if it leaves it out."""
    if isinstance(mask, list):
        return [one for one in mask
                if len(one) >= 6 and len(one) % 2 == 0] or None
    return mask if isinstance(mask.get('counts'), (list, str)) and (
        mask.get('size') is not None) else None


def _fault(mask, width, height):
    if not mask:
        return 'missing mask', ('no segmentation' if mask is None
                                else f'the segmentation {mask!r}')
    if isinstance(mask, dict):
        return _run_length_fault(mask, [height, width])
    if not isinstance(mask, list) or not all(
            isinstance(one, (list, dict)) for one in mask):
        return 'unreadable mask', _text(mask)
    polygons = taken(mask)
    if polygons is None:
        return 'malformed mask', _text(mask)
    try:
        left, top, right, bottom = _bounds(polygons)
    except (TypeError, ValueError, KeyError):
        return 'unreadable mask', _text(mask)
    if len(polygons) < len(mask):
        return 'malformed part of a mask', _text(mask)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return 'mask outside', (f'{_text(mask)} outside of its image of '
                                f'{width:g}x{height:g}')
    if (left < -TOLERANCE or top < -TOLERANCE
            or right > width + TOLERANCE or bottom > height + TOLERANCE):
        return 'mask partly outside', (
            f'{_text(mask)} that reaches out of its image of '
            f'{width:g}x{height:g}')
    return None


def _bounds(polygons):
    """The box around polygons, without the time that NumPy takes."""
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


def _run_length_fault(mask, size):
    if taken(mask) is None:
        return 'malformed mask', (
            f'a segmentation of {_short(list(mask))}, without "size" and '
            '"counts"')
    counts, own = mask['counts'], mask['size']
    if not (isinstance(own, list) and len(own) == 2
            and all(type(one) in (int, float) for one in own)):
        return 'unreadable mask', f'a run-length code of size {_short(own)}'
    if isinstance(counts, list):
        if not all(type(one) in (int, float) and one >= 0 for one in counts):
            return 'unreadable mask', f'the run lengths {_short(counts)}'
        if sum(counts) != own[0] * own[1]:
            return 'unreadable mask', (
                f'run lengths of {sum(counts)} pixels and the size '
                f'{own}')
    if own != size:
        return 'mask of another size', (
            f'a run-length code of size {own} in an image '
            f'of [height, width] {size}')
    return None


def _text(mask):
    return f'the segmentation {_short(mask)}'


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:60]}...'
