"""First steps that a config dooms end in one line; others change nothing."""

import copy

import numpy as np
import pytest
import torch
from helpers.tiny_configs import write_config
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, TRANSFORMS

from mmcyclemlp.engine.hooks import first_steps as dry_step
from mmcyclemlp.engine.hooks.first_steps import try_validation
from mmcyclemlp.engine.randomness import get_rng_state
from mmcyclemlp.engine.runner import build_runner, start
from mmcyclemlp.errors import UserError


@METRICS.register_module()
class FailingMetric(BaseMetric):
    """Raises in one of its methods."""

    def __init__(self, method):
        super().__init__()
        self.method = method

    def process(self, data_batch, data_samples):
        if self.method == 'process':
            raise KeyError('of mine')

    def compute_metrics(self, results):
        if self.method == 'compute_metrics':
            raise KeyError('of one batch')
        return dict(mine=1.)


@METRICS.register_module()
class CountingMetric(BaseMetric):
    """Counts images in an array, which a shallow copy shares."""

    def __init__(self):
        super().__init__()
        self.count = np.zeros(1)

    def process(self, data_batch, data_samples):
        self.count += len(data_samples)
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(mine=float(self.count))


@TRANSFORMS.register_module()
class MoreChannels:
    """Doubles the channels."""

    def __call__(self, results):
        results['img'] = np.concatenate([results['img']] * 2, axis=-1)
        return results


@pytest.fixture
def make_cfg(root, drawn_data, tmp_path):
    def make(name):
        path = (root / 'demo' / 'mask_rcnn.py' if name == 'mask_rcnn' else
                write_config(tmp_path, root, drawn_data, name))
        cfg = Config.fromfile(path)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset.data_root = f'{drawn_data}/'
        if 'ann_file' in cfg.val_evaluator:
            cfg.val_evaluator.ann_file = str(
                drawn_data / 'annotations' / 'instances_val.json')
        cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}{name}'
        return cfg

    return make


def error_of(cfg, check='error'):
    with pytest.raises(UserError) as caught:
        start(build_runner(cfg), 'train', check)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_weights_of_other_classes(head, make_cfg, tmp_path):
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


def test_batch_norm_of_one_image(make_cfg):
    cfg = make_cfg('upernet')
    cfg.train_dataloader.batch_size = 1
    text = error_of(cfg)
    assert text.startswith('model.decode_head.psp_modules.0.')
    assert 'set train_dataloader.batch_size to 2 or more (' in text


@pytest.mark.parametrize('drop_last, check', [
    (False, 'error'), (False, 'warn'), (True, 'error')])
def test_a_last_batch_of_one_image(drop_last, check, make_cfg, monkeypatch):
    said = []
    monkeypatch.setattr(dry_step, 'print_log',
                        lambda text, *args: said.append(text))
    cfg = make_cfg('upernet')
    cfg.train_dataloader.update(
        batch_size=7, drop_last=drop_last,
        sampler=dict(type='DefaultSampler', shuffle=True))
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.param_scheduler = []
    if drop_last:
        start(build_runner(cfg), 'train')
        return
    if check == 'error':
        told = error_of(cfg)
    else:
        with pytest.raises(ValueError, match='more than 1 value'):
            start(build_runner(cfg), 'train', check)
        [told] = said
    assert 'an epoch has one image (8 images, batch_size 7)' in told
    assert 'set train_dataloader.drop_last=True' in told


def test_labels_that_have_no_output(make_cfg):
    cfg = make_cfg('upernet')
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = 2
    text = error_of(cfg, 'off')
    assert '.jpg has label ' in text.split(', and ')[0]
    assert 'model.decode_head.num_classes is 2: labels go from 0 to 1' in text


@pytest.mark.parametrize('batch_size, says', [
    (1, 'gives no inputs'),
    (8, 'ends in PhotoMetricDistortion')])  # of which none is a batch
def test_a_pipeline_that_packs_nothing(batch_size, says, make_cfg):
    cfg = make_cfg('retinanet')
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_dataloader.dataset.pipeline.pop()
    assert error_of(cfg).startswith(
        f'train_dataloader.dataset.pipeline {says}: end it with a transform '
        'such as PackDetInputs')


def test_means_of_other_channels(make_cfg):
    cfg = make_cfg('upernet')
    cfg.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='MoreChannels'))
    text = error_of(cfg)
    assert 'model.data_preprocessor.mean has 3 values, and ' in text
    assert 'gives images of 6 channels' in text


def test_channels_without_a_mean(make_cfg):
    cfg = make_cfg('upernet')
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='MoreChannels'))
    assert error_of(cfg).startswith(
        'model.backbone.in_channels is 3, and train_dataloader gives images '
        'of 6 channels: set it (')


