"""The configs of docs/configs.md build, and its keys are in the configs."""

import re

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope

from mmcyclemlp.engine.config import read_config


@pytest.fixture
def page(root):
    return (root / 'docs' / 'configs.md').read_text()


def test_configs_of_the_page(page, root, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'configs').symlink_to(root / 'configs')
    cfgs = {}
    for name, text in re.findall(r'```python\n# (mine/\w+\.py)\n(.*?)```',
                                 page, flags=re.DOTALL):
        (tmp_path / name).write_text(text)
        cfg = cfgs[name] = read_config(tmp_path / name)
        init_default_scope(cfg.default_scope)
        with torch.device('meta'):  # only shapes are needed
            model = MODELS.build(cfg.model)
        assert model.backbone.embed_dims[-1] in (256, 512, 768)
    shorter, larger, small = cfgs.values()
    assert shorter.train_dataloader.batch_size == 4
    assert shorter.train_dataloader.dataset.ann_file  # merged
    assert shorter.train_dataloader.dataset.pipeline[2].scale == (667, 400)
    assert shorter.param_scheduler[-1].end == shorter.train_cfg.max_epochs
    assert larger.model.backbone.init_cfg.checkpoint == 'CycleMLP_B5.pth'
    assert small.model.backbone.init_cfg is None


def test_keys_of_the_page(page, root):
    cfgs = [
        read_config(name) for name in (
            'retinanet_cyclemlp-b1_fpn_1x_coco',
            'mask-rcnn_cyclemlp-b1_fpn_1x_coco',
            'fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512',
            'upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512')]
    keys = set(re.findall(
        r'`((?:model|train_\w+|optim_wrapper)\.[\w.]+)', page))
    # Arguments of the backbone have defaults. The last key is a classifier's.
    keys -= {key for key in keys if key.startswith('model.backbone.')}
    keys -= {'model.data_preprocessor.num_classes'}
    assert len(keys) == 9
    for key in keys:
        assert any(key in flat(cfg) for cfg in cfgs), key


def flat(cfg, prefix=''):
    """Yield the keys of a config, with dots."""
    for key, value in cfg.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{key}.')
