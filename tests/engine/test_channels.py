"""Compare necks and heads with the feature maps of the backbone."""

import pytest
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.engine.channels import check_channels
from mmcyclemlp.errors import UserError


def with_neck(in_channels, **kwargs):
    necks = pytest.importorskip('mmdet.models.necks')
    return nn.ModuleDict(dict(
        backbone=CycleNet('b1', **kwargs),
        neck=necks.FPN(in_channels, 8, 4)))


def with_heads(name, *all_kwargs):
    heads = pytest.importorskip('mmseg.models.decode_heads')
    made = []
    for kwargs in all_kwargs:
        several = (isinstance(kwargs['in_index'], list)
                   and 'input_transform' not in kwargs)
        head = heads.UPerHead if several else heads.FCNHead
        made.append(head(
            channels=8, num_classes=3,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'), **kwargs))
    return nn.ModuleDict({
        'backbone': CycleNet('b1'),
        name: made[0] if len(made) == 1 else nn.ModuleList(made)})


def test_neck():
    check_channels(with_neck([64, 128, 320, 512]))
    check_channels(with_neck([128, 320, 512], out_indices=(1, 2, 3)))
    with pytest.raises(UserError) as caught:
        check_channels(with_neck([64, 128, 320, 512], out_indices=(1, 2, 3)))
    assert str(caught.value) == (
        'model.neck.in_channels is [64, 128, 320, 512], but the backbone '
        '(out_indices [1, 2, 3]) returns maps of [128, 320, 512] channels')
    with pytest.raises(UserError, match='in_channels'):
        check_channels(with_neck([96, 192, 384, 768]))


@pytest.mark.parametrize('right, wrong', [
    (dict(in_index=2, in_channels=320), dict(in_index=3, in_channels=320)),
    (dict(in_index=-1, in_channels=512), dict(in_index=-2, in_channels=512)),
    (dict(in_index=[0, 3], in_channels=[64, 512]),
     dict(in_index=[0, 2], in_channels=[64, 512])),
    (dict(in_index=[0, 3], in_channels=[64, 512],
          input_transform='resize_concat'),
     dict(in_index=[0, 2], in_channels=[64, 512],
          input_transform='resize_concat')),
])
@pytest.mark.parametrize('name', ['decode_head', 'auxiliary_head'])
def test_heads(name, right, wrong):
    check_channels(with_heads(name, right))
    check_channels(with_heads(name, right, right))
    for heads in [(wrong, ), (right, wrong)]:
        with pytest.raises(UserError, match=f'model.{name}.in_channels is '):
            check_channels(with_heads(name, *heads))


def test_reports_an_index_past_the_maps():
    with pytest.raises(UserError, match='in_index 4 is past the 4 maps'):
        check_channels(with_heads(
            'decode_head', dict(in_index=4, in_channels=512)))


def test_skips_other_models():
    check_channels(CycleNet('b1', fork_feat=False))
    check_channels(nn.ModuleDict(dict(
        backbone=nn.Identity(), neck=nn.Identity())))
    check_channels(nn.ModuleDict(dict(
        backbone=CycleNet('b1'), neck=nn.Identity())))
    for heads in (nn.Identity(), nn.ModuleList([nn.Identity()])):
        check_channels(nn.ModuleDict(dict(
            backbone=CycleNet('b1'), decode_head=heads)))
