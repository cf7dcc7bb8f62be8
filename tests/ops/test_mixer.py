import definition
import pytest
import torch
from torch import nn

from mmcyclemlp.backbones.cyclenet import CycleMixer
from mmcyclemlp.ops import MixerWeights, cycle_mixer, mixer
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

# (B, H, W, C), one for each order of operations that can be the cheapest.
SHAPES = {
    'branches': (2, 3, 4, 12),
    'projection-apart': (2, 5, 7, 12),
    'projection-drawn-in': (2, 9, 11, 12),
    'one-pixel': (3, 1, 1, 8),
    'one-column': (2, 50, 1, 7),
    'one-row': (1, 1, 50, 5),
    'one-channel': (2, 4, 5, 1),
}
NAMES = ('sfc_h.weight', 'sfc_h.bias', 'sfc_w.weight', 'sfc_w.bias',
         'mlp_c.weight', 'mlp_c.bias', 'proj.weight', 'proj.bias')


def example(shape, dtype=torch.float64):
    """Return x, shortcut, scale, and parameters by the definition's names."""
    c = shape[3]
    state = {}
    for name in NAMES:
        square = (c, c, 1, 1) if 'sfc' in name else (c, c)
        state[f'attn.{name}'] = torch.randn(
            square if name.endswith('weight') else (c, ), dtype=dtype)
    for name, out, inner in (('fc1', 6, c), ('fc2', 3 * c, 6)):
        state[f'attn.reweight.{name}.weight'] = torch.randn(
            out, inner, dtype=dtype)
        state[f'attn.reweight.{name}.bias'] = torch.randn(out, dtype=dtype)
    for value in state.values():
        value.mul_(0.5).requires_grad_()
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    shortcut = torch.randn(shape, dtype=dtype, requires_grad=True)
    scale = torch.rand(shape[0], dtype=dtype, requires_grad=True)
    return x, shortcut, scale, state


def ours(x, state, **kwargs):
    def reweight(a):
        for name in ('fc1', 'fc2'):
            a = nn.functional.linear(
                a, state[f'attn.reweight.{name}.weight'],
                state[f'attn.reweight.{name}.bias'])
            a = nn.functional.gelu(a) if name == 'fc1' else a
        return a

    weights = MixerWeights(*(state[f'attn.{name}'] for name in NAMES))
    weighted = 'attn.reweight.fc1.weight' in state
    return cycle_mixer(x, weights, reweight if weighted else None, **kwargs)


def textbook(x, state, kernel_size=(1, 3), backend='reference'):
    """Run the module with the weights of the example."""
    module = CycleMixer(x.shape[3], nn.GELU, backend=backend).to(x.dtype)
    module.sfc_h.kernel_size = kernel_size
    module.sfc_w.kernel_size = kernel_size[::-1]
    module.requires_grad_(False)
    for key, value in state.items():
        owner, _, name = key.removeprefix('attn.').rpartition('.')
        setattr(module.get_submodule(owner), name, nn.Parameter(value))
    return module(x)


def test_shapes_use_every_order_of_operations():
    ways = [mixer.branches_cost_less(h * w, c) + 2 * mixer.projection_pays(
        h * w, c) for _, h, w, c in list(SHAPES.values())[:3]]
    assert ways == [1, 0, 2]


