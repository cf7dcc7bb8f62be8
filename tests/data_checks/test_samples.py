"""Images and label maps are opened as the pipeline of the user loads them."""

import cv2
import numpy as np
import pytest
from helpers.spoiled_data import check_train, errors
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image


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


@pytest.mark.parametrize('workers', [0, 2])
def test_clean_data_has_no_errors(data, workers):
    assert [one for one in check_train(data, workers) if one.error] == []


def test_one_bit_label_maps_are_read_as_zero_and_one(data):
    data.relabel(lambda path, labels: Image.fromarray(labels > 0).save(path))
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

    data.relabel(change)
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
    data.relabel(lambda path, labels: cv2.imwrite(
        str(path), labels % 7 * np.uint8(30)))
    assert any(one.kind == 'label out of range' for one in errors(data))
    place %= len(data.train.pipeline)
    data.train.pipeline.insert(place, dict(type='DivideLabels'))
    assert errors(data) == []


def test_hidden_files_are_not_images(data):
    for path in [*data.images(), *data.labels()]:
        (path.parent / f'._{path.name}').write_bytes(b'\0\5\26\7')
    assert errors(data) == []


@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
def test_labels_that_are_not_numbers(value, data):
    for path in data.labels():
        labels = np.array(Image.open(path)).astype('float32')
        labels[labels == 255] = value
        Image.fromarray(labels).save(path.with_suffix('.tif'))
    data.train.seg_map_suffix = '.tif'
    one, = errors(data)
    assert one.kind == 'label out of range' and repr(value) in one.message


@pytest.mark.parametrize('kind, value, error', [
    ('int32', -1, False), ('uint16', 511, False), ('int32', 257, True)])
def test_labels_that_8_bits_make_the_ignore_index(kind, value, error, data):
    for path in data.labels():
        labels = np.array(Image.open(path)).astype(kind)
        labels[labels == 255] = value
        Image.fromarray(labels).save(path.with_suffix('.tif'))
    data.train.seg_map_suffix = '.tif'
    assert [one.kind for one in errors(data)] == (
        ['label out of range'] if error else [])
