"""Pictures: made from arrays of any kind, resized and cropped.

This module needs numpy and torch alone.
"""

import numpy as np
import torch
import torch.nn.functional as F


def to_picture(image: np.ndarray) -> np.ndarray:
    """Convert an image with any number of channels to a picture.

    Values of 0 to 255 stay as they are. Others are stretched per channel, so
    that 1 % of the pixels are clipped at each end. Of more than three
    channels the first three are used, of two the first.

    Args:
        image (np.ndarray): (H, W) or (H, W, C) of any numeric type.

    Returns:
        np.ndarray: (H, W, 3) of uint8, a copy.

    Raises:
        ValueError: The image has other dimensions, or no pixel.
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


def resize(image: np.ndarray, size: tuple) -> np.ndarray:
    """Resize an image with any number of channels.

    Args:
        image (np.ndarray): (H, W, C) of uint8 or float32.
        size (tuple[int, int]): The new height and width.

    Returns:
        np.ndarray: (*size, C) of the same type.
    """
    values = torch.from_numpy(np.ascontiguousarray(image)).float()
    values = F.interpolate(values.permute(2, 0, 1)[None], size,
                           mode='bilinear', antialias=True)
    values = values[0].permute(1, 2, 0).numpy()
    return values.round().astype(np.uint8) if (
        image.dtype == np.uint8) else values


def fit(image: np.ndarray, size: tuple) -> np.ndarray:
    """Resize an image to the largest size within another; keep its aspect.

    Args:
        image (np.ndarray): (H, W, C) of uint8 or float32.
        size (tuple[int, int]): Largest height and width.
    """
    scale = min(new / old for new, old in zip(size, image.shape))
    return resize(image, [max(1, round(old * scale))
                          for old in image.shape[:2]])


def crop_middle(image: np.ndarray, size: tuple) -> np.ndarray:
    """Resize an image until it covers a size, and crop its middle.

    Args:
        image (np.ndarray): (H, W, C) of uint8 or float32.
        size (tuple[int, int]): Height and width of the crop.
    """
    scale = max(new / old for new, old in zip(size, image.shape))
    image = resize(image, [max(new, round(old * scale))
                           for new, old in zip(size, image.shape)])
    top, left = ((old - new) // 2 for old, new in zip(image.shape, size))
    return image[top:top + size[0], left:left + size[1]]
