"""Check images and label maps: do they exist, can mm read them as meant."""

from __future__ import annotations

import io
import os
import os.path as osp
from collections.abc import Sequence
from typing import NamedTuple

import mmcv
import numpy as np
from PIL import Image

from .report import Report
from .sources import Source


class Sample(NamedTuple):
    """An image and what is known about it.

    Attributes:
        image (str): Its file.
        size (tuple | None): Width and height of the annotations.
        label_map (str | None): File of the label map, if there is one.
        index (int): Its place in the data set that mm builds.
        reach (tuple): Largest x and y of its boxes.
    """

    image: str
    size: tuple | None
    label_map: str | None
    index: int
    reach: tuple


class Look(NamedTuple):
    """How many files to open, and how.

    Attributes:
        number (int | None): How many files of a data set to open, spread
            evenly; None for all.
        workers (int): Processes that open files, 0 for this one.
        bar (bool): Whether to draw a progress bar on stderr.
    """

    number: int | None = None
    workers: int = 0
    bar: bool = False


def absent(paths: Sequence[str]) -> list[str]:
    """Return the paths that do not exist.

    Folders are listed once, because a look at each file takes minutes.
    """
    inside = {}
    for folder in {osp.dirname(path) for path in paths}:
        try:
            inside[folder] = set(os.listdir(folder or '.'))
        except OSError:
            inside[folder] = set()
    return [path for path in paths
            if osp.basename(path) not in inside[osp.dirname(path)]]


def spread(items: Sequence, number: int | None) -> Sequence:
    """Return a number of items from everywhere in a list, always the same."""
    if number is None or len(items) <= number:
        return items
    return [items[place * len(items) // number] for place in range(number)]


def decode(content: bytes, flag: str, backend: str) -> np.ndarray:
    """Decode as mm does, and refuse what ends too early.

    OpenCV before 4.11 fills the missing part of a JPEG with gray, and Pillow
    reads a PNG without its end.

    Args:
        content (bytes): Of the file.
        flag (str): 'color', 'unchanged' or another flag of mmcv.
        backend (str): 'cv2', 'pillow' or another backend of mmcv.

    Returns:
        np.ndarray: (H, W, 3) in BGR, or as the file has it.

    Raises:
        Exception: It is damaged or no image; of what kind depends on the
            decoder.
    """
    if not content:
        raise ValueError('the file is empty')
    image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    if image is None:
        raise ValueError('it is truncated or no image')
    check_whole(content)
    return image


def check_whole(content: bytes) -> None:
    """Refuse a JPEG or PNG that ends too early.

    Args:
        content (bytes): Of the file.

    Raises:
        Exception: It is damaged; of what kind depends on the decoder.
    """
    if content.startswith(b'\xff\xd8'):
        # The last scan of a JPEG is followed by an end marker, and neither
        # can stand inside of a scan.
        if content.rfind(b'\xff\xda') > content.rfind(b'\xff\xd9'):
            Image.open(io.BytesIO(content)).load()
    elif content.startswith(b'\x89PNG') and b'IEND' not in content[-1024:]:
        raise ValueError('it is truncated')


def check_opened(report: Report, source: Source, opened: list) -> None:
    """Report what cannot be read, has a wrong size, or is changed by loading.

    Args:
        report (Report): Where to add it.
        source (Source): The data set.
        opened (list[Opened]): Its samples that were opened.
    """
    def add(kind, found, text, remedy, file='image', error=True):
        if found:
            names = [getattr(one.sample, file) for one in found]
            report.add(kind, f'{names[0]} {text(found[0])}: {len(found)} of '
                       f'{len(opened)} {file.replace("_", " ")}s that were '
                       f'opened; {remedy}', names, error)

    add('undecodable image', [one for one in opened if one.fault],
        lambda one: f'cannot be decoded ({one.fault})',
        'replace it or remove it')
    add('undecodable label map', [one for one in opened if one.label_fault],
        lambda one: f'cannot be decoded ({one.label_fault})',
        'replace it or remove it', 'label_map')
    add('label map in color', [
        one for one in opened if one.label_channels > 1], lambda one: (
            f'has {one.label_channels} channels, and a label map has one'),
        'write the index of the class of each pixel in place of its color, '
        'or add a transform that does so' + by_pillow(source), 'label_map')
    add('pipeline that fails', [one for one in opened if one.failure],
        lambda one: f'makes {source.option}.pipeline fail ({one.failure})',
        'correct the transform or its data')
    _check_sizes(source, opened, add)
    add('image that mm turns', [one for one in opened if one.turned],
        lambda one: 'has an EXIF orientation, by which mm turns it',
        'annotations must be for the turned image; else set '
        + _upright(source), error=False)
    deep = [one for one in opened if one.deep]
    black = all(one.darkest for one in deep)
    add('image of 16 bits', deep, lambda one: (
        'has 16 bits per channel, and mm keeps the upper 8'
        + (', which are (nearly) 0' if black else '')),
        "to keep all, set color_type='unchanged' in LoadImageFromFile and "
        'use mean and std of that range; or save images of 8 bits',
        error=black)


def by_pillow(source: Source) -> str:
    """Return a sentence on the decoder that reads a palette or 1 bit."""
    used = source.transform('LoadAnnotations').get('imdecode_backend',
                                                   'pillow')
    return '' if used == 'pillow' else (
        '. If the files have a palette or 1 bit, set imdecode_backend='
        f"'pillow' in LoadAnnotations: {used} does not read the indices")


def _check_sizes(source, opened, add):
    wrong = [one for one in opened if one.size and one.sample.size
             and one.size != one.sample.size]
    masks = source.transform('LoadAnnotations').get('with_mask')
    fits = [not masks and _boxes_fit(one) for one in wrong]
    # The message names the first whose boxes do not fit.
    wrong = [wrong[at] for at in np.argsort(fits, kind='stable')]
    add('image of another size', wrong, lambda one: (
        f'is {_by(one.size)}, and {_by(one.sample.size)} in the '
        f'annotations{_why(source, one)}'),
        'correct width and height, or the boxes and masks are for another '
        'image', error=not all(fits))
    add('label map of another size', [
        one for one in opened if one.size and one.label_size
        and one.size != one.label_size], lambda one: (
            f'is {_by(one.label_size)}, and its image {_by(one.size)}'
            f'{_why(source, one)}'),
        'a label map needs one label for each pixel of its image',
        'label_map')


def _why(source, one):
    return (' because mm turns the image by its EXIF orientation (to stop '
            f'that, set {_upright(source)})' if one.turned else '')


def _upright(source):
    flag = source.transform('LoadImageFromFile').get('color_type', 'color')
    return f"color_type='{flag}_ignore_orientation' in LoadImageFromFile"


def _boxes_fit(one):
    """Whether boxes are for the image as it is, not for a scaled one."""
    (width, height), (wide, high) = one.size, one.sample.size
    if abs(width - wide) <= 1 and abs(height - high) <= 1:
        return True
    right, bottom = one.sample.reach
    scaled = abs(width / wide - height / high) < .01 * width / wide
    return not (scaled or one.turned or right > width + 1
                or bottom > height + 1)


def _by(size):
    return f'{size[0]}x{size[1]}'
