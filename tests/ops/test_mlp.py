import pytest
import torch
import torch.nn.functional as F

from mmcyclemlp.ops import mlp, residual_mlp
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

ACTIVATIONS = {'gelu': F.gelu, 'relu': F.relu, 'silu': F.silu,
               'hardswish': F.hardswish}


def example(rows=(2, 5, 7), channels=6, dtype=torch.float64):
    shapes = ((*rows, channels), (*rows, 5), (12, channels), (12, ), (5, 12),
              (5, ))
    return [torch.randn(shape, dtype=dtype, requires_grad=True)
            for shape in shapes]


def plain(x, shortcut, weight1, bias1, weight2, bias2, activation='gelu',
          scale=None):
    hidden = ACTIVATIONS[activation](F.linear(x, weight1, bias1))
    y = F.linear(hidden, weight2, bias2)
    if scale is not None:
        y = y * scale.reshape(-1, *(1, ) * (y.dim() - 1))
    return shortcut + y


@pytest.mark.parametrize('keep', [False, True], ids=['recomputed', 'kept'])
@pytest.mark.parametrize('size', [1, 300, 4 * 2**20],
                         ids=['rows', 'pieces', 'whole'])
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_equals_plain_layers(activation, scaled, size, keep, monkeypatch):
    monkeypatch.setattr(mlp, '_BYTES', size)
    monkeypatch.setattr(mlp, 'keeps_hidden', lambda x: keep)
    inputs = example()
    scale = torch.rand(2, dtype=torch.float64) if scaled else None
    y = residual_mlp(*inputs, activation, scale=scale)
    expected = plain(*inputs, activation, scale)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(
            residual_mlp(*inputs, activation, scale=scale), y)
    grad = torch.randn_like(y)
    for a, b in zip(torch.autograd.grad(y, inputs, grad),
                    torch.autograd.grad(expected, inputs, grad)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_pieces_cover_every_row_once():
    for rows in (0, 1, 7, 4096, 67200):
        x = torch.empty(rows, 64)
        covered = [i for piece in mlp._pieces(x, 256)
                   for i in range(piece.start, piece.stop)]
        assert covered == list(range(rows))


@pytest.mark.parametrize('channels, kept', [(64, False), (320, True)])
def test_narrow_layers_are_recomputed_on_a_cpu(channels, kept):
    # If recomputed, nothing as large as the hidden layer is saved.
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.append(t.shape) or t, lambda t: t):
        residual_mlp(*example((2, 4), channels))
    assert ((8, 12) in saved) == kept


@pytest.mark.parametrize('layout', ['expanded', 'cut-from-cat'])
def test_incoming_gradients_of_any_stride(layout):
    inputs = example()
    y, expected = residual_mlp(*inputs), plain(*inputs)
    if layout == 'expanded':
        grad = y.new_ones(1, 1, 1, 1).expand_as(y)
    else:
        grad = torch.cat([y.detach(), y.detach()], -1)[..., 3:8]
    for a, b in zip(torch.autograd.grad(y, inputs, grad),
                    torch.autograd.grad(expected, inputs, grad)):
        torch.testing.assert_close(a, b)


def test_batch_0():
    inputs = example((0, 5, 7))
    y = residual_mlp(*inputs, scale=torch.ones(0).double())
    assert y.shape == (0, 5, 7, 5)
    y.sum().backward()
    assert not inputs[2].grad.any()


def test_autocast():
    inputs = example(dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        y = residual_mlp(*inputs)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(
        y.float(), plain(*inputs), rtol=5e-2, atol=2e-1)
    y.float().sum().backward()
    assert inputs[2].grad.dtype == torch.float32


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='torch is older than 2.6')
@pytest.mark.parametrize('keep', [False, True])
def test_opcheck(keep):
    x, shortcut, *weights = example((7, ))
    torch.library.opcheck(
        mlp.residual_mlp, (x, *weights, shortcut, None, 'gelu', keep))


@pytest.mark.parametrize('change, message', [
    (dict(activation='GELU'), "gelu.*activation='GELU'"),
    (dict(shortcut=torch.zeros(2, 5, 7, 6)), r'\(2, 5, 7, 5\).*7, 6\)'),
    (dict(scale=torch.zeros(2, 1)), r'scale.*\[2, 1\]'),
])
def test_errors_name_the_value(change, message):
    names = ('x', 'shortcut', 'weight1', 'bias1', 'weight2', 'bias2')
    with pytest.raises(ValueError, match=message):
        residual_mlp(**(dict(zip(names, example())) | change))
