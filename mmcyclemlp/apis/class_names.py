"""Names and colors of classes, and names drawn into a picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmengine.registry import DATASETS

from ..engine.config_nodes import leaves
from ..errors import UserError


def name_areas(picture: np.ndarray, labels: np.ndarray,
               names: list[str]) -> np.ndarray:
    """Write the name of each class into its area, far from the borders.

    Args:
        picture (np.ndarray): (H, W, 3) of uint8.
        labels (np.ndarray): (H, W), indices of classes.
        names (list[str]): Names of the classes.

    Returns:
        np.ndarray: A copy of the picture. Small areas have no name.
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


def names_and_colors(
    cfg: Any,
    checkpoint: dict,
    classes: list[str] | None,
    palette: str | None,
    number: int | None,
    binary: bool = False,
) -> dict[str, list]:
    """Return the names of the classes and a color for each.

    Args:
        cfg (Config): Config with the test data and ``default_scope``.
        checkpoint (dict): Checkpoint, whose ``meta`` may have names.
        classes (list[str] | None): Names that override all others.
        palette (str | None): Name of a palette, or 'random'.
        number (int | None): Number of classes of the model; None if
            unknown.
        binary (bool): Whether the model separates one class from
            everything else. A single name then gets 'background' before
            it. Default: False.

    Returns:
        dict: ``classes``, a list of str, and ``palette``, a list of RGB.

    Raises:
        UserError: There are no names, their number does not match, or the
            palette is unknown.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    meta = meta.get('dataset_meta') or meta  # mm 2.x has no dataset_meta
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
            f'the model has {number} classes, and there are {len(names)} '
            f'names: {", ".join(names[:5])}'
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
    """Return the first colors of a palette as tuples of RGB."""
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
            f'--palette {name}: {scope} has no such palette for {number} '
            'classes; --palette random works for any number') from error


def _random_palette(number):
    """Return random colors, the same at each call."""
    colors = np.random.RandomState(42).randint(0, 256, (number, 3))
    return [tuple(color) for color in colors.tolist()]
