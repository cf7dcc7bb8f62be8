"""Files of images and label maps: are they there, and can they be read."""

import io
import os
import os.path as osp
from typing import NamedTuple, Optional

import mmcv
from PIL import Image

from .findings import Finding


class Sample(NamedTuple):
    """An image and what is known about it.

    Attributes:
        image (str): Its file.
        size (tuple | None): Width and height that the annotations give.
        label_map (str | None): File of the label map, if there is one.
        index (int | None): Its place in the data set that mm builds.
        reach (tuple): Largest x and y of its boxes.
    """

    image: str
    size: Optional[tuple] = None
    label_map: Optional[str] = None
    index: Optional[int] = None
    reach: tuple = (0, 0)


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
    check_whole(content)
    return image


def check_whole(content):
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


def check_opened(source, opened):
    """Report what cannot be read, has a wrong size, or is changed by loading.

    Args:
        source (Source): The data set.
        opened (list[Opened]): What was opened of it.

    Yields:
        Finding: What is wrong, or worth knowing.
    """
    for kind, file, fault in (('image', 'image', 'fault'),
                              ('label map', 'label_map', 'label_fault')):
        faults = [(getattr(one.sample, file), getattr(one, fault))
                  for one in opened if getattr(one, fault)]
        if faults:
            path, reason = faults[0]
            yield Finding(
                f'undecodable {kind}',
                f'{path} cannot be decoded ({reason}): {len(faults)} of '
                f'{len(opened)} that were opened; replace it or leave it out',
                [path for path, _ in faults])
    colored = [one for one in opened if one.label_channels > 1]
    if colored:
        one = colored[0]
        yield Finding(
            'label map in color',
            f'{one.sample.label_map} has {one.label_channels} channels, and '
            f'a label map has one: {len(colored)} of {len(opened)} label '
            'maps that were opened; write the index of the class of each '
            'pixel in place of its color, or add a transform that does so'
            + by_pillow(source),
            [one.sample.label_map for one in colored])
    failed = [one for one in opened if one.failure]
    if failed:
        yield Finding(
            'pipeline that fails',
            f'{source.option}.pipeline fails for {failed[0].sample.image} '
            f'({failed[0].failure}): {len(failed)} of {len(opened)} images '
            'that were opened; correct the transform or its data',
            [one.sample.image for one in failed])
    yield from _sizes(source, opened)
    yield from _changes(source, opened)


def by_pillow(source):
    """What else helps where label maps have a palette or 1 bit.

    Args:
        source (Source): The data set.

    Returns:
        str: A sentence; '' if Pillow reads them already.
    """
    given = source.transform('LoadAnnotations').get(
        'imdecode_backend', 'pillow')
    return '' if given == 'pillow' else (
        '. If the files have a palette or 1 bit, set imdecode_backend='
        f"'pillow' in LoadAnnotations: {given} does not read the indices")


def _turned(source):
    """What to do where loading turns an image."""
    return ('mm turns it by its EXIF orientation, and annotations of the '
            f'stored pixels do not fit: set {_upright(source)}, or store the '
            'images upright')


def _upright(source):
    flag = source.transform('LoadImageFromFile').get('color_type', 'color')
    return f"color_type='{flag}_ignore_orientation' in LoadImageFromFile"


def _sizes(source, opened):
    wrong = [one for one in opened if one.size and one.sample.size
             and one.size != one.sample.size]
    masks = source.transform('LoadAnnotations').get('with_mask')
    serious = [one for one in wrong if masks or not _boxes_fit(one)]
    if wrong:
        one = (serious or wrong)[0]
        yield Finding(
            'image of another size',
            f'{one.sample.image} is {_by(one.size)} and by the annotations '
            f'{_by(one.sample.size)}: {len(wrong)} of {len(opened)} '
            'images that were opened; '
            + (_turned(source) if 'orientation' in one.notes else
               'correct width and height, or the boxes and masks are for '
               'another image'),
            [one.sample.image for one in wrong], bool(serious))
    wrong = [one for one in opened if one.size and one.label_size
             and one.size != one.label_size]
    if wrong:
        one = wrong[0]
        yield Finding(
            'label map of another size',
            f'{one.sample.label_map} is {_by(one.label_size)} and its image '
            f'{_by(one.size)}: {len(wrong)} of {len(opened)} label maps that '
            'were opened; '
            + (_turned(source) if 'orientation' in one.notes else
               'each label map needs one label for each pixel of its image'),
            [one.sample.label_map for one in wrong])


def _boxes_fit(one):
    """Whether boxes are for the image as it is, whatever size is given.

    They are not if the image was scaled.
    """
    (width, height), (wide, high) = one.size, one.sample.size
    if abs(width - wide) <= 1 and abs(height - high) <= 1:
        return True
    right, bottom = one.sample.reach
    scaled = abs(width / wide - height / high) < .01 * width / wide
    return not (scaled or 'orientation' in one.notes
                or right > width + 1 or bottom > height + 1)


def _by(size):
    return f'{size[0]}x{size[1]}'


_CHANGES = {
    'orientation': (
        'has an EXIF orientation, by which mm turns it',
        'annotations must be for the turned image; else set {upright}'),
    '16 bits': (
        'has 16 bits per channel, of which mm keeps the upper 8',
        "to keep all, set color_type='unchanged' in LoadImageFromFile, and "
        'mean and std of that range; or store images of 8 bits'),
    'CMYK': (
        'is a CMYK image, which mm converts to BGR',
        'colors may differ from what a viewer shows: store it as RGB'),
    'alpha': (
        'has an alpha channel, which mm drops',
        "transparent pixels show what is stored below them; color_type="
        "'unchanged' in LoadImageFromFile keeps the channel"),
}


def _changes(source, opened):
    for note, (text, remedy) in _CHANGES.items():
        found = [one for one in opened if note in one.notes]
        if not found:
            continue
        black = note == '16 bits' and all(one.darkest for one in found)
        yield Finding(
            'image that is loaded as black' if black else
            'image that loading changes',
            f'{found[0].sample.image} {text}'
            + (', which are (nearly) 0' if black else '')
            + f': {len(found)} of {len(opened)} images that were opened; '
            + remedy.format(upright=_upright(source)),
            [one.sample.image for one in found], black)


def check_overlap(split, train, other, what):
    """Images that are trained on and evaluated on as well.

    Args:
        split (str): 'val' or 'test'.
        train (dict): Names of the training images by what makes them equal:
            their path or a hash.
        other (dict): The same of the images of ``split``.
        what (str): Text of what is equal.

    Yields:
        Finding: A remark, since people train on all images before delivery.
    """
    common = [key for key in other if key in train]
    if not common:
        return
    key = common[0]
    yield Finding(
        f'overlap of train and {split}',
        f'{other[key]} of the {split} data is {what} {train[key]} of the '
        f'train data: {len(common)} of {len(other)} images; '
        'the evaluation says nothing about new images',
        [other[key] for key in common], False, split)
