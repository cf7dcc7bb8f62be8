"""Arguments of CycleNet that are not valid."""

import math

import pytest

from mmcyclemlp import CycleNet

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 2, 1, 1],
             mlp_ratios=[4, 4, 2, 2])
LIKE_SWIN = dict(SMALL, downsample='patch_merging', reweight=False)


@pytest.mark.parametrize('kwargs, message', [
    (dict(arch='b6'), "b1.*b5.*'b6'"),
    (dict(arch=dict(SMALL, depth=[1])), "depth'"),
    (dict(arch=dict(embed_dims=[6], depths=[1])), 'mlp_ratios'),
    (dict(arch=dict(SMALL, depths=[1, 2])), 'one positive number a stage'),
    (dict(arch=dict(SMALL, depths=[1, 0, 1, 1])), 'one positive number'),
    (dict(arch=dict(SMALL, mlp_ratios=[4, 4, 4, 1e400])), 'one positive'),
    (dict(arch=dict(SMALL, depths=[1, 1.5, 1, 1])), 'the first two whole'),
    (dict(arch=dict(embed_dims=[], depths=[], mlp_ratios=[])), 'a stage'),
    (dict(arch=dict(SMALL, downsample='pool')), "patch_merging.*'pool'"),
    (dict(stem='conv3'), "'conv4', got 'conv3'"),
    (dict(out_indices=(1, 4)), r'0 to 3.*\(1, 4\)'),
    (dict(out_indices=()), 'ascending stages'),
    (dict(out_indices=(2, 1)), 'ascending stages'),
    (dict(frozen_stages=5), '-1 to 4, got 5'),
    (dict(norm_cfg=dict(type='BN')), "norm_cfg.*'BN'"),
    (dict(act_cfg=dict(type='Gelu')), "act_cfg.*'Gelu'"),
    (dict(act_cfg=dict(type='GELU', approximate='tanh')), 'approximate'),
    (dict(backend='cuda'), "triton, torch, plain, reference.*'cuda'"),
    (dict(init_cfg=dict(type='Pretrain', checkpoint='x')), 'Pretrained'),
    (dict(init_cfg=dict(type='Pretrained', chekpoint='x')), 'chekpoint'),
    (dict(norm_cfg=dict(type='LN', epsilon=1e-5)), 'epsilon'),
    (dict(norm_cfg=dict(type='LN', eps='a')), "'eps' of norm_cfg.*got 'a'"),
    (dict(norm_cfg='LN'), "norm_cfg takes a dict.*got 'LN'"),
    (dict(act_cfg=dict(type=[])), "act_cfg takes a dict.*got .*\\[\\]"),
    (dict(in_channels='3'), "in_channels is a whole number.*got '3'"),
    (dict(num_classes=-1), 'num_classes is a whole number, 1 or .*got -1'),
    (dict(drop_rate=math.nan), 'drop_rate is a number.*got nan'),
    (dict(drop_path_rate=1.), 'drop_path_rate is .*below 1, got 1.0'),
    (dict(skip_lam=0), 'skip_lam is a number.*got 0'),
    (dict(frozen_stages=1.5), 'frozen_stages counts.*got 1.5'),
    (dict(out_indices=3), 'out_indices are .*got 3'),
    (dict(out_indices=(.5, )), 'out_indices are .*got .0.5,'),
    (dict(arch=dict(embed_dims=8, depths=[1], mlp_ratios=[1])),
     "got .*'embed_dims': 8"),
    (dict(init_cfg='x.pth'), "init_cfg takes .*got 'x.pth'"),
])
def test_errors_name_the_value(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CycleNet(**kwargs)
