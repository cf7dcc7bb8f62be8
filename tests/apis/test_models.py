"""Archs and configs are read and built in one way."""

import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.apis.models import (
    build_backbone,
    find_device,
    is_backbone_alone,
    normalization_of,
    read_model_config,
)
from mmcyclemlp.errors import CheckpointError, UserError


def test_arch():
    cfg = read_model_config('b1', {'model.backbone.in_channels': 5})
    assert is_backbone_alone(cfg)
    model = build_backbone(cfg)
    assert isinstance(model, CycleNet) and not model.training
    assert model.patch_embed.proj.in_channels == 5
    mean, std, swap, order = normalization_of(cfg)
    assert (mean[0], std[0], swap, order) == (123.675, 58.395, True, 'RGB')
    with pytest.raises(UserError, match='only model.backbone.NAME can'):
        read_model_config('b1', {'model.neck.num_outs': 5})


@pytest.mark.parametrize('place', ['model', 'config'])
def test_normalization_of_a_config(place):
    settings = dict(mean=None, std=None, bgr_to_rgb=False)
    cfg = dict(model={})
    (cfg['model'] if place == 'model' else cfg)['data_preprocessor'] = settings
    assert normalization_of(cfg) == (None, None, False, 'BGR')
    settings.update(mean=(1, 2, 3), std=(4, 5, 6), bgr_to_rgb=True)
    assert normalization_of(cfg) == ([1, 2, 3], [4, 5, 6], True, 'RGB')
    # Such a config loads RGB.
    settings.update(bgr_to_rgb=False, rgb_to_bgr=True)
    assert normalization_of(cfg)[2:] == (True, 'BGR')


@pytest.mark.parametrize('options', [
    dict(fork_last3=True), dict(fork_feat=False)], ids=str)
def test_weights_of_a_backbone(options, tmp_path):
    """From files with other output norms, and with a classifier."""
    path = tmp_path / 'b1.pth'
    torch.save(CycleNet('b1', **options).state_dict(), path)
    model = build_backbone(read_model_config('b1'), str(path))
    for key, value in torch.load(path).items():
        if key.startswith(('patch_embed.', 'network.')):
            assert torch.equal(model.state_dict()[key], value)
    with pytest.raises(CheckpointError, match='b1.pth: the checkpoint does'):
        build_backbone(read_model_config('b2'), str(path))


@pytest.mark.parametrize('backbone, message', [
    (None, 'no model.backbone'),
    (dict(type=CycleNet, arch='b9'), 'cannot be built: .*b9'),
    (dict(type=torch.nn.Identity), 'the backbone is a Identity'),
])
def test_other_backbones(backbone, message):
    pytest.importorskip('mmengine')
    with pytest.raises(UserError, match=message):
        build_backbone(dict(model=dict(backbone=backbone)))


def test_device():
    assert find_device('cpu') == 'cpu'
    for name in ('nope', 'meta', 'cuda:99'):
        with pytest.raises(UserError, match=f'--device {name}: '):
            find_device(name)
