"""Compare kernels with the definition, on a GPU or in the interpreter."""

import contextlib
import importlib.util

import pytest
import torch
from definition import cycle_fc as definition

from mmcyclemlp.ops import torch_backend as shift
from mmcyclemlp.ops import triton as backend
from mmcyclemlp.ops.triton.tiles import Tiles

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
REASON = backend.unavailable_reason(torch.zeros(1, device=DEVICE))
needs_kernels = pytest.mark.skipif(
    REASON is not None, reason=f'the Triton backend cannot run: {REASON}')

KERNELS = [(1, 3), (3, 1), (3, 3), (1, 1), (1, 7), (5, 3)]
# Batch, height, width, channels, outputs.
SHAPES = {
    'odd': (2, 5, 7, 11, 5),
    'one-pixel': (2, 1, 1, 9, 4),
    'lower-than-kernel': (2, 1, 6, 7, 3),
    'narrower-than-kernel': (2, 6, 1, 7, 3),
    'one-channel': (2, 4, 5, 1, 1),
}
# More channels or positions than a block has, in more than one image.
LARGE_SHAPES = {
    'channels': (2, 4, 5, 70, 67),
    'positions': (2, 9, 17, 6, 4),
    'both': (2, 2, 35, 66, 3),
}
EXACT = dict(rtol=0, atol=0)


@pytest.fixture
def product(monkeypatch):
    """Return the product; it uses the tiles of the rule."""
    launches = importlib.import_module('mmcyclemlp.ops.triton.launch')
    monkeypatch.setattr(launches, '_tune', lambda *_: None)
    return launches.cycle_product_triton


@pytest.fixture
def bfloat16_in_interpreter(monkeypatch):
    """Let the interpreter multiply bfloat16 as a GPU does."""
    if DEVICE == 'cuda':
        return
    interpreter = pytest.importorskip('triton.runtime.interpreter')
    from triton import language as tl

    from mmcyclemlp.ops.triton import launch as launches

    builder = interpreter.InterpreterBuilder
    create_dot = builder.create_dot

    def widened(self, a, b, *others):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.create_fp_ext(t, tl.float32) for t in (a, b))
        return create_dot(self, a, b, *others)

    monkeypatch.setattr(builder, 'create_dot', widened)
    monkeypatch.setattr(
        launches, '_on', lambda x: contextlib.nullcontext())


def example(shape=(2, 5, 7, 11, 5), branches=1, shared=True,
            dtype=torch.float32, integers=False):
    """Return x, weight, bias, shortcut and a gradient of the result."""
    batch, height, width, channels, outputs = shape
    groups = 1 if shared else batch
    shapes = [(batch, height, width, channels),
              (groups, branches, outputs, channels), (groups, outputs),
              (batch, height, width, outputs),
              (batch, height, width, outputs)]
    if integers:
        tensors = [torch.randint(-4, 5, s).to(dtype) for s in shapes]
    else:
        tensors = [torch.randn(s).to(dtype) for s in shapes]
    return [t.to(DEVICE) for t in tensors]


def expected_product(x, weight, bias, shortcut, kernel_size):
    """Compute the definition for each branch and image."""
    kernels = [kernel_size, kernel_size[::-1], (1, 1)]
    images = []
    for n in range(x.shape[0]):
        group = n % weight.shape[0]
        image = x[n:n + 1].permute(0, 3, 1, 2)
        y = sum(definition(image, w[:, :, None, None], None, kernel)
                for w, kernel in zip(weight[group], kernels))
        y = y.permute(0, 2, 3, 1)
        images.append(y if bias is None else y + bias[group])
    y = torch.cat(images)
    return y if shortcut is None else y + shortcut


def with_gradients(function, tensors, kernel_size):
    *inputs, grad = tensors
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = function(*inputs, kernel_size)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def assert_equal(product, tensors, kernel_size, expected=expected_product,
                 **tolerance):
    ours = with_gradients(product, tensors, kernel_size)
    theirs = with_gradients(
        expected, [t.double().cpu() for t in tensors], kernel_size)
    names = ['y', 'dx', 'dweight', 'dbias', 'dshortcut']
    for name, a, b in zip(names, ours, theirs):
        assert a.dtype == tensors[0].dtype
        torch.testing.assert_close(
            a.double().cpu(), b, **tolerance,
            msg=lambda m, name=name: f'{name}: {m}')


