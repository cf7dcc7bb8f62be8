"""Images and label maps are looked at as the user's pipeline loads them."""

import shutil

import cv2
import numpy as np
import pytest
from helpers.spoiled_data import on_copy
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmcyclemlp.data_checks import DataCheck, Look

CLASSES = ('wall', 'floor', 'disc', 'square', 'triangle', 'star', 'ring')


@TRANSFORMS.register_module()
class LoadFiveBands(BaseTransform):
    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        results['img_shape'] = results['img'].shape[:2]
        results['ori_shape'] = results['img_shape']
        return results


@TRANSFORMS.register_module()
class DivideLabels(BaseTransform):
    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 30
        return results


@pytest.fixture
def data(root, drawn_data, tmp_path):
    """Label maps hold the index of the class, and 255 for unlabeled."""
    folder = shutil.copytree(drawn_data, tmp_path / 'data')
    for path in (folder / 'annotations').rglob('*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), labels - np.uint8(1))
    return on_copy(root, folder, 'upernet', CLASSES, void=255)


def findings(data, workers=0):
    check = DataCheck(data.cfg, ('train', ), Look(workers=workers))
    found = list(check.run())
    assert check.numbers['train'] == (8, 8)
    return found


def errors(data):
    return [one for one in findings(data) if one.error]


def relabel(data, change):
    for path in data.labels():
        change(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize('workers', [0, 2])
def test_clean_data_has_no_errors(data, workers):
    assert [one for one in findings(data, workers) if one.error] == []


def test_one_bit_label_maps_are_read_as_zero_and_one(data):
    relabel(data, lambda path, labels: Image.fromarray(labels > 0).save(path))
    assert errors(data) == []


@pytest.mark.parametrize('value, name', [
    (300., '300.0, and mm keeps 8 bits of it and reads 44'),
    (1.5, '1.5, and mm keeps 8 bits of it and reads 1')])
def test_float_label_maps(value, name, data):
    data.train.seg_map_suffix = '.tif'

    def change(path, labels):
        Image.fromarray(labels.astype('float32')).save(
            path.with_suffix('.tif'))
        path.unlink()

    relabel(data, change)
    assert errors(data) == []
    path = data.labels()[3]
    labels = np.array(Image.open(path))
    labels[0, 0] = value
    Image.fromarray(labels).save(path)
    error, = errors(data)
    assert error.kind == 'label out of range' and name in error.message


def test_images_of_a_loader_of_the_user(data):
    data.train.img_suffix = '.npy'
    data.train.pipeline[0] = dict(type='LoadFiveBands')
    for path in data.images():
        image = cv2.imread(str(path))
        np.save(path.with_suffix('.npy'), image[..., [0, 1, 2, 0, 1]])
        path.unlink()
    assert errors(data) == []
    np.save(data.images()[2], np.zeros(()))
    error, = errors(data)
    assert error.kind == 'pipeline that fails'
    assert data.images()[2].name in error.message


@pytest.mark.parametrize('place', [2, -1])
def test_labels_that_a_transform_of_the_user_maps(place, data):
    """After loading, and after mm's own transforms."""
    relabel(data, lambda path, labels: cv2.imwrite(
        str(path), labels % 7 * np.uint8(30)))
    assert any(one.kind == 'label out of range' for one in errors(data))
    place %= len(data.train.pipeline)
    data.train.pipeline.insert(place, dict(type='DivideLabels'))
    assert errors(data) == []


def test_hidden_files_are_no_images(data):
    for path in [*data.images(), *data.labels()]:
        (path.parent / f'._{path.name}').write_bytes(b'\0\5\26\7')
    assert errors(data) == []


@pytest.mark.parametrize('orientation, kind, error', [
    (6, 'label map of another size', True),
    (3, 'image that loading changes', False)])
def test_an_image_that_mm_turns(orientation, kind, error, data):
    path = data.image()
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.open(path)
    image.crop((0, 0, image.width, image.height - 8)).save(path, exif=exif)
    label = data.label()
    Image.open(label).crop((0, 0, image.width, image.height - 8)).save(label)
    found, = (one for one in findings(data) if one.kind == kind)
    assert found.error is error
    assert 'color_ignore_orientation' in found.message
    data.train.pipeline[0].color_type = 'color_ignore_orientation'
    assert not [one for one in findings(data) if path.name in one.message
                and 'orientation' in one.message]


@pytest.mark.parametrize('factor, kind', [
    (1, 'image that is loaded as black'),
    (256, 'image that loading changes')])
def test_images_of_16_bits(factor, kind, data):
    data.train.img_suffix = '.png'
    for path in data.images():
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path.with_suffix('.png')),
                    image.astype('uint16') * factor)
        path.unlink()
    found, = (one for one in findings(data) if '16 bits' in one.message)
    assert found.kind == kind and found.error is (factor == 1)
    assert len(found.names) == 8


