"""Draw images of a few classes, in class folders or with lists."""

import numpy as np
from PIL import Image

NAMES = ('ant', 'bee', 'cow', 'dog', 'emu', 'fox')


def draw(folder, per_class=2, size=40):
    """Draw train and val with a folder for each class; a class is a color.

    Returns:
        Path: The folder.
    """
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(NAMES):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(per_class):
                # No two images have the same size.
                image = rng.integers(0, 60, (size + label, size + number, 3))
                image[..., label % 3] += 100 + 90 * (label // 3)
                Image.fromarray(image.astype('uint8')).save(
                    place / f'{name}_{number}.JPEG', quality=95)
    return folder


def flatten(folder, target):
    """Copy the images to one flat folder for each split, with lists.

    Returns:
        Path: The folder.
    """
    (target / 'meta').mkdir(parents=True)
    for split in ('train', 'val'):
        (target / split).mkdir()
        lines = []
        for label, name in enumerate(NAMES):
            for path in sorted((folder / split / name).iterdir()):
                (target / split / path.name).write_bytes(path.read_bytes())
                lines.append(f'{path.name} {label}\n')
        (target / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return target
