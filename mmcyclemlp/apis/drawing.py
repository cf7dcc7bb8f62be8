"""What is drawn: pictures of any image, names and colors of classes."""

import cv2
import numpy as np
from mmengine.registry import DATASETS

from ..engine.config_nodes import leaves
from ..errors import UserError


def to_picture(image):
    """Make a picture of an image with any number of channels.

    Values of 0 to 255 stay as they are. Others are stretched, channel by
    channel, so that 1 % of the pixels are cut off at either end. Of more
    than three channels the first three are shown, of two the first.

    Args:
        image (np.ndarray): (H, W) or (H, W, C) of any type of numbers.

    Returns:
        np.ndarray: (H, W, 3) of uint8, a copy.

    Raises:
        ValueError: It has other dimensions, or no pixel.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not image.size:
        raise ValueError(f'an image has the shape (H, W, C), got '
                         f'{image.shape}')
    image = image[..., :3] if image.shape[2] > 2 else image[..., :1]
    if image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0)
        picture = values.clip(0, 255).astype(np.uint8)
        image = (picture if (picture == values).all() and values.max() > 1
                 else _stretch(values))
    if image.shape[2] == 1:
        image = image.repeat(3, axis=2)
    return image.copy(order='C')


def _stretch(values):
    low, high = np.percentile(values, [1, 99], axis=(0, 1))
    scale = np.where(high > low, high - low, 1)
    return ((values - low) / scale * 255).clip(0, 255).astype(np.uint8)


def name_areas(picture, labels, names):
    """Write the name of each class where most of it is around.

    Args:
        picture (np.ndarray): (H, W, 3) of uint8.
        labels (np.ndarray): (H, W), indices of classes.
        names (list[str]): Their names.

    Returns:
        np.ndarray: A copy with the names of all but small areas.
    """
    picture = picture.copy(order='C')
    height, width = labels.shape
    side = min(height, width)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, side / 700)
    thick = max(1, round(1.5 * scale))
    for label in np.unique(labels):
        area = np.pad((labels == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(area, cv2.DIST_L2, 3)
        _, deepest, _, (x, y) = cv2.minMaxLoc(depth)
        if deepest < 0.02 * side:
            continue
        text = names[label]
        (wide, high), below = cv2.getTextSize(text, font, scale, thick)
        left = max(0, min(x - wide // 2, width - wide))
        base = max(high + 2, min(y + high // 2, height - below))
        cv2.rectangle(picture, (left - 2, base - high - 2),
                      (left + wide + 1, base + below), (0, 0, 0), -1)
        cv2.putText(picture, text, (left, base), font, scale,
                    (255, 255, 255), thick, cv2.LINE_AA)
    return picture


def names_and_colors(cfg, checkpoint, classes, palette, number, binary=False):
    """Class names and as many colors.

    Args:
        cfg (Config): With the test data and ``default_scope``.
        checkpoint (dict): Whose ``meta`` may have names.
        classes (list[str] | None): Names that win over others.
        palette (str | None): Name of colors, or 'random'.
        number (int | None): Classes that the model knows; None if it does
            not say.
        binary (bool): Whether the model tells one class from all else; a
            single name then gets 'background' before it. Default: False.

    Returns:
        dict: ``classes``, a list of str, and ``palette``, a list of RGB.

    Raises:
        UserError: There are no names, or another number of them; or the
            colors are not known.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    meta = meta.get('dataset_meta') or meta  # mm 2.x has them beside it
    meta = {str(key).lower(): value for key, value in meta.items()}
    if not meta.get('classes') and not classes:
        meta = DATASETS.build(
            dict(leaves(cfg.test_dataloader.dataset)[0],
                 lazy_init=True)).metainfo
    names = [str(name) for name in classes or meta.get('classes') or ()]
    if not names:
        raise UserError('neither the checkpoint nor the config has names of '
                        'classes: give --classes')
    own = meta.get('palette')
    if binary and len(names) == 1:
        names, own = ['background', *names], own and [(0, 0, 0), *own]
    if number is not None and len(names) != number:
        raise UserError(
            f'the model knows {number} classes, and {len(names)} names are '
            f'known: {", ".join(names[:5])}'
            f'{" ..." if len(names) > 5 else ""}. Give --classes with '
            f'{number} names')
    if palette is None:
        try:
            colors = _colors(own, len(names))
        except (TypeError, ValueError):
            colors = _random_palette(len(names))
    else:
        colors = _named_palette(palette, len(names), cfg.default_scope)
    return dict(classes=names, palette=colors)


def _colors(palette, number):
    """The first of a palette as tuples of RGB, if it has so many."""
    if len(palette) < number:
        raise ValueError(f'it has {len(palette)} colors')
    return [tuple(int(value) for value in color)
            for color in palette[:number]]


def _named_palette(name, number, scope):
    if name == 'random':
        return _random_palette(number)
    try:
        if scope == 'mmdet':
            from mmdet.visualization.palette import get_palette

            return _colors(get_palette(name, number), number)
        from mmseg.utils import get_palette

        return _colors(get_palette(name), number)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f'--palette {name}: {scope} has no such colors for {number} '
            'classes; random will do for any number') from error


def _random_palette(number):
    """The same at each call."""
    colors = np.random.RandomState(42).randint(0, 256, (number, 3))
    return [tuple(color) for color in colors.tolist()]
