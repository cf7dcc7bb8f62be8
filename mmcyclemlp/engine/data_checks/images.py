"""Files of images and label maps: are they there, and can they be read."""

import hashlib
import io
import os
import os.path as osp
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple, Optional

import mmcv
import numpy as np
from mmengine.utils import track_iter_progress
from PIL import Image

from .findings import Finding


class Sample(NamedTuple):
    """An image and what is known about it.

    Attributes:
        image (str): Its file.
        size (tuple | None): Width and height that the annotations give.
        label_map (str | None): File of the label map, if there is one.
    """

    image: str
    size: Optional[tuple] = None
    label_map: Optional[str] = None


class Look(NamedTuple):
    """How closely to look.

    Attributes:
        number (int | None): How many files of a data set to open, spread
            evenly; None for all.
        workers (int): Processes that open files, 0 for this one.
        bar (bool): Whether to draw a progress bar on stderr.
    """

    number: Optional[int] = None
    workers: int = 0
    bar: bool = False


class Opened(NamedTuple):
    """What was found in the files of a sample.

    Attributes:
        sample (Sample): The sample.
        digest (bytes): Hash of the image's file.
        size (tuple | None): Width and height of the image.
        fault (str): Why it cannot be read; '' if it can.
        label_size (tuple | None): Width and height of the label map.
        label_fault (str): Why that cannot be read; '' if it can.
        pixels (dict): How many pixels of the label map have which value.
    """

    sample: Sample
    digest: bytes = b''
    size: Optional[tuple] = None
    fault: str = ''
    label_size: Optional[tuple] = None
    label_fault: str = ''
    pixels: dict = {}


def absent(paths):
    """Those of many files that do not exist.

    Folders are read once: to ask for each file takes minutes.
    """
    inside = {}
    for folder in {osp.dirname(path) for path in paths}:
        try:
            inside[folder] = set(os.listdir(folder or '.'))
        except OSError:
            inside[folder] = set()
    return [path for path in paths
            if osp.basename(path) not in inside[osp.dirname(path)]]


