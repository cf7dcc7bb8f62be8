"""Draw a small dataset: COCO boxes and masks, and ADE20K label maps.

Shapes lie on textured floors in front of textured walls and hide one another.
A shape has the outline and the texture of its class, in any two colors. Floors
and walls have any texture, so that neither color nor texture alone determines
the class.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

SHAPES = ('disc', 'square', 'triangle', 'star', 'ring')
# Label maps: 0 is unlabeled, then wall, floor and the shapes.
SEG_CLASSES = ('wall', 'floor', *SHAPES)
SIZE = 128


def texture(rng, kind):
    """Draw stripes, checks, dots, spots or circles in two random colors.

    Args:
        rng (np.random.Generator): Source of random numbers.
        kind (int): 0 to 4, as listed above.

    Returns:
        np.ndarray: (SIZE, SIZE, 3), values 30 to 225.
    """
    low, high = rng.integers(30, 226, (2, 3))
    y, x = np.mgrid[:SIZE, :SIZE]
    period = rng.integers(6, 12)
    if kind == 0:
        angle = rng.uniform(0, np.pi)
        wave = (x * np.cos(angle) + y * np.sin(angle)) / period
        grain = np.floor(2 * wave) % 2
    elif kind == 1:
        grain = (x // (period // 2) + y // (period // 2)) % 2
    elif kind == 2:
        grain = (x % period - period / 2)**2 + (y % period - period / 2)**2
        grain = grain < (period / 3)**2
    elif kind == 3:
        grain = cv2.resize(rng.random((SIZE // 4, SIZE // 4)), (SIZE, SIZE))
    else:
        center = rng.integers(0, SIZE, 2)
        grain = np.hypot(x - center[0], y - center[1]) / period * 2 % 2 < 1
    return low + grain[..., None] * (high - low)


def outline(shape, center, radius, angle):
    """Return the polygon (P, 2) of a shape; for a ring, its outer edge."""
    if shape in ('disc', 'ring'):
        turns, radii = np.linspace(0, 1, 32, endpoint=False), 1.
    elif shape == 'star':
        turns = np.linspace(0, 1, 10, endpoint=False)
        radii = np.where(np.arange(10) % 2, 0.4, 1.)
    else:
        corners = {'triangle': 3, 'square': 4}[shape]
        turns, radii = np.linspace(0, 1, corners, endpoint=False), 1.
    phi = 2 * np.pi * turns + angle
    points = np.stack([np.cos(phi), np.sin(phi)], 1) * radius
    return (points * np.reshape(radii, (-1, 1)) + center).round().astype(int)


def draw(rng):
    """Draw one image.

    Returns:
        tuple: Image (SIZE, SIZE, 3) of uint8, label map (SIZE, SIZE) of
        uint8, and a list of (class index, visible mask).
    """
    horizon = int(rng.integers(SIZE // 4, SIZE * 3 // 4))
    image = texture(rng, rng.integers(5)) * 0.4 + 120
    image[horizon:] = texture(rng, rng.integers(5))[horizon:] * 0.4
    label = np.full((SIZE, SIZE), 1, np.uint8)
    label[horizon:] = 2
    # A strip along the horizon is unlabeled.
    label[horizon - 1:horizon + 1] = 0
    things = []
    for _ in range(rng.integers(2, 6)):
        index = int(rng.integers(len(SHAPES)))
        radius = int(rng.integers(16, 34))
        center = rng.integers(radius // 2, SIZE - radius // 2, 2)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        points = outline(SHAPES[index], center, radius,
                         rng.uniform(0, 2 * np.pi))
        cv2.fillPoly(mask, [points], 1)
        if SHAPES[index] == 'ring':
            cv2.circle(mask, center.tolist(), radius // 2, 0, -1)
        mask = mask.astype(bool)
        image[mask] = texture(rng, index)[mask]
        label[mask] = len(SEG_CLASSES) - len(SHAPES) + 1 + index
        things = [(i, below & ~mask) for i, below in things]
        things.append((index, mask))
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), label, things


def annotations(things, image_id):
    """Yield COCO annotations of the shapes that are visible enough."""
    for index, mask in things:
        if mask.sum() < 60:
            continue
        # Run lengths, because a polygon cannot have the hole of a ring.
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        rle['counts'] = rle['counts'].decode()
        y, x = np.nonzero(mask)
        box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        yield dict(
            image_id=image_id, category_id=index + 1, iscrowd=0,
            bbox=[int(value) for value in box], area=int(mask.sum()),
            segmentation=rle)


def draw_split(root, split, number, seed):
    """Draw ``number`` images with both kinds of ground truth."""
    rng = np.random.default_rng(seed)
    images, entries = [], []
    (root / 'images' / split).mkdir(parents=True, exist_ok=True)
    (root / 'annotations' / split).mkdir(parents=True, exist_ok=True)
    for image_id in range(number):
        image, label, things = draw(rng)
        name = f'{image_id:04d}'
        cv2.imwrite(str(root / 'images' / split / f'{name}.jpg'), image)
        cv2.imwrite(str(root / 'annotations' / split / f'{name}.png'), label)
        images.append(dict(id=image_id, file_name=f'{name}.jpg',
                           height=SIZE, width=SIZE))
        entries.extend(annotations(things, image_id))
    for number, entry in enumerate(entries, 1):
        entry['id'] = number
    content = dict(
        images=images, annotations=entries,
        categories=[dict(id=i, name=name)
                    for i, name in enumerate(SHAPES, 1)])
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(content))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', type=Path, help='folder to draw into')
    parser.add_argument('--train', type=int, default=400)
    parser.add_argument('--val', type=int, default=60)
    args = parser.parse_args()
    draw_split(args.root, 'train', args.train, seed=0)
    draw_split(args.root, 'val', args.val, seed=1)


if __name__ == '__main__':
    main()
