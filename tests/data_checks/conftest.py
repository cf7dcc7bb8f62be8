"""Data of a segmentor that tests spoil."""

import shutil

import cv2
import numpy as np
import pytest
from helpers.spoiled_data import on_copy

CLASSES = ('wall', 'floor', 'disc', 'square', 'triangle', 'star', 'ring')


@pytest.fixture
def data(root, drawn_data, tmp_path):
    """Label maps hold the index of the class, and 255 for unlabeled."""
    folder = shutil.copytree(drawn_data, tmp_path / 'data')
    for path in (folder / 'annotations').rglob('*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), labels - np.uint8(1))
    return on_copy(root, folder, 'upernet', CLASSES, void=255)
