"""What is replaced for a trace gives the same at any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.export import for_any_size
from mmcyclemlp.export.any_size import AdaptivePool

SIZES = dict(embed_dims=(8, 16), depths=(1, 1), mlp_ratios=(2, 2))


@pytest.mark.parametrize('bins', [(2, 2), (3, 1), (6, 5)])
def test_adaptive_pool(bins):
    for height in range(1, 14):
        x = torch.rand(2, 3, height, 17 - height, dtype=torch.float64)
        torch.testing.assert_close(
            AdaptivePool(bins)(x), F.adaptive_avg_pool2d(x, bins))


def test_the_original_is_left_alone():
    net = nn.Sequential(CycleNet(SIZES, out_indices=[1]), nn.Sequential(
        nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(1)))
    copy = for_any_size(net)
    assert [type(one) for one in net[1]] == 2 * [nn.AdaptiveAvgPool2d]
    assert net.training and net[0].network[0][0].attn.sfc_h.backend is None
    # A mean is one as it is.
    assert [type(one) for one in copy[1]] == [
        AdaptivePool, nn.AdaptiveAvgPool2d]
    block = copy[0].network[0][0]
    assert {block.backend, block.attn.sfc_h.backend} == {'plain'}
    assert not copy.training
