"""Names of classes are drawn into their areas."""

import numpy as np

from mmcyclemlp.apis.class_names import name_areas


def test_names_of_areas():
    labels = np.zeros((100, 200), np.int64)
    labels[:, 100:] = 1
    labels[3, 3] = 2  # too small
    plain = np.full((100, 200, 3), 200, np.uint8)
    named = name_areas(plain, labels, ['one', 'two', 'three'])
    assert (plain == 200).all()
    black = (named == 0).all(-1)
    # A name in the middle of either half, and nothing else.
    assert black[48:53, 35:65].any() and black[48:53, 135:165].any()
    assert not black[:35].any() and not black[65:].any()
    # It stays inside of the picture.
    labels[:] = 0
    labels[-10:, -10:] = 1
    named = name_areas(plain, labels, ['one', 'a long name'])
    assert (named[-3:, 60:-1] == 0).all(-1).any()
