"""Fixtures of the tests of runs."""

import pytest
from helpers.tiny_configs import write_config
from mmengine.config import Config

from mmcyclemlp.engine.runner import build_runner, start
from mmcyclemlp.errors import UserError


@pytest.fixture
def make_cfg(root, drawn_data, tmp_path):
    """Make the config of a tiny model on drawn data."""
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


@pytest.fixture
def error_of():
    """Train with a config that must fail; return the line."""

    def error_of(cfg, check='error'):
        with pytest.raises(UserError) as caught:
            start(build_runner(cfg), 'train', check)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    return error_of
