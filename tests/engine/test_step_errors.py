"""Find the config keys that cause a failed step."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from mmcyclemlp.engine.runner import build_runner, start
from mmcyclemlp.errors import UserError


@TRANSFORMS.register_module()
class MoreChannels:
    """Doubles the channels."""

    def __call__(self, results):
        results['img'] = np.concatenate([results['img']] * 2, axis=-1)
        return results


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_class_weights_of_other_classes(head, make_cfg, tmp_path, error_of):
    cfg = make_cfg('upernet')
    cfg.model[head].loss_decode = dict(
        type='CrossEntropyLoss', class_weight=[1.] * 5)
    classes = cfg.model[head].num_classes
    text = error_of(cfg, 'off')
    assert text.startswith(
        f'model.{head}.loss_decode.class_weight has 5 values for {classes} '
        'classes: ')
    assert f'training step fails in model.{head}.loss_decode: ' in text
    [log] = (tmp_path / 'work').glob('*/*.log')
    assert 'Traceback (most recent call last)' in log.read_text()


def test_batch_norm_of_one_image(make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.train_dataloader.batch_size = 1
    text = error_of(cfg)
    assert text.startswith('model.decode_head.psp_modules.0.')
    assert 'set train_dataloader.batch_size to 2 or more (' in text


def test_labels_without_output(make_cfg, error_of):
    cfg = make_cfg('upernet')
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = 2
    text = error_of(cfg, 'off')
    assert '.jpg has label ' in text.split(', but ')[0]
    assert 'model.decode_head.num_classes is 2: labels must be 0 to 1' in text


@pytest.mark.parametrize('batch_size, says', [
    (1, 'returns no inputs'),
    (8, 'ends in PhotoMetricDistortion')])  # of which none is a batch
def test_a_pipeline_without_packing(batch_size, says, make_cfg, error_of):
    cfg = make_cfg('retinanet')
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_dataloader.dataset.pipeline.pop()
    assert error_of(cfg).startswith(
        f'train_dataloader.dataset.pipeline {says}: end it with a transform '
        'such as PackDetInputs')


def test_mean_of_other_channels(make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='MoreChannels'))
    text = error_of(cfg)
    assert 'model.data_preprocessor.mean has 3 values, but ' in text
    assert 'returns images of 6 channels' in text


def test_channels_without_a_mean(make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='MoreChannels'))
    assert error_of(cfg).startswith(
        'model.backbone.in_channels is 3, but train_dataloader returns '
        'images of 6 channels: set it to this number (')


@pytest.mark.parametrize('name, option', [
    ('retinanet', 'bbox_head'), ('mask_rcnn', 'rpn_head'),
    ('mask_rcnn', 'roi_head.bbox_head')])
def test_in_channels_that_do_not_fit(name, option, make_cfg, error_of):
    cfg = make_cfg(name)
    head = cfg.model
    for key in option.split('.'):
        head = head[key]
    head.in_channels = 23
    text = error_of(cfg, 'off')
    assert text.startswith(f'model.{option}.')
    assert f': make model.{option}.in_channels equal to the ' in text


def test_masks_not_loaded(make_cfg, error_of):
    cfg = make_cfg('mask_rcnn')
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.with_mask = False
    assert error_of(cfg, 'off').startswith(
        'train_dataloader.dataset.pipeline returns no masks: set '
        'with_mask=True in LoadAnnotations (')


@pytest.mark.parametrize('weights, passes', [([1.], True), ([1., 2.], False)])
def test_class_weight_of_a_sigmoid(weights, passes, make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.model.decode_head.loss_decode = dict(
        type='CrossEntropyLoss', use_sigmoid=True, class_weight=weights)
    cfg.train_cfg.max_iters = 1
    if passes:
        start(build_runner(cfg), 'train')
        return
    assert error_of(cfg).startswith(
        'model.decode_head.loss_decode.class_weight has 2 values, but with '
        'use_sigmoid=True mmseg expects one: ')


def test_validation_of_boxes_without_scale_factor(make_cfg, error_of):
    cfg = make_cfg('retinanet')
    for step in cfg.val_dataloader.dataset.pipeline:
        if step.type == 'PackDetInputs':
            step.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape')
    assert error_of(cfg).startswith(
        'val_dataloader.dataset.pipeline packs no scale_factor, ')


def test_a_part_of_the_model_is_named(make_cfg, monkeypatch):
    cfg = make_cfg('retinanet')
    runner = build_runner(cfg)
    monkeypatch.setattr(runner.model.neck, 'forward', lambda maps: maps[9])
    monkeypatch.setattr(runner.model.neck.__class__, 'forward', None)
    with pytest.raises(UserError) as caught:
        start(runner, 'train', 'off')
    assert str(caught.value).startswith(
        'the first training step fails in model.neck: IndexError: ')


def test_validation_without_annotations(make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.val_dataloader.dataset.pipeline = [
        step for step in cfg.val_dataloader.dataset.pipeline
        if step.type != 'LoadAnnotations']
    assert error_of(cfg).startswith(
        'val_dataloader.dataset.pipeline returns no annotations: ')
