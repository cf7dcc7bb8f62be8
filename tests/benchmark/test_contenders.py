"""The contenders of the benchmark compute what they should."""

import sys
from types import SimpleNamespace

import definition
import pytest
import torch
from torch import nn

from mmcyclemlp.benchmark import contenders
from mmcyclemlp.benchmark.calls import (
    draw,
    faster_layout,
    make_mixer,
    make_net,
    make_op,
)
from mmcyclemlp.benchmark.contenders import (
    DENSE,
    TEXTBOOK,
    build_net,
    build_peer,
    peer,
    plain_cycle_fc,
)

CPU = torch.device('cpu')


def test_definition():
    """What the contenders are held to is the definition of the tests."""
    x = torch.randn(2, 7, 5, 6, dtype=torch.float64)
    weight = torch.randn(4, 7, 1, 1, dtype=torch.float64)
    for kernel in ((1, 3), (3, 1)):
        torch.testing.assert_close(
            plain_cycle_fc(x, weight, None, kernel),
            definition.cycle_fc(x, weight, None, kernel))
    maps = make_net(torch.device('cpu'), 'b1', None, None, 'fp32', False,
                    TEXTBOOK, small=True, exact=True)()
    net = build_net('b1', TEXTBOOK, 'cpu').double()
    image, = draw([(2, 3, 72, 104)], torch.float32, 'cpu', True)
    expected = definition.backbone(net.state_dict(), image, (2, 2, 4, 2))
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('make', [make_op, make_mixer])
@pytest.mark.parametrize('backward', [False, True])
def test_dense_convolution(make, backward):
    """It has the result of the op, or of the mixer on this image."""
    shape = (1, 6, 7, 12)
    y, = make(CPU, shape, 'fp32', backward, DENSE)()
    expected, *_ = make(CPU, shape, 'fp32', backward, TEXTBOOK)()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_name_of_a_contender():
    assert DENSE.label == 'dense conv'
    assert DENSE.runs('graph').label == 'dense conv, CUDA graph'
    assert DENSE.runs('max-autotune').label == 'dense conv, max-autotune'
    assert not DENSE.runs('graph').compiles
    assert DENSE.runs('compiled').compiles


class Trunk(nn.Module):
    """Faster in one memory layout, and not the same once fused."""

    def __init__(self, slow):
        super().__init__()
        self.conv, self.slow = nn.Conv2d(3, 4, 3), slow

    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last)
        self.slow(last)
        return [self.conv(x)]


@pytest.fixture
def timm(monkeypatch):
    """Stands for timm; gives what it was asked for."""
    asked = []

    def create_model(name, **options):
        asked.append((name, options))
        return Trunk(lambda last: None)

    def reparameterize_model(net):
        assert not net.training
        asked.append('fused')
        return net

    monkeypatch.setitem(sys.modules, 'timm',
                        SimpleNamespace(create_model=create_model))
    monkeypatch.setitem(sys.modules, 'timm.utils', SimpleNamespace(
        reparameterize_model=reparameterize_model))
    return asked


def test_peers_are_fused_for_inference_where_they_can_be(timm):
    build_peer('RepViT-M1.5', (64, 64), train=False)
    assert timm == [('repvit_m1_5', dict(features_only=True)), 'fused']
    timm.clear()
    build_peer('RepViT-M1.5', (64, 64), train=True)
    build_peer('Swin-T', (64, 96), train=False)
    build_peer('ResNet-50', (64, 96), train=False)
    assert timm == [
        ('repvit_m1_5', dict(features_only=True)),
        ('swin_tiny_patch4_window7_224',
         dict(features_only=True, img_size=(64, 96))),
        ('resnet50', dict(features_only=True, out_indices=(1, 2, 3, 4)))]


def test_peers_of_timm():
    """All give the maps of strides 4 to 32, for a backbone."""
    timm = pytest.importorskip('timm')
    for name, known in contenders.PEERS.items():
        assert timm.is_model(known.timm), name
    net = build_peer('RepViT-M1.5', (64, 64), train=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    maps = make_net(CPU, None, (64, 96), 1, 'fp32', False,
                    peer('ResNet-50'))()
    assert [tuple(y.shape[2:]) for y in maps] == [
        (16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('faster', ['contiguous', 'channels_last'])
def test_layout_of_a_peer(train, faster, timm, monkeypatch):
    clock = [0.]
    alone = []

    class Alone:
        def __enter__(self):
            alone.append(None)

        def __exit__(self, *_):
            pass

    def slow(last):
        clock[0] += 1. if last == (faster == 'channels_last') else 2.

    monkeypatch.setattr('mmcyclemlp.benchmark.timing.time.perf_counter',
                        lambda: clock[0])
    monkeypatch.setattr(Trunk, '__init__', lambda self, _, init=Trunk.__init__:
                        init(self, slow))
    what = CPU, None, (8, 8), 1, 'fp32', train, peer('ConvNeXt-T')
    assert faster_layout(*what, Alone) == faster
    # Where the first call is as slow as that, it counts.
    assert not alone
    make_net(*what, layout=faster)()