@pytest.mark.parametrize('mode, suffix, text', [
    ('CMYK', '.jpg', 'CMYK'), ('RGBA', '.png', 'alpha channel')])
def test_channels_that_mm_converts(mode, suffix, text, data):
    data.train.img_suffix = suffix
    for path in data.images():
        Image.open(path).convert(mode).save(path.with_suffix(suffix))
    found, = (one for one in findings(data)
              if one.kind == 'image that loading changes')
    assert text in found.message and not found.error


def test_masks_of_0_and_255_with_255_ignored(data):
    relabel(data, lambda path, labels: cv2.imwrite(
        str(path), (labels > 0) * np.uint8(255)))
    data.train.metainfo.classes = ('background', 'part')
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.num_classes = 2
    error, = errors(data)
    assert error.kind == 'masks of 0 and 255'
    assert 'write 1 in place of 255' in error.message


@pytest.mark.parametrize('head', [
    dict(num_classes=2, out_channels=1), dict(num_classes=1)])
def test_binary_segmentation_with_a_sigmoid(head, data):
    relabel(data, lambda path, labels: cv2.imwrite(
        str(path), (labels > 0).astype('uint8')))
    data.train.metainfo.classes = ('background', 'part')
    for one in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        one.update(head, loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True))
    assert errors(data) == []


IOU, OWN = [dict(type='IoUMetric')], [dict(type='DumpResults')]


@pytest.mark.parametrize('head, names, metric, kinds, error', [
    (dict(num_classes=1), ('part', ), IOU,
     ['one class name for two classes'], True),
    (dict(num_classes=1), ('part', ), OWN,
     ['one class name for two classes'], False),
    (dict(num_classes=2, out_channels=1,
          loss_decode=dict(use_sigmoid=False)),
     ('background', 'part'), IOU, ['one channel without sigmoid'], True)])
def test_binary_segmentation_that_goes_wrong(head, names, metric, kinds,
                                             error, data):
    relabel(data, lambda path, labels: cv2.imwrite(
        str(path), (labels > 0).astype('uint8')))
    data.train.metainfo.classes = names
    for one in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        one.update(loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True))
        one.update(head)
    data.cfg.val_evaluator = data.cfg.test_evaluator = metric
    found = [one for one in findings(data) if one.kind in kinds]
    assert {one.error for one in found} == {error}
    assert all(one in found for one in errors(data))
    assert {one.names[0] for one in found} == {
        'model.decode_head', 'model.auxiliary_head'}


@pytest.mark.parametrize('size, ignored, padding, error', [
    (64, 0, 255, False), (640, 0, 255, True), (640, 255, 0, False),
    (640, 255, 255, None)])
def test_padding_of_label_maps(size, ignored, padding, error, data):
    data.cfg.model.data_preprocessor.update(
        size=(size, size), seg_pad_val=padding)
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.ignore_index = ignored
    found = [one.error for one in findings(data)
             if one.kind == 'padding that is no label']
    assert found == ([] if error is None else [error])


@pytest.mark.parametrize('kind, value, error', [
    ('int32', -1, False), ('uint16', 511, False), ('int32', 257, True)])
def test_labels_that_8_bits_make_the_ignore_index(kind, value, error, data):
    for path in data.labels():
        labels = np.array(Image.open(path)).astype(kind)
        labels[labels == 255] = value
        Image.fromarray(labels).save(path.with_suffix('.tif'))
    data.train.seg_map_suffix = '.tif'
    one, = (one for one in findings(data) if one.kind == 'label out of range')
    assert one.error == error
    assert ('that is the ignore index' in one.message) != error


@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
def test_labels_that_are_no_numbers(value, data):
    for path in data.labels():
        labels = np.array(Image.open(path)).astype('float32')
        labels[labels == 255] = value
        Image.fromarray(labels).save(path.with_suffix('.tif'))
    data.train.seg_map_suffix = '.tif'
    one, = errors(data)
    assert one.kind == 'label out of range' and repr(value) in one.message


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


def test_a_turned_image_in_shades_of_gray(data):
    for step in data.train.pipeline:
        if step.type == 'LoadImageFromFile':
            step.color_type = 'grayscale'
    for path in data.images():
        exif = Image.Exif()
        exif[274] = 3
        Image.open(path).save(path, exif=exif)
    found, = (one for one in findings(data)
              if one.kind == 'image that loading changes')
    assert "color_type='grayscale_ignore_orientation' in" in found.message
