"""Check that a config has what a command needs."""

import copy

import pytest
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from mmcyclemlp.engine import config_checks
from mmcyclemlp.engine.config_checks import check_config
from mmcyclemlp.errors import UserError

LOADER = dict(dataset=dict(type='CocoDataset'), batch_size=2,
              sampler=dict(type='DefaultSampler', shuffle=True))
WHOLE = dict(
    default_scope='mmdet',
    model=dict(type='RetinaNet'), train_dataloader=LOADER,
    train_cfg=dict(by_epoch=True, max_epochs=3),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
    val_dataloader=LOADER, val_cfg=dict(type='ValLoop'),
    val_evaluator=[dict(type='CocoMetric')], test_dataloader=LOADER,
    test_cfg=dict(type='TestLoop'), test_evaluator=dict(type='CocoMetric'))


def config(**changes):
    whole = {**copy.deepcopy(WHOLE), **changes}
    return Config({key: value for key, value in whole.items()
                   if value != 'absent'}, cfg_text='-', filename='mine.py')


def error_of(action='train', **changes):
    with pytest.raises(UserError) as caught:
        check_config(config(**changes), action)
    text = str(caught.value)
    assert text.startswith('mine.py: ') and '\n' not in text
    return text[len('mine.py: '):]


@pytest.mark.parametrize('changes', [
    {}, dict(default_hooks=None), dict(auto_scale_lr=None),
    dict(param_scheduler=None), dict(default_hooks={}),
    dict(val_dataloader=None, val_cfg=None, val_evaluator=None),
    dict(val_dataloader=[LOADER], val_cfg=dict(type='MultiValLoop'),
         val_evaluator=[dict(type='CocoMetric')]),
    dict(val_evaluator=dict(metrics=[dict(type='mmdet.VOCMetric')])),
    dict(train_cfg=dict(type='MineLoop')),
    dict(train_cfg=dict(type=EpochBasedTrainLoop, max_epochs=1),
         default_hooks=dict(timer=None))], ids=repr)
def test_accepts_what_mm_runs(changes, monkeypatch):
    for name in ('MineLoop', 'MultiValLoop'):
        monkeypatch.setitem(LOOPS.module_dict, name, EpochBasedTrainLoop)
    for action in ('train', 'test', 'check'):
        check_config(config(**changes), action)


def test_a_test_needs_no_training_keys():
    part = dict(train_dataloader=None, train_cfg=None, optim_wrapper=None)
    check_config(config(**part), 'test')
    assert error_of(**part) == (
        'train_dataloader, train_cfg and optim_wrapper are missing or None: '
        'add them')


def test_reports_all_mistakes_together():
    assert error_of(model='absent', train_cfg=None, train_dataloader=dict(
        dataset=[])) == (
            'model is missing: add model=dict(type=...); train_cfg is '
            'missing or None: add it; train_dataloader.dataset is a list: '
            "make it dict(type='ConcatDataset', datasets=[...]); "
            'train_dataloader has no sampler: set train_dataloader.sampler='
            "dict(type='DefaultSampler', shuffle=True)")


@pytest.mark.parametrize('changes, start', [
    (dict(model=dict(backbone={})), 'model has no type'),
    (dict(model=[]), 'model is a list'),
    (dict(train_cfg=dict(by_epoch=False)), 'train_cfg has no max_iters'),
    (dict(val_cfg=None),
     'val_dataloader and val_evaluator without val_cfg: '),
    (dict(val_dataloader=[LOADER]), 'val_dataloader is a list: '),
    (dict(val_evaluator=dict(ann_file='a')), 'val_evaluator has no type'),
    (dict(train_dataloader=dict(batch_size=1)),
     'train_dataloader has no dataset'),
    (dict(default_hooks=[]), 'default_hooks is a list'),
    (dict(auto_scale_lr=dict(enable=True)), 'auto_scale_lr is enabled'),
    (dict(model=dict(type='RetinaNot')), "model.type is 'RetinaNot', which"),
    (dict(optim_wrapper=dict(optimizer=dict(type='AdamX'))),
     "optim_wrapper.optimizer.type is 'AdamX', which no installed"),
    (dict(param_scheduler=[dict(type='MultiStepLR'), dict(type='StepLess')]),
     "param_scheduler[1].type is 'StepLess'"),
    (dict(val_evaluator=[dict(type='CocoMetric'), dict(type='Metre')]),
     "val_evaluator[1].type is 'Metre'"),
    (dict(custom_hooks=[dict(type='Crook')]), "custom_hooks[0].type is 'C"),
    (dict(custom_hooks=[dict(type='')]), "custom_hooks[0].type is ''"),
    (dict(custom_hooks=[dict(type='.')]), "custom_hooks[0].type is '.'"),
    (dict(custom_hooks=[dict(type='gone.of.Mine')]), 'custom_hooks[0].type'),
    (dict(default_hooks=dict(timer=dict(type='IterTimer'))),
     "default_hooks.timer.type is 'IterTimer'"),
])
def test_one_mistake(changes, start):
    assert error_of(**changes).startswith(start)


@pytest.mark.parametrize('action, missing', [
    ('train', 'train_dataloader, train_cfg and optim_wrapper are missing: '
     'data, optimizer and runner are in the form of mmdet 2.x or mmseg 0.x'),
    ('test', 'test_dataloader, test_cfg and test_evaluator are missing: data '
     'and evaluation are in'),
    ('check', 'train_dataloader is missing: data is in the form of mmdet')])
def test_an_old_config(action, missing):
    old = Config(dict(
        model=dict(type='RetinaNet'), data=dict(samples_per_gpu=2),
        optimizer=dict(type='SGD'), evaluation=dict(interval=1),
        runner=dict(type='EpochBasedRunner')),
        cfg_text='-', filename='mine.py')
    with pytest.raises(UserError) as caught:
        check_config(old, action)
    assert str(caught.value).startswith(f'mine.py: {missing}')


def test_logs_old_keys_that_are_ignored(monkeypatch):
    said = []
    monkeypatch.setattr(config_checks, 'print_log',
                        lambda text, *args: said.append(text))
    check_config(config(lr_config=dict(policy='step'),
                       optimizer=dict(type='SGD')), 'train')
    assert said == ['mine.py: lr_config is of mmdet 2.x or mmseg 0.x and is '
                    'ignored: use param_scheduler']
