"""Names and modes of contenders."""

from mmcyclemlp.benchmark.contenders import TORCH


def test_label_names_the_mode():
    assert TORCH.label == 'torch'
    assert TORCH.runs('graph').label == 'torch, CUDA graph'
    assert TORCH.runs('max-autotune').label == 'torch, max-autotune'
    assert not TORCH.runs('graph').compiles
    assert TORCH.runs('compiled').compiles