@pytest.mark.parametrize('name, option', [
    ('retinanet', 'bbox_head'), ('mask_rcnn', 'rpn_head'),
    ('mask_rcnn', 'roi_head.bbox_head')])
def test_in_channels_that_do_not_fit(name, option, make_cfg):
    cfg = make_cfg(name)
    head = cfg.model
    for key in option.split('.'):
        head = head[key]
    head.in_channels = 23
    text = error_of(cfg, 'off')
    assert text.startswith(f'model.{option}.')
    assert f': make model.{option}.in_channels fit what is before it (' in (
        text)


def test_masks_that_are_not_loaded(make_cfg):
    cfg = make_cfg('mask_rcnn')
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.with_mask = False
    assert error_of(cfg, 'off').startswith(
        'train_dataloader.dataset.pipeline gives no masks: set '
        'with_mask=True in LoadAnnotations (')


@pytest.mark.parametrize('weights, passes', [([1.], True), ([1., 2.], False)])
def test_class_weight_of_a_sigmoid(weights, passes, make_cfg):
    cfg = make_cfg('upernet')
    cfg.model.decode_head.loss_decode = dict(
        type='CrossEntropyLoss', use_sigmoid=True, class_weight=weights)
    cfg.train_cfg.max_iters = 1
    if passes:
        start(build_runner(cfg), 'train')
        return
    assert error_of(cfg).startswith(
        'model.decode_head.loss_decode.class_weight has 2 values, and with '
        'use_sigmoid=True mmseg takes one: ')


def test_validation_of_boxes_without_scale_factor(make_cfg):
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


def test_validation_without_annotations(make_cfg):
    cfg = make_cfg('upernet')
    cfg.val_dataloader.dataset.pipeline = [
        step for step in cfg.val_dataloader.dataset.pipeline
        if step.type != 'LoadAnnotations']
    assert error_of(cfg).startswith(
        'val_dataloader.dataset.pipeline gives no annotations: ')


@pytest.mark.parametrize('workers', [0, 2])
def test_an_evaluator_that_fails(workers, make_cfg):
    cfg = make_cfg('upernet')
    cfg.val_dataloader.num_workers = workers
    cfg.val_evaluator = dict(type='FailingMetric', method='process')
    assert error_of(cfg).startswith(
        'val_evaluator, with the first validation batch, fails: KeyError: ')


def test_a_metric_that_needs_all_batches_is_let_be(make_cfg):
    cfg = make_cfg('upernet')
    cfg.val_evaluator = dict(type='FailingMetric', method='compute_metrics')
    runner = build_runner(cfg)
    runner.build_train_loop = lambda loop: loop
    runner._train_loop = type('Loop', (), {'max_iters': 4})()
    try_validation(runner)


@pytest.mark.parametrize('name, wrong, right', [
    ('upernet', 'mIou', 'aAcc, mIoU, mAcc'),
    ('retinanet', 'bbox_mAP', 'coco/bbox_mAP, ')])
def test_the_best_by_a_value_that_is_not_given(name, wrong, right, make_cfg):
    cfg = make_cfg(name)
    cfg.default_hooks.checkpoint.save_best = wrong
    text = error_of(cfg)
    assert text.startswith(
        f"default_hooks.checkpoint.save_best is '{wrong}', and "
        f'val_evaluator gives {right}')


@pytest.mark.parametrize('name', ['upernet', 'retinanet'])
def test_nothing_is_changed(name, make_cfg, capfd):
    cfg = make_cfg(name)
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='CountingMetric')]
    runner = build_runner(cfg)
    runner._train_loop = type('Loop', (), {'max_iters': 4})()
    runner.build_train_loop = lambda loop: loop
    runner.model.train()
    runner.model.backbone.eval()
    runner._val_loop = runner.build_val_loop(runner._val_loop)

    def state():
        return copy.deepcopy(dict(
            rng=get_rng_state(), weights=runner.model.state_dict(),
            modes=[module.training for module in runner.model.modules()],
            hub=runner.message_hub.state_dict(),
            results=[metric.results
                     for metric in runner.val_evaluator.metrics],
            count=runner.val_evaluator.metrics[1].count.tolist(),
            attributes=sorted(vars(runner.model))))

    before = state()
    capfd.readouterr()
    torch.manual_seed(5)
    before['rng'] = get_rng_state()
    try_validation(runner)
    said = capfd.readouterr()
    assert said.out + said.err == ''
    after = state()
    for key in ('modes', 'results', 'count', 'attributes'):
        assert before[key] == after[key]
    for key in ('weights', 'rng', 'hub'):
        assert same(before[key], after[key])


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or type(one).__name__ == 'HistoryBuffer'
