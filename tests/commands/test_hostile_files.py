"""No command and no function that reads a checkpoint runs its code."""

import contextlib
import warnings

import pytest
import torch
from helpers import hostile_files as hostile
from helpers.commands import error_of
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader, load_checkpoint

from mmcyclemlp import CycleNet, load_pretrained
from mmcyclemlp.backbones.convert import convert_checkpoint
from mmcyclemlp.engine.config import read_config
from mmcyclemlp.engine.runner import build_runner
from mmcyclemlp.engine.start_checkpoint import resume_from, use_backbone_file
from mmcyclemlp.errors import CheckpointError

CONFIG = """
_base_ = '{root}/demo/upernet.py'
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}'))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
"""


@pytest.fixture(scope='module')
def config(root, drawn_data, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'upernet.py'
    path.write_text(CONFIG.format(root=root, data=drawn_data))
    return path


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    """Return a runner before its first step, and its checkpoint."""
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    cfg = read_config(str(config), str(tmp_path / 'work'))
    runner = build_runner(cfg)
    MMLogger.get_current_instance().setLevel('CRITICAL')
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(
        runner.param_schedulers)
    runner.call_hook('before_run')
    loss = sum(value.sum() for value in runner.model.parameters())
    runner.optim_wrapper.update_params(loss)
    runner.save_checkpoint(
        str(tmp_path), 'base.pth', meta=dict(epoch=0, iter=1))
    content = torch.load(tmp_path / 'base.pth', weights_only=False)
    return runner, content


def resume(path, runner):
    runner._has_loaded, runner._resume = False, True
    runner._load_from = path
    runner.load_or_resume()


def start_from(path, runner):
    runner._has_loaded, runner._resume = False, False
    runner._load_from = path
    runner.load_or_resume()


def test_no_hostile_file_is_run(run, config, tmp_path):
    runner, content = run
    canary = tmp_path / 'canary'
    cfg = Config.fromfile(config)
    network = CycleNet(cfg.model.backbone.arch)
    ways = {
        '--resume': lambda path: resume_from(Config(dict(cfg)), path),
        'load_from': lambda path: use_backbone_file(
            Config(dict(cfg, load_from=path))),
        'Runner.resume': lambda path: resume(path, runner),
        'Runner.load_or_resume': lambda path: start_from(
            path, runner),
        'init_cfg': lambda path: load_pretrained(network, path),
        'convert': lambda path: convert_checkpoint(
            path, tmp_path / 'out.pth', arch=cfg.model.backbone.arch,
            force=True),
        'mm': lambda path: load_checkpoint(runner.model, path),
        'file://': lambda path: load_checkpoint(
            runner.model, f'file://{path}'),
    }
    for name, make in hostile.HOSTILE.items():
        path = tmp_path / 'x.pth'
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # zipfile: a duplicate name
            path.write_bytes(make(
                f'touch {canary}', content if name in hostile.READ
                else hostile.small_checkpoint(), tmp_path))
        for way, go in ways.items():
            if name in hostile.RESUMED and way in (
                    '--resume', 'Runner.resume', 'Runner.load_or_resume'):
                go(str(path))
            else:
                with contextlib.suppress(CheckpointError):
                    go(str(path))
                    assert name in hostile.READ, (name, way)
            assert not canary.exists(), (name, way)
    assert runner.iter == 1


def test_a_hostile_config_text_does_run(tmp_path):
    canary = tmp_path / 'canary'
    for name in ('config', 'cfg'):
        data = hostile.HOSTILE[f'meta.{name}'](
            f'touch {canary}', hostile.small_checkpoint(), tmp_path)
        (tmp_path / 'x.pth').write_bytes(data)
        text = torch.load(tmp_path / 'x.pth', weights_only=False)['meta'][name]
        Config.fromstring(text, '.py')
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize('way', ['load_from', 'init_cfg'])
def test_train_names_the_function(way, config, tmp_path):
    canary, path = tmp_path / 'canary', tmp_path / 'x.pth'
    path.write_bytes(hostile.HOSTILE['getattr chain in meta'](
        f'touch {canary}', hostile.small_checkpoint(), tmp_path))
    cfg = tmp_path / 'upernet.py'
    cfg.write_text(f'_base_ = {str(config)!r}\n' + (
        f'load_from = {str(path)!r}\n' if way == 'load_from' else
        'model = dict(backbone=dict(init_cfg=dict(_delete_=True, '
        f"type='Pretrained', checkpoint={str(path)!r})))\n"))
    line = error_of('train', cfg, '--work-dir', tmp_path / 'work')
    assert line.startswith(f'error: {path} is refused: its pickle asks for ')
    assert '__import__' in line and '--trust-checkpoint' in line
    assert not canary.exists()


@pytest.mark.parametrize('kind', ['CycleNet', 'CycleMLP_B1_feat'])
def test_trust_applies_to_the_backbone(kind, config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    cfg = read_config(str(config), str(tmp_path / 'work'))
    backbone = cfg.model.backbone
    if kind != 'CycleNet':
        backbone.type = kind
        del backbone['arch']
        cfg.model.decode_head.in_channels = [64, 128, 320, 512]
        cfg.model.auxiliary_head.in_channels = 320
    backbone.init_cfg = dict(type='Pretrained', checkpoint='mine.pth')
    build_runner(cfg, trusted=True)
    assert backbone.init_cfg.trusted is True