def spread(items, number):
    """A number of items from everywhere in a list, always the same."""
    if number is None or len(items) <= number:
        return items
    return [items[place * len(items) // number] for place in range(number)]


def open_samples(source, samples, look):
    """Open images and label maps as the pipeline of a data set would.

    Yields:
        Finding: What cannot be read or has not the size it should have.

    Returns:
        list[Opened]: What was opened.
    """
    load, annotate = (source.transform('LoadImageFromFile'),
                      source.transform('LoadAnnotations'))
    open_one = partial(
        _open, flag=load.get('color_type', 'color'),
        backend=load.get('imdecode_backend', 'cv2'),
        label_backend=annotate.get('imdecode_backend', 'pillow'))
    opened = list(_opened(open_one, spread(samples, look.number), look))
    yield from _unreadable(
        'undecodable image',
        [(one.sample.image, one.fault) for one in opened if one.fault],
        len(opened))
    yield from _unreadable(
        'undecodable label map',
        [(one.sample.label_map, one.label_fault) for one in opened
         if one.label_fault], len(opened))
    yield from _sizes(opened)
    return opened


def _opened(open_one, samples, look):
    if look.workers:
        with ProcessPoolExecutor(look.workers) as pool:
            results = pool.map(open_one, samples, chunksize=16)
            yield from _with_bar(results, len(samples), look)
    else:
        yield from _with_bar(map(open_one, samples), len(samples), look)


def _with_bar(results, number, look):
    if look.bar and number:
        return track_iter_progress((results, number), file=sys.stderr)
    return results


def _open(sample, flag, backend, label_backend):
    opened = Opened(sample)
    try:
        with open(sample.image, 'rb') as file:
            content = file.read()
        opened = opened._replace(
            digest=hashlib.blake2b(content, digest_size=16).digest())
        opened = opened._replace(size=_size(decode(content, flag, backend)))
    except Exception as error:  # decoders raise what they like
        opened = opened._replace(fault=_reason(error))
    if sample.label_map is None:
        return opened
    try:
        with open(sample.label_map, 'rb') as file:
            labels = decode(file.read(), 'unchanged', label_backend)
        labels = labels.squeeze()
        if labels.ndim != 2:
            raise ValueError(f'it has {labels.shape[-1]} channels, and a '
                             'label map has one')
        values, counts = np.unique(labels, return_counts=True) if (
            labels.dtype != np.uint8) else _count(labels)
        return opened._replace(
            label_size=_size(labels),
            pixels=dict(zip(values.tolist(), counts.tolist())))
    except Exception as error:  # decoders raise what they like
        return opened._replace(label_fault=_reason(error))


def _count(labels):
    counts = np.bincount(labels.ravel(), minlength=256)
    return counts.nonzero()[0], counts[counts > 0]


def _size(image):
    return image.shape[1], image.shape[0]


def _reason(error):
    return ' '.join(f'{error}'.split()) or type(error).__name__


def decode(content, flag, backend):
    """Decode as mm does, and refuse what ends too early.

    OpenCV before 4.11 fills the missing part of a JPEG with grey, and Pillow
    takes a PNG without its end.

    Args:
        content (bytes): Of the file.
        flag (str): 'color', 'unchanged' or what else mmcv knows.
        backend (str): 'cv2', 'pillow' or what else mmcv knows.

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
    if content.startswith(b'\xff\xd8'):
        # The last scan of a JPEG is followed by an end marker, and neither
        # can stand inside of a scan.
        if content.rfind(b'\xff\xda') > content.rfind(b'\xff\xd9'):
            Image.open(io.BytesIO(content)).load()
    elif content.startswith(b'\x89PNG') and b'IEND' not in content[-1024:]:
        raise ValueError('it is truncated')
    return image


def _unreadable(kind, faults, number):
    if faults:
        path, reason = faults[0]
        yield Finding(
            kind, f'{path} cannot be decoded ({reason}): {len(faults)} of '
            f'{number} that were opened; replace it or leave it out',
            [path for path, _ in faults])


def _sizes(opened):
    wrong = [one for one in opened
             if one.size and one.sample.size and one.size != one.sample.size]
    if wrong:
        one = wrong[0]
        turned = ('; it is turned by its EXIF orientation'
                  if one.size == one.sample.size[::-1] else '')
        yield Finding(
            'image of another size',
            f'{one.sample.image} is {_by(one.size)} and by the annotations '
            f'{_by(one.sample.size)}{turned}: {len(wrong)} of {len(opened)} '
            'images that were opened; correct width and height, or the boxes '
            'and masks are for another image',
            [one.sample.image for one in wrong])
    wrong = [one for one in opened if one.size and one.label_size
             and one.size != one.label_size]
    if wrong:
        one = wrong[0]
        yield Finding(
            'label map of another size',
            f'{one.sample.label_map} is {_by(one.label_size)} and its image '
            f'{_by(one.size)}: {len(wrong)} of {len(opened)} label maps that '
            'were opened; make them as large as their images',
            [one.sample.label_map for one in wrong])


def _by(size):
    return f'{size[0]}x{size[1]}'


def check_overlap(split, train, other, what):
    """Images that are trained on and evaluated on as well.

    Args:
        split (str): 'val' or 'test'.
        train (dict): Names of the training images by what makes them equal:
            their path or a hash.
        other (dict): The same of the images of ``split``.
        what (str): Text of what is equal.

    Yields:
        Finding: A remark if all training images are evaluated on, as when
        one tries to overfit.
    """
    common = [key for key in other if key in train]
    if not common:
        return
    key = common[0]
    whole = len(common) == len(train)
    yield Finding(
        f'overlap of train and {split}',
        f'{other[key]} of the {split} data is {what} {train[key]} of the '
        f'train data: {len(common)} of {len(other)} images; '
        + ('fine to see a model overfit, and no evaluation' if whole else
           'leave them out of one, or the evaluation is worth little'),
        [other[key] for key in common], not whole, split)
