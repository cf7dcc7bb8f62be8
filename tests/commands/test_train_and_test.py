"""The commands as a user types them, on a few drawn images."""

import pickle
import re
import subprocess
import sys

import cv2
import definition
import numpy as np
import pytest
import torch
from helpers.commands import error_of, run_command
from mmengine.config import Config

from mmcyclemlp import CycleNet, load_pretrained

OVERRIDES = """
_base_ = '{root}/demo/{name}.py'
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}'))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
LENGTH = dict(
    mask_rcnn="""
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_dataloader['dataset']['indices'] = 4
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = None
""",
    upernet="""
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = None
""")


@pytest.fixture
def config(root, drawn_data, tmp_path):
    """Make a short config that inherits one of the demo's."""

    def make(name, more=''):
        text = (OVERRIDES + LENGTH[name] + more).format(
            root=root, name=name, data=drawn_data)
        path = tmp_path / f'{name}.py'
        path.write_text(text)
        return path

    return make


def log_of(done):
    return done.stdout + done.stderr


def test_detector(config, run_cli, tmp_path):
    cfg, work = config('mask_rcnn'), tmp_path / 'work'
    run_cli('train', cfg, '--work-dir', work)
    assert (work / 'epoch_1.pth').is_file()
    done = run_cli(
        'train', cfg, '--work-dir', work, '--resume',
        '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1' in log_of(done)
    assert '(train)  [1][' not in log_of(done) and '[2][2/2]' in log_of(done)
    pictures, out = tmp_path / 'pictures', tmp_path / 'out.pkl'
    done = run_cli(
        'test', cfg, work / 'epoch_2.pth', '--work-dir', work,
        '--show-dir', pictures, '--out', out)
    assert 'coco/bbox_mAP: ' in log_of(done)
    assert 'coco/segm_mAP: ' in log_of(done)
    assert len(list(pictures.rglob('*.jpg'))) == 4
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 4 and 'pred_instances' in predictions[0]
    # A backbone loads from a checkpoint of mm, with optimizer and log.
    backbone = CycleNet(Config.fromfile(cfg).model.backbone.arch)
    report = load_pretrained(backbone, work / 'epoch_2.pth')
    assert set(report.loaded) == set(backbone.state_dict())


def test_segmentor(config, run_cli, drawn_data, tmp_path):
    # SyncBN is in its config, and there is no GPU.
    cfg, work = config('upernet'), tmp_path / 'work'
    # There is nothing to resume yet: it starts anew.
    run_cli('train', cfg, '--work-dir', work, '--resume')
    done = run_cli(
        'train', cfg, '--work-dir', work, '--resume',
        work / 'iter_2.pth', '--cfg-options', 'train_cfg.max_iters=3')
    assert 'resumed epoch: 0, iter: 2' in log_of(done)
    pictures, out = tmp_path / 'pictures', tmp_path / 'out'
    done = run_cli(
        'test', cfg, work / 'iter_3.pth', '--work-dir', work,
        '--show-dir', pictures, '--out-dir', out, '--tta', '--cfg-options',
        'tta_pipeline.1.transforms.0.0.scale_factor=1.0')
    assert 'mIoU: ' in log_of(done)
    assert len(list(pictures.rglob('*.png'))) == 4
    # Saved label maps have the labels of the files: 0 is unlabeled.
    said = float(re.findall(r'mIoU: ([0-9.]+)', log_of(done))[-1])
    assert said == pytest.approx(mean_iou(
        out, drawn_data / 'annotations' / 'val', 7), abs=0.01)


def mean_iou(predictions, labels, num_classes):
    """mIoU in percent of maps whose classes are 1 to ``num_classes``."""
    names = sorted(path.name for path in labels.iterdir())
    assert names == sorted(path.name for path in predictions.iterdir())
    ours, theirs = (
        np.stack([cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
                  for name in names]) for folder in (predictions, labels))
    labeled = theirs > 0
    ious = []
    for c in range(1, num_classes + 1):
        a, b = ours[labeled] == c, theirs[labeled] == c
        if (a | b).any():
            ious.append(100 * (a & b).sum() / (a | b).sum())
    return np.mean(ious)


def test_two_processes(config, root, tmp_path):
    cfg, work = config('upernet'), tmp_path / 'work'
    done = subprocess.run(
        ['bash', 'tools/dist_train.sh', '2', str(cfg), '--work-dir',
         str(work)], cwd=root, capture_output=True, text=True, timeout=300,
        env={'PATH': f'{sys.prefix}/bin:/usr/bin:/bin',
             'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, log_of(done)
    assert (work / 'iter_2.pth').is_file()


def test_load_from_an_official_file(config, run_cli, root, tmp_path):
    arch = Config.fromfile(config('upernet')).model.backbone.arch
    classifier = CycleNet(arch, fork_feat=False, num_classes=3)
    torch.save(definition.official_file(classifier), tmp_path / 'official.pth')
    # A learning rate of 0, so that the weights are to be seen afterwards.
    done = run_cli(
        'train', config('upernet'), '--work-dir', tmp_path / 'work',
        '--cfg-options', f'load_from={tmp_path}/official.pth',
        'optim_wrapper.optimizer.lr=0.')
    number = len(CycleNet(arch).state_dict()) - 8
    assert f'{number} tensors loaded' in log_of(done)
    trained = torch.load(tmp_path / 'work' / 'iter_2.pth',
                         weights_only=False)['state_dict']
    key = 'network.4.1.attn.sfc_h.weight'
    assert torch.equal(trained[f'backbone.{key}'],
                       classifier.state_dict()[key])


class Payload:

    def __reduce__(self):
        import os

        return os.system, ('echo bird > canary', )


def write_checkpoint(what, checkpoint):
    """Write a file that is no checkpoint of the model, or an empty one."""
    if what == 'hostile':
        torch.save(Payload(), checkpoint)
    elif what == 'damaged':
        checkpoint.write_bytes(b'PK\x03\x04 cut short')
    elif what == 'backbone alone':
        torch.save(CycleNet('b1').state_dict(), checkpoint)
    elif what == 'classifier':
        state = CycleNet('b1', fork_feat=False).state_dict()
        torch.save({'state_dict': {
            f'backbone.{key}': value for key, value in state.items()
        }}, checkpoint)
    elif what == 'no head':
        torch.save({'state_dict': {
            f'backbone.{key}': value
            for key, value in CycleNet('b1').state_dict().items()
        } | {'rpn_head.rpn_cls.weight': torch.ones(1)}}, checkpoint)
    else:
        torch.save({'state_dict': {}}, checkpoint)


@pytest.mark.parametrize('tool, what, message', [
    ('train', 'no config', 'there is no config file gone.py'),
    ('train', 'bad config', r'NameError'),
    ('train', 'no data', "which does not exist"),
    ('train', 'class count', 'num_classes is 9'),
    ('train', 'amp', '--amp: '),
    ('train', 'no base batch', '--auto-scale-lr: '),
    ('train', 'no pretrained', 'there is no checkpoint file gone.pth'),
    ('train', 'no load_from', 'there is no checkpoint file gone.pth'),
    ('train', 'no resume', 'there is no checkpoint file gone.pth'),
    ('train', 'resume weights', 'there is nothing to resume'),
    ('train', 'hostile', 'is refused'),
    ('test', 'no checkpoint', 'there is no checkpoint file gone.pth'),
    ('test', 'hostile', 'is refused'),
    ('test', 'backbone alone', 'file.pth is a backbone alone (bare'),
    ('test', 'classifier', 'file.pth is a backbone alone (mm layout'),
    ('test', 'no head', 'file.pth lacks neck.'),
    ('train', 'options', '--cfg-options: model.backbone.init_cfg '),
    ('test', 'empty', 'file.pth holds no weights of a model'),
    ('test', 'damaged', 'is damaged or not a checkpoint'),
    ('test', 'no tta', '--tta: '),
    ('test', 'out', '--out: predictions.json does not end in .pkl'),
])
def test_mistakes_end_in_one_line(tool, what, message, config, root,
                                  monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if what == 'amp' and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    checkpoint = tmp_path / 'file.pth'
    write_checkpoint(what, checkpoint)
    name = 'upernet' if what == 'class count' else 'mask_rcnn'
    cfg = config(name, 'x = undefined\n' if what == 'bad config' else '')
    args, options = [], []
    if tool == 'test':
        args = ['gone.pth' if what == 'no checkpoint' else checkpoint]
    if what == 'no config':
        cfg = 'gone.py'
    elif what == 'no data':
        options = ['train_dataloader.dataset.data_root=gone']
    elif what == 'class count':
        options = ['model.decode_head.num_classes=9']
    elif what == 'amp':
        args = ['--amp']
    elif what == 'no base batch':
        args = ['--auto-scale-lr']
        cfg.write_text(cfg.read_text() + 'auto_scale_lr = dict('
                       '_delete_=True, enable=False)\n')
    elif what == 'no pretrained':
        cfg.write_text(cfg.read_text() + "model = dict(backbone=dict("
                       "init_cfg=dict(_delete_=True, type='Pretrained', "
                       "checkpoint='gone.pth')))\n")
    elif what == 'options':
        options = ['model.backbone.init_cfg=None',
                   'model.backbone.init_cfg.type=Pretrained']
    elif what == 'no load_from':
        options = ['load_from=gone.pth']
    elif what == 'no resume':
        args = ['--resume', 'gone.pth']
    elif what in ('hostile', 'resume weights') and tool == 'train':
        args = ['--resume', checkpoint]
    elif what == 'no tta':
        args += ['--tta']
    elif what == 'out':
        args += ['--out', 'predictions.json']
    if options:
        args += ['--cfg-options', *options]
    assert message in error_of(tool, cfg, *args, '--work-dir',
                               tmp_path / 'work')
    assert not (tmp_path / 'canary').exists()


@pytest.mark.parametrize('option, message', [
    ('model.backbone.archh=b1', "keyword argument 'archh'"),
    ('model.backbone.type=CycleMess', 'CycleMess is not in the'),
    ('model.neck.in_channels=[64,128]', 'model.neck.in_channels is [64, 128]'),
    ('train_dataloader.dataset.an_file=x', "keyword argument 'an_file'"),
    ('train_cfg.max_epoch=3', "keyword argument 'max_epoch'"),
    ('optim_wrapper.optimizer.lrr=1', "keyword argument 'lrr'"),
])
def test_what_cannot_be_built(option, message, config, root, tmp_path):
    said = error_of(
        'train', config('mask_rcnn'), '--work-dir', tmp_path,
        '--cfg-options', option)
    assert message in said


@pytest.mark.parametrize('option', [
    'seed', 'a=[1,2', 'model.neck=dict(num_outs=5,start_level=1)'])
def test_options_that_are_none(option, config, root, capsys):
    assert run_command('train', config('mask_rcnn'),
                       '--cfg-options', option) == 2
    assert f'--cfg-options: {option} is not KEY=VALUE' in (
        capsys.readouterr().err)


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_help(tool, run_cli):
    text = run_cli(tool, '--help').stdout
    assert '--cfg-options' in text and '--work-dir' in text