@needs_kernels
@pytest.mark.parametrize('shared', [True, False],
                         ids=['shared', 'per-image'])
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('kernel_size', KERNELS, ids=str)
def test_equals_definition(product, kernel_size, branches, shared):
    tensors = example(branches=branches, shared=shared)
    assert_equal(
        product, tensors, kernel_size, rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('kernel_size', [(3, 1), (5, 3)], ids=str)
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_equals_definition_on_any_shape(
        product, shape, kernel_size, branches):
    for shared in (True, False):
        tensors = example(shape, branches, shared)
        assert_equal(
            product, tensors, kernel_size, rtol=1e-5, atol=2e-5)


@needs_kernels
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('kernel_size', [(1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize('shape', LARGE_SHAPES.values(), ids=LARGE_SHAPES)
def test_equals_torch_over_many_blocks(
        product, shape, kernel_size, branches):
    for shared in (True, False):
        tensors = example(shape, branches, shared)
        assert_equal(product, tensors, kernel_size,
                     shift.cycle_product_torch, rtol=1e-5, atol=5e-5)


@needs_kernels
@pytest.mark.parametrize('kernel_size', [(1, 7), (7, 1), (3, 1)], ids=str)
@pytest.mark.parametrize(
    'size', [(1, 1), (2, 1), (1, 3), (5, 17), (1, 70)], ids=str)
def test_dx_that_moves_last(product, size, kernel_size):
    # The maps are smaller than the offsets, or larger than a tile.
    launches = importlib.import_module('mmcyclemlp.ops.triton.launch')
    tiles = Tiles(64, 16, 16, 0, 4, moves_last=True)
    for shared in (True, False):
        x, weight, *_, grad = example((2, *size, 11, 3), 1, shared)
        dx = launches.backward_x(grad, weight, *kernel_size, tiles)
        y = shift.cycle_product_torch(
            x.requires_grad_(), weight, None, None, kernel_size)
        expected, = torch.autograd.grad(y, x, grad)
        torch.testing.assert_close(dx, expected, rtol=1e-5, atol=5e-5)


@needs_kernels
@pytest.mark.parametrize('channels', [11, 70])
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('dtype', [
    torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_integers_are_exact(
        product, bfloat16_in_interpreter, dtype, branches, channels):
    # The integers are small, so every sum is exact in each dtype.
    x, weight, bias, shortcut, grad = example(
        (1, 3, 4, channels, 3), branches, integers=True, dtype=dtype)
    x.clamp_(-1, 1), weight.clamp_(-1, 1), grad.clamp_(-1, 1)
    weight[..., 16:] = 0
    x[..., 16:].clamp_(0, 1)
    assert_equal(
        product, [x, weight, bias, shortcut, grad], (1, 3), **EXACT)


@needs_kernels
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('dtype, rounding', [
    (torch.float16, 2 ** -10), (torch.bfloat16, 2 ** -7)],
    ids=['float16', 'bfloat16'])
def test_half_precision_accumulates_in_single(
        product, bfloat16_in_interpreter, dtype, rounding, branches):
    # Off by the rounding of the result, and in dx with three branches by
    # that of a sum of weights.
    tensors = example((1, 6, 7, 70, 40), branches, False, dtype)
    assert_equal(
        product, tensors, (1, 3), rtol=rounding, atol=16 * rounding)


@needs_kernels
@pytest.mark.filterwarnings('ignore:invalid value')
def test_an_infinity_does_not_reach_other_positions(product):
    # The identity as weight: an infinity reaches where it moves to, and a
    # product with zeros elsewhere in its own row only.
    x, *_ = example((1, 4, 5, 9, 9), integers=True)
    x[0, 1, 2, 4] = float('inf')
    weight = torch.eye(9, device=DEVICE)[None, None]
    y = product(x, weight, None, None, (1, 3))
    rows = ~y.isfinite().all(-1)
    assert rows.nonzero().tolist() == [[0, 1, 1]]


@needs_kernels
@pytest.mark.parametrize('optional', ['bias', 'shortcut'])
def test_optional_inputs(product, optional):
    x, weight, bias, shortcut, _ = example(branches=3)
    given = dict(bias=bias, shortcut=shortcut)
    given[optional] = None
    x.requires_grad_()
    y = product(x, weight, *given.values(), (1, 3))
    torch.testing.assert_close(
        y.detach().cpu(),
        expected_product(x.detach().cpu(), weight.cpu(), *(
            None if t is None else t.cpu() for t in given.values()), (1, 3)),
        rtol=1e-5, atol=1e-5)
    y.sum().backward()
    assert x.grad is not None


@needs_kernels
@pytest.mark.parametrize('empty', [0, 1, 2], ids=['batch', 'height', 'width'])
@pytest.mark.parametrize('shared', [True, False],
                         ids=['shared', 'per-image'])
def test_empty(product, monkeypatch, empty, shared):
    launches = importlib.import_module('mmcyclemlp.ops.triton.launch')
    # Nothing is launched.
    monkeypatch.delattr(launches, '_on')
    shape = [2, 4, 5, 7, 3]
    shape[empty] = 0
    tensors = example(tuple(shape), 3, shared)
    y, *grads = with_gradients(product, tensors, (1, 3))
    assert y.shape == tensors[4].shape
    assert [g.shape for g in grads] == [t.shape for t in tensors[:4]]
    assert not grads[1].any() and not grads[2].any()


@needs_kernels
@pytest.mark.parametrize('layout', ['nchw', 'sliced', 'expanded'])
def test_inputs_of_any_stride(product, layout):
    x, weight, bias, shortcut, grad = example((2, 4, 6, 7, 5), 3, False)
    if layout == 'nchw':
        x, shortcut = (t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
                       for t in (x, shortcut))
        weight = weight.transpose(2, 3).contiguous().transpose(2, 3)
        bias = bias.t().contiguous().t()
    elif layout == 'sliced':
        x, shortcut, grad = (t[:, ::2, 1:5] for t in (x, shortcut, grad))
    else:
        x = x[:1].expand(2, -1, -1, -1)
    assert_equal(
        product, [x, weight, bias, shortcut, grad], (1, 3), rtol=1e-5,
        atol=1e-5)


@needs_kernels
@pytest.mark.parametrize('layout', ['expanded', 'cut-from-cat'])
def test_incoming_gradients_of_any_stride(product, layout):
    *tensors, grad = example(branches=3)
    if layout == 'expanded':
        grad = grad[:1, :1, :1, :1].expand_as(grad)
    else:
        grad = torch.cat([grad, grad], 3)[..., 2:7]
    assert_equal(
        product, [*tensors, grad], (1, 3), rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('channels', [7, 70])
def test_every_element_is_written(
        product, monkeypatch, channels, branches):
    new_empty = torch.Tensor.new_empty
    poisoned = []

    def poison(*args, **kwargs):
        poisoned.append(new_empty(*args, **kwargs).fill_(float('nan')))
        return poisoned[-1]

    monkeypatch.setattr(torch.Tensor, 'new_empty', poison)
    for kernel_size in ((1, 3), (3, 1)):
        tensors = example((2, 5, 17, channels, 5), branches, False)
        y, dx, *others = with_gradients(product, tensors, kernel_size)
        addresses = {t.data_ptr() for t in poisoned}
        assert addresses >= {y.data_ptr(), dx.data_ptr()}
        for t in (y, dx, *others):
            assert t.isfinite().all()


@needs_kernels
def test_two_runs_are_equal_bit_for_bit(product):
    tensors = example((1, 9, 40, 7, 5), 3)
    for a, b in zip(with_gradients(product, tensors, (1, 3)),
                    with_gradients(product, tensors, (1, 3))):
        assert torch.equal(a, b)


@needs_kernels
@pytest.mark.parametrize('shared', [True, False],
                         ids=['shared', 'per-image'])
@pytest.mark.parametrize('branches', [1, 3])
def test_second_order(product, branches, shared):
    tensors = example((2, 3, 4, 5, 3), branches, shared)

    def second_order(function, tensors):
        *inputs, grad = tensors
        inputs = [t.detach().requires_grad_() for t in inputs]
        grad = grad.detach().requires_grad_()
        y = function(*inputs, (1, 3))
        first = torch.autograd.grad(y, inputs[:3], grad, create_graph=True)
        loss = sum((g * torch.linspace(
            -1, 1, g.numel(), device=g.device).to(g).view_as(g).square()
            * g).sum() for g in first)
        return torch.autograd.grad(loss, [*inputs[:2], grad])

    for ours, theirs in zip(
            second_order(product, tensors),
            second_order(expected_product,
                         [t.double().cpu() for t in tensors])):
        torch.testing.assert_close(
            ours.double().cpu(), theirs, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize('shared', [True, False],
                         ids=['shared', 'per-image'])
def test_ops_are_registered_in_full(product, shared):
    x, weight, bias, shortcut, grad = example((2, 3, 4, 5, 3), 3, shared)
    ops = torch.ops.mmcyclemlp
    leaves = [t.requires_grad_() for t in (x, weight, bias, shortcut, grad)]
    x, weight, bias, shortcut, grad = leaves
    for op, arguments in [
            (ops.product_triton, (x, weight, bias, shortcut, 1, 3)),
            (ops.product_triton, (x, weight, None, None, 1, 3)),
            (ops.product_triton_backward_x, (grad, weight, 1, 3)),
            (ops.product_triton_backward_weight,
             (x, grad, 1, 3, 3, shared))]:
        torch.library.opcheck(op.default, arguments)


@needs_kernels
def test_fake_results_have_the_real_strides(product):
    # opcheck tests only dense inputs.
    from torch._subclasses import FakeTensorMode

    def strides(x, weight, grad):
        ops = torch.ops.mmcyclemlp
        results = [
            ops.product_triton(x, weight, None, None, 1, 3),
            ops.product_triton_backward_x(grad, weight, 1, 3),
            *ops.product_triton_backward_weight(x, grad, 1, 3, 3, False)]
        return [(t.shape, t.stride(), t.dtype) for t in results]

    x, weight, _, _, grad = example((2, 3, 4, 5, 3), 3, False)
    inputs = [x.transpose(1, 2), weight, grad.transpose(1, 2)]
    with FakeTensorMode() as mode:
        fake = strides(*map(mode.from_tensor, inputs))
    assert fake == strides(*inputs)


@needs_kernels
def test_compiles_once_for_all_sizes(product):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(product, fullgraph=True, backend=count)
    sizes = [(2, 4, 5), (3, 6, 7), (4, 3, 9), (5, 8, 2)]
    for size in sizes:
        x, weight, bias, shortcut, _ = example((*size, 7, 3), 3)
        torch.testing.assert_close(
            compiled(x, weight, bias, shortcut, (1, 3)),
            product(x, weight, bias, shortcut, (1, 3)), **EXACT)
    # One graph for the first size, one for all others.
    assert len(graphs) <= 2


@needs_kernels
def test_compiled_gradients(product):
    tensors = example((2, 4, 5, 7, 3), 3)
    torch._dynamo.reset()
    compiled = torch.compile(product, fullgraph=True, backend='aot_eager')
    for a, b in zip(with_gradients(compiled, tensors, (1, 3)),
                    with_gradients(product, tensors, (1, 3))):
        torch.testing.assert_close(a, b, **EXACT)


@needs_kernels
def test_precision_is_that_of_torch(product, monkeypatch):
    from mmcyclemlp.ops.triton.launch import _precision

    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):
        name, off, on = 'fp32_precision', 'ieee', 'tf32'
    else:
        name, off, on = 'allow_tf32', False, True
    before = getattr(matmul, name)
    try:
        setattr(matmul, name, off)
        assert _precision(torch.float32) == 'ieee'
        setattr(matmul, name, on)
        assert _precision(torch.float32) == 'tf32'
        assert _precision(torch.bfloat16) == 'ieee'
    finally:
        setattr(matmul, name, before)


@needs_kernels
@pytest.mark.skipif(DEVICE == 'cuda', reason='a GPU has bfloat16')
def test_interpreter_refuses_bfloat16(product):
    x, weight, *_ = example(dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match='bits of bfloat16'):
        product(x, weight, None, None, (1, 3))
