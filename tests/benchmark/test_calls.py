"""Contenders compute what they should."""

import contextlib
import sys
from types import SimpleNamespace

import definition
import pytest
import torch
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark import calls
from mmcyclemlp.benchmark.contenders import PEERS, TEXTBOOK, peer

CPU = torch.device('cpu')


def test_expected_results_are_those_of_the_definition():
    y, = calls.make_layer('op', CPU, (2, 5, 6, 7), 'fp32', False, TEXTBOOK,
                          exact=True)()
    x, _ = calls.draw([(2, 5, 6, 7)] * 2, 'fp32', CPU, True)
    layer = calls.build_layer('op', 7, TEXTBOOK).double()
    torch.testing.assert_close(y, definition.cycle_fc(
        x.permute(0, 3, 1, 2), layer.weight, layer.bias, (1, 3)))
    maps = calls.make_net(CPU, 'b1', None, None, 'fp32', False, TEXTBOOK,
                          small=True, exact=True)()
    net = calls.randomize(CycleNet('b1', fork_last3=False)).double()
    image, = calls.draw([(2, 3, 72, 104)], 'fp32', CPU, True)
    expected = definition.backbone(net.state_dict(), image, (2, 2, 4, 2))
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_every_parameter_has_a_gradient_that_counts():
    """An error in any part changes a result."""
    results = calls.make_net(CPU, 'b1', None, None, 'fp32', True, TEXTBOOK,
                             small=True)()
    assert all(float(t.detach().norm()) > 1e-6 for t in results)


@pytest.fixture
def timm(monkeypatch):
    """Replace timm; return what it is called with."""
    asked = []

    def create_model(name, **options):
        asked.append((name, options))
        return nn.Conv2d(3, 4, 3)

    def reparameterize_model(net):
        assert not net.training
        asked.append('fused')
        return net

    monkeypatch.setitem(sys.modules, 'timm',
                        SimpleNamespace(create_model=create_model))
    monkeypatch.setitem(sys.modules, 'timm.utils', SimpleNamespace(
        reparameterize_model=reparameterize_model))
    return asked


def test_peers_are_fused_for_inference_alone(timm):
    calls.build_peer('Swin-T', (64, 96), train=False)
    calls.build_peer('ResNet-50', (64, 96), train=True)
    assert timm == [
        ('swin_tiny_patch4_window7_224',
         dict(features_only=True, img_size=(64, 96))), 'fused',
        ('resnet50', dict(features_only=True, out_indices=(1, 2, 3, 4)))]


def test_peers_of_timm():
    """All return maps of strides 4 to 32."""
    timm = pytest.importorskip('timm')
    for name, (model, _) in PEERS.items():
        assert timm.is_model(model), name
    net = calls.build_peer('RepViT-M1.5', (64, 64), train=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    maps = calls.make_net(CPU, None, (64, 96), 1, 'fp32', False,
                          peer('ResNet-50'))()
    assert [tuple(y.shape[2:]) for y in maps] == [
        (16, 24), (8, 12), (4, 6), (2, 3)]


def test_cuda_graph(monkeypatch):
    log = []

    class Stream:
        def wait_stream(self, other):
            log.append((self.name, 'waits for', other.name))

        def __init__(self, name='side'):
            self.name = name

    class Graph:
        def replay(self):
            log.append('replay')

    @contextlib.contextmanager
    def capture(graph):
        log.append('begin')
        yield
        log.append('end')

    main = Stream('main')
    for name, value in dict(
            Stream=Stream, CUDAGraph=Graph, graph=capture,
            current_stream=lambda: main,
            stream=lambda stream: contextlib.nullcontext()).items():
        monkeypatch.setattr(torch.cuda, name, value)
    results = [torch.ones(1)]

    def call():
        log.append('call')
        return results

    replay = calls.captured(call)
    assert log == [('side', 'waits for', 'main'), *['call'] * 3,
                   ('main', 'waits for', 'side'), 'begin', 'call', 'end']
    log.clear()
    assert replay() is results and replay() is results
    assert log == ['replay'] * 2
