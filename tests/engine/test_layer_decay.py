"""Learning rates with layer-wise decay."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.errors import UserError

NAME = 'mmcyclemlp.engine.layer_decay.LayerDecayConstructor'
SIZES = dict(embed_dims=[8, 16, 24, 32], depths=[1, 2, 1, 1],
             mlp_ratios=[1, 1, 1, 1])
# Of each parameter of the backbone, by how its name begins; five blocks.
DEPTHS = {
    'patch_embed.': 0,
    'network.0.0.': 1,
    'network.1.': 2, 'network.2.0.': 2,
    'network.2.1.': 3,
    'network.3.': 4, 'network.4.0.': 4,
    'network.5.': 5, 'network.6.0.': 5,
    'norm': 6,
    'head.': 6,
}


class Detector(nn.Module):
    """What detectors and segmentors look like from outside."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Linear(3, 3)
        self.head = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))


def optimizer(model, lr=1., weight_decay=.1, **paramwise):
    return build_optim_wrapper(model, dict(
        constructor=NAME, paramwise_cfg=paramwise,
        optimizer=dict(type='SGD', lr=lr, weight_decay=weight_decay)
    )).optimizer


def settings(model, key, **kwargs):
    """A setting of each parameter, by its name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter]: group[key]
            for group in optimizer(model, **kwargs).param_groups
            for parameter in group['params']}


def depth_of(name):
    depth, = {depth for start, depth in DEPTHS.items()
              if name.startswith(start)}
    return depth


@pytest.mark.parametrize('options', [
    dict(), dict(fork_feat=False), dict(stem='conv4'),
    dict(arch=dict(SIZES, downsample='patch_merging', reweight=False))])
def test_every_parameter(options):
    model = Detector(CycleNet(**dict(dict(arch=SIZES), **options)))
    rates = settings(model, 'lr', layer_decay_rate=.5)
    for name, _ in model.named_parameters():
        start, _, rest = name.partition('.')
        depth = depth_of(rest) if start == 'backbone' else 6
        assert rates.pop(name) == .5 ** (6 - depth), name
    assert not rates


def test_unused_stages_do_not_count():
    net = CycleNet(SIZES, out_indices=(0, 1))
    assert net.get_layer_depth('norm0.weight') == (4, 5)
    assert net.get_layer_depth('network.2.1.norm1.weight') == (3, 5)
    names = dict(net.named_parameters())
    assert max(net.get_layer_depth(name)[0] for name in names) == 4
    rates = settings(Detector(net), 'lr', layer_decay_rate=.5)
    frozen = {name for name in names if name.startswith(
        ('network.3', 'network.4', 'network.5', 'network.6'))}
    assert not any(f'backbone.{name}' in rates for name in frozen)


def test_a_rate_of_one_changes_nothing():
    groups = optimizer(Detector(CycleNet(SIZES)), lr=.3,
                       layer_decay_rate=1.).param_groups
    assert [group['lr'] for group in groups] == [.3]


def test_keeps_other_settings_of_mm():
    model = Detector(CycleNet(SIZES))
    paramwise = dict(
        layer_decay_rate=.5, norm_decay_mult=0., bias_decay_mult=.5,
        bypass_duplicate=True, custom_keys={'sfc_h': dict(lr_mult=.1)})
    rates = settings(model, 'lr', lr=2., **paramwise)
    assert rates['backbone.network.0.0.attn.sfc_w.weight'] == 2 * .5 ** 5
    assert rates['backbone.network.0.0.attn.sfc_h.weight'] == (
        pytest.approx(.2 * .5 ** 5))
    assert rates['neck.weight'] == 2
    decays = settings(model, 'weight_decay', **paramwise)
    assert decays['backbone.network.0.0.norm1.weight'] == 0
    assert decays['head.0.bias'] == 0
    assert decays['backbone.network.0.0.attn.proj.bias'] == .05
    assert decays['backbone.network.0.0.attn.proj.weight'] == .1
    # Seven layers, in three kinds or four, and not a group a parameter.
    assert len(optimizer(model, **paramwise).param_groups) <= 7 * 4


@pytest.mark.parametrize('rate', [None, 0, -.5, 1.5, '0.8', float('nan')])
def test_refuses_a_wrong_rate(rate):
    with pytest.raises(UserError, match='above 0 and up to 1'):
        optimizer(Detector(CycleNet(SIZES)), layer_decay_rate=rate)


def test_refuses_a_backbone_without_layers():
    with pytest.raises(UserError, match='get_layer_depth.*a Conv2d'):
        optimizer(Detector(nn.Conv2d(3, 3, 1)), layer_decay_rate=.8)
    with pytest.raises(UserError, match='Linear has no backbone'):
        optimizer(nn.Linear(3, 3), layer_decay_rate=.8)


def test_steps_a_shared_parameter_once():
    model = Detector(CycleNet(SIZES))
    model.head.append(model.neck)
    with pytest.raises(UserError, match=r'shape \(3, 3\): set bypass'):
        optimizer(model, layer_decay_rate=.8)
    rates = [group for group in optimizer(
        model, layer_decay_rate=.8, bypass_duplicate=True).param_groups
        if any(one is model.neck.weight for one in group['params'])]
    assert len(rates) == 1


def test_refuses_an_optimizer_without_lr():
    with pytest.raises(UserError, match='has none'):
        build_optim_wrapper(Detector(CycleNet(SIZES)), dict(
            constructor=NAME, paramwise_cfg=dict(layer_decay_rate=.8),
            optimizer=dict(type='SGD')))


def test_agrees_with_mmpretrain():
    pytest.importorskip('mmpretrain')
    try:
        from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
        from mmpretrain.models import ImageClassifier
    except Exception as error:  # its torchvision may be of another torch
        pytest.skip(f'mmpretrain cannot be imported: {error}')
    init_default_scope('mmpretrain')
    model = ImageClassifier(dict(
        type='mmcyclemlp.CycleNet', arch=SIZES, fork_feat=False))
    theirs = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='SGD', lr=1., weight_decay=.1)),
        dict(layer_decay_rate=.7, norm_decay_mult=0.))(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert settings(model, 'lr', layer_decay_rate=.7) == pytest.approx({
        names[group['params'][0]]: group['lr']
        for group in theirs.optimizer.param_groups})


def test_a_step_uses_the_rates():
    model = Detector(CycleNet(SIZES))
    sgd = optimizer(model, weight_decay=0., layer_decay_rate=.5)
    before = {name: parameter.detach().clone()
              for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()
    for name, parameter in model.named_parameters():
        if 'patch_embed' in name or 'neck' in name:
            step = .5 ** 6 if 'patch_embed' in name else 1.
            torch.testing.assert_close(
                before[name] - parameter, torch.full_like(parameter, step),
                rtol=0, atol=1e-6)
