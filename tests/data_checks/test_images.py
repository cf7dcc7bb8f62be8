"""Images and label maps that mm reads otherwise than meant are reported."""

import cv2
import pytest
from helpers.spoiled_data import check_train, errors
from PIL import Image


@pytest.mark.parametrize('orientation, kind, error', [
    (6, 'label map of another size', True),
    (3, 'image that mm turns', False)])
def test_an_image_that_mm_turns(orientation, kind, error, data):
    path = data.image()
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.open(path)
    image.crop((0, 0, image.width, image.height - 8)).save(path, exif=exif)
    label = data.label()
    Image.open(label).crop((0, 0, image.width, image.height - 8)).save(label)
    found, = (one for one in check_train(data) if one.kind == kind)
    assert found.error is error
    assert 'color_ignore_orientation' in found.message
    data.train.pipeline[0].color_type = 'color_ignore_orientation'
    assert not [one for one in check_train(data) if path.name in one.message
                and 'orientation' in one.message]


def test_a_turned_image_in_shades_of_gray(data):
    for step in data.train.pipeline:
        if step.type == 'LoadImageFromFile':
            step.color_type = 'grayscale'
    for path in data.images():
        exif = Image.Exif()
        exif[274] = 3
        Image.open(path).save(path, exif=exif)
    found, = (one for one in check_train(data)
              if one.kind == 'image that mm turns')
    assert "color_type='grayscale_ignore_orientation' in" in found.message


@pytest.mark.parametrize('factor, error', [(1, True), (256, False)])
def test_images_of_16_bits(factor, error, data):
    data.train.img_suffix = '.png'
    for path in data.images():
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path.with_suffix('.png')),
                    image.astype('uint16') * factor)
        path.unlink()
    found, = (one for one in check_train(data)
              if one.kind == 'image of 16 bits')
    assert found.error is error
    assert len(found.names) == 8


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_label_maps_with_a_palette(backend, data):
    for path in data.labels():
        picture = Image.open(path).convert('P')
        picture.putpalette([7 * value % 256 for value in range(768)])
        picture.save(path)
    for step in data.train.pipeline:
        if step.type == 'LoadAnnotations':
            step.imdecode_backend = backend
    found = errors(data)
    if backend == 'pillow':
        assert found == []
        return
    one, = found
    assert one.kind == 'label map in color'
    assert "set imdecode_backend='pillow' in LoadAnnotations" in one.message
