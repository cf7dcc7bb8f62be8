"""Labels are compared with classes, heads and the ignore index."""

import cv2
import numpy as np
import pytest
from helpers.spoiled_data import check_train, errors


def test_masks_of_0_and_255_with_255_ignored(data):
    data.relabel(lambda path, labels: cv2.imwrite(
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
    data.relabel(lambda path, labels: cv2.imwrite(
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
    data.relabel(lambda path, labels: cv2.imwrite(
        str(path), (labels > 0).astype('uint8')))
    data.train.metainfo.classes = names
    for one in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        one.update(loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True))
        one.update(head)
    data.cfg.val_evaluator = data.cfg.test_evaluator = metric
    found = [one for one in check_train(data) if one.kind in kinds]
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
    found = [one.error for one in check_train(data)
             if one.kind == 'padding that is not a label']
    assert found == ([] if error is None else [error])
