"""Look up types, parts of models and data sets in a config."""

import pytest
from mmengine.registry import MODELS
from torch import nn
from torch.utils.data import ConcatDataset

from mmcyclemlp import CycleNet
from mmcyclemlp.engine import config_nodes
from mmcyclemlp.engine.config_nodes import is_classifier


def test_names():
    for kind in ('CycleNet', 'mmdet.CycleNet', CycleNet,
                 'mmcyclemlp.backbones.CycleNet'):
        assert config_nodes.name_of(kind) == 'CycleNet'
    assert config_nodes.name_of(None) == ''
    for train_cfg, name in (
            ({}, 'EpochBasedTrainLoop'), (dict(type='a.Mine'), 'Mine'),
            (dict(by_epoch=False), 'IterBasedTrainLoop')):
        assert config_nodes.loop_of(train_cfg) == name


def test_types():
    assert config_nodes.find_type('CycleNet', MODELS) is CycleNet
    assert config_nodes.find_type(CycleNet, MODELS) is CycleNet
    for name in ('CycleNot', '', '.', 'gone.of.Mine'):
        assert config_nodes.find_type(name, MODELS) is None
    assert config_nodes.is_mm(MODELS)
    assert not config_nodes.is_mm(nn.Identity())


def test_nodes_and_leaves():
    inner = dict(type='CycleMLP_B1_feat')
    model = dict(type='A', parts=[dict(type='B', backbone=inner), dict(c=1)])
    assert [node['type'] for node in config_nodes.all_nodes(model)] == [
        'A', 'B', 'CycleMLP_B1_feat']
    assert list(config_nodes.networks(model)) == [inner]
    a, b = dict(type='CocoDataset', ann_file='a'), dict(type='CocoDataset')
    wrapped = dict(type='RepeatDataset', dataset=dict(
        type='ConcatDataset', datasets=[a, b]))
    assert config_nodes.leaves(wrapped) == [a, b]
    assert config_nodes.leaves(ConcatDataset([[1], [2]])) == [[1], [2]]


@pytest.mark.parametrize('fork_feat', [True, False])
def test_classifiers(fork_feat):
    backbone = dict(type='CycleNet', fork_feat=fork_feat)
    network = CycleNet(dict(
        embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1),
        mlp_ratios=(1, 1, 1, 1)), fork_feat=fork_feat)
    model = nn.Module()
    model.backbone = network
    for one in (dict(backbone=backbone), backbone, network, model,
                dict(type='TTA', module=dict(backbone=backbone))):
        assert is_classifier(one) is not fork_feat
    for one in ({}, dict(backbone=None), nn.Identity()):
        assert not is_classifier(one)
