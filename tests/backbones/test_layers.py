import torch

from mmcyclemlp.backbones.layers import DropPath


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = torch.ones(4000, 2, 3)
    y = DropPath(0.25)(x)
    assert torch.equal(y, y[:, :1, :1].expand_as(x))
    assert set(y.unique().tolist()) == {0., y.max().item()}
    assert abs(y.mean().item() - 1) < 0.05
    assert DropPath(0.25).eval()(x) is x
    assert DropPath(0.25, skip_lam=2.).eval()(x).unique().item() == 0.5
