"""Any image becomes a picture; sizes are as given."""

import numpy as np
import pytest

from mmcyclemlp.apis.pictures import crop_middle, fit, resize, to_picture

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


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_sizes(dtype):
    image = np.random.RandomState(0).rand(40, 80, 5) * 255
    image = image.astype(dtype)
    assert resize(image, (30, 20)).shape == (30, 20, 5)
    assert fit(image, (60, 60)).shape == (30, 60, 5)
    assert fit(image, (10, 600)).shape == (10, 20, 5)
    crop = crop_middle(image, (40, 40))
    assert crop.dtype == dtype and (crop == image[:, 20:60]).all()
    assert crop_middle(image, (64, 32)).shape == (64, 32, 5)
    flat = np.full((40, 80, 3), 200, dtype)
    np.testing.assert_allclose(resize(flat, (17, 19)), 200, rtol=1e-6)
