"""Choose the settings of a resumed run."""

import pytest
import torch
from helpers.tiny_configs import write_config
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmcyclemlp.engine.hooks import resume
from mmcyclemlp.engine.runner import build_runner, start
from mmcyclemlp.engine.start_checkpoint import resume_from
from mmcyclemlp.errors import CheckpointError, UserError

SCHEDULES = [
    [dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=5),
     dict(type='MultiStepLR', by_epoch=True, milestones=[2, 3], gamma=.1)],
    [dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, end=4),
     dict(type='CosineAnnealingMomentum', T_max=4, by_epoch=True, end=4)],
    [dict(type='PolyLR', eta_min=1e-4, power=.9, begin=2, end=14,
          by_epoch=False)],
    []]


def build(schedule):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [dict(params=[weights[0]]), dict(params=[weights[1]], lr=1.)], .1, .9)
    wrapper = OptimWrapper(optimizer)
    return optimizer, [
        PARAM_SCHEDULERS.build(one, default_args=dict(optimizer=wrapper))
        for one in schedule]


def train(optimizer, schedulers, steps, per_epoch):
    """Rates and momenta before each step."""
    rates = []
    for done in range(steps):
        rates.append([(group['lr'], group['momentum'])
                      for group in optimizer.param_groups])
        optimizer.step()
        for one in schedulers:
            if not one.by_epoch:
                one.step()
        if per_epoch and (done + 1) % per_epoch == 0:
            for one in schedulers:
                if one.by_epoch:
                    one.step()
    return rates


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('schedule', SCHEDULES, ids=str)
@pytest.mark.parametrize('done, per_epoch', [
    (0, 4), (4, 4), (9, 4), (12, 4), (7, None)])
def test_advances_schedules(schedule, done, per_epoch):
    whole = train(*build(schedule), 16, per_epoch)
    optimizer, schedulers = build(schedule)
    epochs = done // per_epoch if per_epoch else 0
    resume.advance(schedulers, epochs, done,
                   done % per_epoch if per_epoch else 0)
    rates = [(group['lr'], group['momentum'])
             for group in optimizer.param_groups]
    assert rates == whole[done]
    states = [one.state_dict() for one in schedulers]
    again, schedulers = build(schedule)
    train(again, schedulers, done, per_epoch)
    for one, state in zip(schedulers, states):
        assert one.last_step == state['last_step']
        assert one.base_values == state['base_values']


@pytest.fixture
def run(root, drawn_data, tmp_path, monkeypatch):
    """Train a tiny detector; give what was said of resuming and the rates."""
    path = write_config(tmp_path, root, drawn_data, 'retinanet')
    count = iter(range(9))

    def train(epochs, work='work', resumed=False, resume_with='checkpoint',
              optimizer=None, change_model=None, **changes):
        said, rates = [], []
        monkeypatch.setattr(resume, 'print_log',
                            lambda text, *args: said.append(text))
        cfg = Config.fromfile(path)
        cfg.work_dir, cfg.launcher = str(tmp_path / work), 'none'
        cfg.experiment_name = cfg.visualizer.name = (
            f'{tmp_path.name}{next(count)}')
        cfg.optim_wrapper.optimizer = optimizer or dict(
            type='SGD', lr=1e-3, momentum=.9)
        cfg.param_scheduler = [dict(
            type='CosineAnnealingLR', T_max=epochs, end=epochs,
            by_epoch=True)]
        cfg.train_cfg.update(max_epochs=epochs, val_interval=9)
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.pop('save_best')
        cfg.update(changes)
        cfg.merge_from_dict(dict(model=change_model or {}))
        content = resume_from(cfg) if resumed else None
        runner = build_runner(cfg, resume_with=resume_with,
                              checkpoint=content)
        inner = runner.call_hook

        def call_hook(name, **arguments):
            if name == 'before_train_iter':
                rates.append(
                    runner.optim_wrapper.optimizer.param_groups[0]['lr'])
            inner(name, **arguments)

        runner.call_hook = call_hook
        start(runner, 'train')
        return ' '.join(said), rates

    return train


def test_logs_what_the_checkpoint_overrides(run):
    _, first = run(1)
    assert first == [1e-3] * 4
    other = dict(type='SGD', lr=1e-2, momentum=.8)
    said, rates = run(3, resumed=True, optimizer=other)
    assert 'train_cfg.max_epochs 3 (checkpoint: 1)' in said
    for text in ('optimizer.lr 0.001 (config: 0.01)',
                 'optimizer.momentum 0.9 (config: 0.8)',
                 'param_scheduler[0].T_max 1 (config: 3)',
                 'give --resume-with config'):
        assert text in said
    assert len(rates) == 8


def test_rates_of_the_config_equal_those_of_a_whole_run(run):
    other = dict(type='SGD', lr=1e-2, momentum=.8)
    _, whole = run(3, 'whole', optimizer=other)
    run(1)
    said, rates = run(3, resumed=True, optimizer=other, resume_with='config')
    assert 'taken from the config; the checkpoint has ' in said
    assert rates == whole[4:]


def test_logs_nothing_without_differences(run, capfd):
    run(1)
    said, rates = run(1, resumed=True)
    assert said == '' and rates == []
    assert 'is finished: epoch 1 of 1; raise train_cfg.max_epochs' in ''.join(
        capfd.readouterr())


def test_uses_schedules_of_other_types(run):
    schedule = [dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
    run(1)
    said, rates = run(2, resumed=True, param_scheduler=schedule)
    assert 'as the checkpoint has other types of schedules' in said
    assert rates == pytest.approx([1e-4] * 4)


@pytest.mark.parametrize('resume_with', ['checkpoint', 'config'])
@pytest.mark.parametrize('change, says', [
    (dict(bbox_head=dict(stacked_convs=2)), 'lacks bbox_head.cls_convs.1.'),
    (dict(neck=dict(out_channels=24), bbox_head=dict(in_channels=24)),
     'has another shape: neck.')])
def test_refuses_another_model(change, says, resume_with, run):
    run(1)
    with pytest.raises(CheckpointError, match=says):
        run(2, resumed=True, resume_with=resume_with, change_model=change)


def test_logs_milestones_as_a_list(run):
    schedule = [dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True)]
    run(1, param_scheduler=schedule)
    said, _ = run(2, resumed=True, param_scheduler=[
        dict(type='MultiStepLR', milestones=[1, 2], by_epoch=True)])
    assert 'param_scheduler[0].milestones [1, 3] (config: [1, 2])' in said


def test_refuses_another_optimizer_or_starts_it(run):
    other = dict(type='AdamW', lr=1e-3)
    run(1)
    with pytest.raises(UserError, match='of another optimizer'):
        run(2, resumed=True, optimizer=other)
    said, rates = run(2, resumed=True, optimizer=other, resume_with='config')
    assert 'the optimizer starts without momentum' in said
    assert rates == pytest.approx([5e-4] * 4)
