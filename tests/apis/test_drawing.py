"""Any image makes a picture, and classes are named in it."""

import numpy as np
import pytest

from mmcyclemlp.apis.drawing import name_areas, to_picture

COLORS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_values_of_a_picture_stay():
    for image in (COLORS, COLORS.astype(np.float32),
                  COLORS.astype(np.uint16)):
        assert (to_picture(image) == COLORS).all()
    assert (to_picture(np.dstack([COLORS, COLORS])) == COLORS).all()
    gray = COLORS[..., 0]
    for image in (gray, gray[..., None], np.dstack([gray, gray + 1])):
        assert (to_picture(image) == gray[..., None]).all()
        assert to_picture(image).shape == (4, 5, 3)


def test_other_values_are_stretched():
    ramp = np.linspace(0, 1, 1000).reshape(20, 50)
    for image in (ramp, ramp * 60000, ramp - 5):
        picture = to_picture(image)
        assert picture.dtype == np.uint8
        assert (picture.min(), picture.max()) == (0, 255)
        assert abs(picture[10, 0, 0] - 127) < 3
    # Channels are stretched one by one, and a flat one is black.
    picture = to_picture(np.dstack([ramp, ramp * 9, np.full_like(ramp, .5)]))
    assert (picture[..., 0] == picture[..., 1]).all()
    assert not picture[..., 2].any()
    ramp[0, 0] = np.nan
    assert to_picture(ramp).max() == 255


@pytest.mark.parametrize('shape', [(3, ), (2, 3, 4, 5), (0, 5, 3)])
def test_what_is_no_image(shape):
    with pytest.raises(ValueError, match='shape'):
        to_picture(np.zeros(shape))


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