@pytest.mark.parametrize('backend', [None, 'torch'])
@pytest.mark.parametrize('weighted', [True, False])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_equals_definition(shape, weighted, backend):
    x, shortcut, scale, state = example(shape)
    if not weighted:
        state = {k: v for k, v in state.items() if 'reweight' not in k}
    expected = shortcut + scale[:, None, None, None] * definition.mixer(
        state, 'attn', x)
    y = ours(x, state, shortcut=shortcut, scale=scale, backend=backend)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        ours(x, state, backend=backend), definition.mixer(state, 'attn', x),
        rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('weighted', [True, False])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_gradients_equal_definition(shape, weighted):
    x, shortcut, scale, state = example(shape)
    if not weighted:
        state = {k: v for k, v in state.items() if 'reweight' not in k}
    inputs = [x, shortcut, scale, *state.values()]
    y = ours(x, state, shortcut=shortcut, scale=scale)
    expected = shortcut + scale[:, None, None, None] * definition.mixer(
        state, 'attn', x)
    grad = torch.randn_like(y)
    for a, b in zip(torch.autograd.grad(y, inputs, grad),
                    torch.autograd.grad(expected, inputs, grad)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_other_kernels_equal_the_reference():
    x, _, _, state = example((2, 9, 11, 12))
    for kernel in ((1, 5), (3, 1), (3, 3)):
        torch.testing.assert_close(
            ours(x, state, kernel_size=kernel),
            textbook(x, state, kernel),
            rtol=1e-12, atol=1e-12)


def test_without_a_bias_in_place():
    x, _, _, state = example((2, 9, 11, 12))
    expected = dict(state, **{'attn.mlp_c.bias': torch.zeros(12).double()})
    y = definition.mixer(expected, 'attn', x)
    state['attn.mlp_c.bias'] = None
    torch.testing.assert_close(ours(x, state), y, rtol=1e-12, atol=1e-12)


def test_batch_0():
    x, shortcut, _, state = example((0, 9, 11, 12))
    y = ours(x, state, shortcut=shortcut)
    assert y.shape == x.shape
    y.sum().backward()
    assert not state['attn.sfc_h.weight'].grad.any()


@pytest.mark.parametrize('layout', ['nchw', 'sliced', 'expanded'])
def test_memory_formats(layout):
    x, _, _, state = example((2, 9, 12, 8))
    if layout == 'nchw':
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    elif layout == 'sliced':
        x = x[:, 1:, ::2]
    else:
        x = x[:1].expand(3, -1, -1, -1)
    shortcut = torch.randn_like(x)
    torch.testing.assert_close(
        ours(x, state, shortcut=shortcut),
        shortcut + definition.mixer(state, 'attn', x))


@pytest.mark.parametrize('shape', list(SHAPES.values())[:3],
                         ids=list(SHAPES)[:3])
def test_half_precision_is_as_near_as_the_textbook(shape):
    x, shortcut, _, state = example(shape, torch.float32)
    expected = ours(x, state, shortcut=shortcut)
    with torch.autocast('cpu', torch.bfloat16):
        y = ours(x, state, shortcut=shortcut)
        other = shortcut + textbook(x, state)
    assert y.dtype == torch.bfloat16
    error = (y.float() - expected).abs().max()
    assert error < 2 * (other.float() - expected).abs().max() + 1e-2
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


def test_two_runs_are_bit_equal():
    x, shortcut, scale, state = example((3, 20, 30, 12), torch.float32)
    runs = []
    for _ in range(2):
        y = ours(x, state, shortcut=shortcut, scale=scale)
        runs.append((y, *torch.autograd.grad(
            y.square().sum(), [x, *state.values()])))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.parametrize('kernel', [(1, 3), (3, 1), (3, 3), (1, 5), (1, 1)],
                         ids=str)
@pytest.mark.parametrize('size', [(5, 6), (1, 7), (1, 1), (2, 1)], ids=str)
def test_moved_sums(size, kernel):
    x = torch.randn(2, *size, 11, dtype=torch.float64, requires_grad=True)
    sums = mixer.moved_sums(x, *kernel)
    eye = torch.eye(11, dtype=torch.float64).reshape(11, 11, 1, 1)
    for i, k in enumerate((kernel, kernel[::-1], (1, 1))):
        moved = definition.cycle_fc(x.permute(0, 3, 1, 2), eye, None, k)
        torch.testing.assert_close(sums[:, i], moved.sum((2, 3)))
    assert torch.autograd.gradcheck(
        lambda x: mixer.moved_sums(x, *kernel), x)
    assert torch.autograd.gradgradcheck(
        lambda x: mixer.moved_sums(x, *kernel), x)


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='torch is older than 2.6')
def test_moved_sums_pass_opcheck():
    x = torch.randn(2, 4, 5, 7, requires_grad=True)
    torch.library.opcheck(mixer.moved_sums, (x, 1, 3))
    torch.library.opcheck(mixer._sums_backward,
                          (torch.randn(2, 3, 7), x, 1, 3))


@pytest.mark.parametrize('change, message', [
    (dict(x=torch.zeros(2, 3, 4)), r'\(B, H, W, C\).*\[2, 3, 4\]'),
    (dict(x=torch.zeros(2, 3, 4, 5)), r'h_weight of \(5, 5\).*\(8, 8'),
    (dict(shortcut=torch.zeros(2, 4, 3, 8)), r'shortcut of \(2, 3, 4, 8\)'),
    (dict(scale=torch.zeros(3)), r'scale.*\[3\]'),
    (dict(kernel_size=(1, 2)), r'odd.*\(1, 2\)'),
    (dict(backend='plain'), "triton, torch, or None.*backend='plain'"),
])
def test_errors_name_the_value(change, message):
    x, _, _, state = example((2, 3, 4, 8), torch.float32)
    with pytest.raises(ValueError, match=message):
        ours(**(dict(x=x, state=state) | change))


@pytest.mark.parametrize('shape', list(SHAPES.values())[1:3],
                         ids=list(SHAPES)[1:3])
def test_sums_in_float32_do_not_change_dtypes(shape, monkeypatch):
    # Under autocast on a GPU, a sum without a dtype returns float32.
    right = torch.Tensor.sum

    def in_single(self, *args, **kwargs):
        if self.dtype == torch.bfloat16 and 'dtype' not in kwargs:
            kwargs['dtype'] = torch.float32
        return right(self, *args, **kwargs)

    x, shortcut, scale, state = example(shape, torch.bfloat16)
    expected = ours(x, state, shortcut=shortcut, scale=scale)
    monkeypatch.setattr(torch.Tensor, 'sum', in_single)
    taken = []
    drawn = mixer.mixer_by_products

    def keep(*args):
        *others, product = args

        def checked(*tensors):
            taken.append({t.dtype for t in tensors[:3]})
            return product(*tensors)

        return drawn(*others, checked)

    monkeypatch.setattr(mixer, 'mixer_by_products', keep)
    with torch.autocast('cpu', torch.bfloat16):
        y = ours(x, state, shortcut=shortcut, scale=scale)
    assert taken == [{torch.bfloat16}] and y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=.1, atol=.3)
    grads = torch.autograd.grad(y.float().sum(), [x, *state.values()])
    assert {grad.dtype for grad in grads} == {torch.bfloat16}
