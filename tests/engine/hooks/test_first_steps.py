"""Try the first steps of a run."""

import copy

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mmcyclemlp.engine.hooks import first_steps
from mmcyclemlp.engine.hooks.first_steps import try_validation
from mmcyclemlp.engine.randomness import get_rng_state
from mmcyclemlp.engine.runner import build_runner, start


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


@pytest.mark.parametrize('drop_last, check', [
    (False, 'error'), (False, 'warn'), (True, 'error')])
def test_reports_a_last_batch_of_one_image(
        drop_last, check, make_cfg, monkeypatch, error_of):
    said = []
    monkeypatch.setattr(first_steps, 'print_log',
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


@pytest.mark.parametrize('workers', [0, 2])
def test_reports_a_failing_evaluator(workers, make_cfg, error_of):
    cfg = make_cfg('upernet')
    cfg.val_dataloader.num_workers = workers
    cfg.val_evaluator = dict(type='FailingMetric', method='process')
    assert error_of(cfg).startswith(
        'val_evaluator, with the first validation batch, fails: KeyError: ')


def test_skips_a_metric_that_needs_all_batches(make_cfg):
    cfg = make_cfg('upernet')
    cfg.val_evaluator = dict(type='FailingMetric', method='compute_metrics')
    runner = build_runner(cfg)
    runner.build_train_loop = lambda loop: loop
    runner._train_loop = type('Loop', (), {'max_iters': 4})()
    try_validation(runner)


@pytest.mark.parametrize('name, wrong, right', [
    ('upernet', 'mIou', 'aAcc, mIoU, mAcc'),
    ('retinanet', 'bbox_mAP', 'coco/bbox_mAP, ')])
def test_reports_an_unknown_save_best(name, wrong, right, make_cfg, error_of):
    cfg = make_cfg(name)
    cfg.default_hooks.checkpoint.save_best = wrong
    text = error_of(cfg)
    assert text.startswith(
        f"default_hooks.checkpoint.save_best is '{wrong}', but "
        f'val_evaluator returns {right}')


@pytest.mark.parametrize('name', ['upernet', 'retinanet'])
def test_changes_nothing(name, make_cfg, capfd):
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
