"""Contenders compute what they should."""

import sys
from types import SimpleNamespace

import definition
import pytest
import torch
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark import calls
from mmcyclemlp.benchmark.calls import PEERS, TEXTBOOK, TORCH, Contender

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


def test_label_names_the_mode():
    assert TORCH.label == 'torch'
    assert TORCH.runs('graph').label == 'torch, CUDA graph'
    assert TORCH.runs('max-autotune').label == 'torch, max-autotune'
    assert not TORCH.runs('graph').compiles
    assert TORCH.runs('compiled').compiles


def test_peers_know_the_size_of_the_image(monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, 'timm', SimpleNamespace(
        create_model=lambda name, **options: asked.append((name, options))))
    calls.build_peer('Swin-T', (64, 96), train=True)
    calls.build_peer('ResNet-50', (64, 96), train=True)
    assert asked == [
        ('swin_tiny_patch4_window7_224',
         dict(features_only=True, img_size=(64, 96))),
        ('resnet50', dict(features_only=True, out_indices=(1, 2, 3, 4)))]


def test_peers_of_timm():
    """All return maps of strides 4 to 32."""
    timm = pytest.importorskip('timm')
    for name, (model, _) in PEERS.items():
        assert timm.is_model(model), name
    maps = calls.make_net(CPU, None, (64, 96), 1, 'fp32', False,
                          Contender('ResNet-50', 'peer'))()
    assert [tuple(y.shape[2:]) for y in maps] == [
        (16, 24), (8, 12), (4, 6), (2, 3)]


def test_cuda_graph(monkeypatch):
    """What is captured needs no gradient, and passes no parameters."""
    log = []

    def make_graphed_callables(run, args):
        assert not isinstance(run, nn.Module)
        log.append([y.requires_grad for y in run(*args)])
        return lambda x: ('replay', )

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables',
                        make_graphed_callables)
    call = calls.make_net(CPU, 'b1', (64, 64), 1, 'fp32', False,
                          TORCH.runs('graph'))
    assert log == [[False] * 4]
    assert call() == ['replay']
