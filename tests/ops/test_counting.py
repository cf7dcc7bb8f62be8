"""All counters count the multiply-adds that the ops execute."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmcyclemlp import CycleNet
from mmcyclemlp.ops import cycle_fc, mlp
from mmcyclemlp.ops import torch_backend as shift
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

needs_custom_op = pytest.mark.skipif(
    not HAS_CUSTOM_OP, reason='torch is older than 2.6')
# GMACs at 224x224. Those of b1 to b5 are counted with the released code, those
# of t, s and b are quoted from the official README.
TEXTBOOK = dict(b1=2.12, b2=3.88, b3=6.83, b4=10.03, b5=12.23, t=4.4, s=8.5,
                b=15.2)


class Products(TorchDispatchMode):
    """Adds up the multiply-adds of matrix products, also in-place ones."""

    macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip('_')
        if name in ('mm', 'bmm', 'addmm', 'baddbmm'):
            a, b = args[-2:]
            self.macs += a.numel() * b.shape[-1]
        return func(*args, **(kwargs or {}))


def by_torch(function, *args):
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops() / 2


def done(function, *args):
    with Products() as products:
        function(*args)
    return products.macs


@needs_custom_op
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('channels', [1, 7, 12])
def test_product_of_the_torch_backend(channels, branches, shared):
    product, kernel = shift.cycle_product_torch, (1, 3)
    x, y = torch.randn(2, 4, 5, channels), torch.randn(2, 4, 5, 6)
    weight = torch.randn(1 if shared else 2, branches, 6, channels)
    for op, function, args in [
            (product._forward, shift._product, (x, weight, None, y)),
            (product._backward_x, shift._product_backward_x, (y, weight)),
            (product._backward_weight, shift._product_backward_weight,
             (x, y))]:
        args += kernel
        if function is shift._product_backward_weight:
            args += branches, shared
        assert by_torch(op, *args) == done(function, *args) > 0


@needs_custom_op
@pytest.mark.parametrize('keep', [False, True])
def test_mlp(keep):
    x, w1, b1 = torch.randn(10, 4), torch.randn(16, 4), torch.randn(16)
    w2, b2 = torch.randn(6, 16), torch.randn(6)
    args = x, w1, b1, w2, b2, torch.randn(10, 6), None, 'gelu', keep
    assert by_torch(mlp.residual_mlp, *args) == done(mlp._mlp, *args) > 0
    y, kept = mlp._mlp(*args)
    args = y, x, kept, w1, b1, w2, None, 'gelu'
    assert by_torch(mlp._backward, *args) == done(
        mlp._mlp_backward, *args) > 0


@pytest.mark.parametrize('backend', [None, 'plain'])
def test_cycle_fc(backend):
    x, weight = torch.randn(2, 7, 4, 5), torch.randn(6, 7, 1, 1)
    assert by_torch(lambda: cycle_fc(x, weight, backend=backend)) == (
        2 * 4 * 5 * 6 * 7)


@pytest.mark.parametrize('arch', TEXTBOOK)
def test_textbook_by_torch(arch):
    with torch.device('meta'):
        model = CycleNet(arch, fork_feat=False, backend='plain').eval()
        x = torch.empty(1, 3, 224, 224)
    digits = 2 if arch[1:] else 1
    assert round(by_torch(model, x) / 1e9, digits) == TEXTBOOK[arch]


@needs_custom_op
def test_executed_needs_no_memory():
    counts = []
    for device in ('meta', 'cpu'):
        with torch.device(device):
            model, x = CycleNet('b1').eval(), torch.zeros(1, 3, 64, 96)
        counts.append(by_torch(model, x))
    assert counts[0] == counts[1] > 0


def fvcore(model, x):
    nn = pytest.importorskip('fvcore.nn')
    return nn.FlopCountAnalysis(model, x)


def mmengine(model, x):
    analysis = pytest.importorskip('mmengine.analysis')
    return analysis.FlopAnalyzer(model, x)


@pytest.mark.parametrize('counter', [fvcore, mmengine])
@pytest.mark.parametrize('arch', ['b1', 't'])
def test_textbook_by_counters_of_traces(arch, counter):
    # They also count layer norms, which torch's counter does not.
    x = torch.randn(1, 3, 224, 224)
    count = counter(CycleNet(arch, fork_feat=False).eval(), x)
    count = sum(count.by_operator().values()) - count.by_operator()[
        'layer_norm']
    plain = CycleNet(arch, fork_feat=False, backend='plain').eval()
    assert count == by_torch(plain, x)
