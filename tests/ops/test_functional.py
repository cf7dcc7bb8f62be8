import random

import pytest
import torch
from definition import cycle_fc as definition
from definition import cycle_fc_dense as dense_definition

from mmcyclemlp.errors import BackendUnavailable
from mmcyclemlp.ops import cycle_fc, functional
from mmcyclemlp.ops.triton import tiles

KERNELS = [(1, 3), (3, 1), (3, 3), (1, 1), (1, 7), (5, 3)]
SHAPES = {
    'odd': (2, 7, 5, 6),
    'even': (1, 6, 4, 8),
    'one-channel': (2, 1, 3, 3),
    'lower-than-kernel': (2, 6, 1, 5),
    'narrower-than-kernel': (2, 6, 5, 1),
    'one-pixel': (1, 9, 1, 1),
    'batch-0': (0, 6, 4, 4),
}
BACKENDS = ['torch', 'plain', 'reference']


def example(shape=(2, 7, 5, 6), out=4, dtype=torch.float64, device='cpu'):
    x = torch.randn(shape, dtype=dtype, device=device)
    weight = torch.randn(out, shape[1], 1, 1, dtype=dtype, device=device)
    bias = torch.randn(out, dtype=dtype, device=device)
    return [x, weight, bias]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('kernel', KERNELS, ids=str)
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_equals_definition(shape, kernel, backend):
    x, weight, bias = example(shape)
    for b in (bias, None):
        y = cycle_fc(x, weight, b, kernel, backend=backend)
        torch.testing.assert_close(
            y, definition(x, weight, b, kernel), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('kernel', KERNELS, ids=str)
def test_gradients_equal_definition(kernel):
    grads = []
    grad = None
    for function in (cycle_fc, definition):
        torch.manual_seed(0)
        inputs = [t.requires_grad_() for t in example()]
        y = function(*inputs, kernel)
        grad = torch.randn_like(y) if grad is None else grad
        grads.append(torch.autograd.grad(y, inputs, grad))
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradcheck_to_second_order():
    inputs = [t.requires_grad_() for t in example((1, 4, 3, 3), 2)]
    assert torch.autograd.gradcheck(cycle_fc, inputs)
    assert torch.autograd.gradgradcheck(cycle_fc, inputs)


def test_moving_is_a_gather():
    # With the identity as weight, values of x do not change, even if inf.
    x = torch.randint(-99, 99, (2, 9, 5, 5)).float()
    x[0, 0, 2, 2] = float('inf')
    weight = torch.eye(9).reshape(9, 9, 1, 1)
    y = cycle_fc(x, weight, kernel_size=(1, 3), backend='torch')
    # A product of the infinity with the zeros beside it is not a number.
    rest = torch.ones(2, 5, 5, dtype=torch.bool)
    rest[0, 2, 2] = False
    for c in range(9):
        delta = (c + 1) % 3 - 1
        moved = torch.zeros_like(x[:, c])
        if delta == 0:
            moved = x[:, c]
        elif delta == 1:
            moved[..., :-1] = x[:, c, :, 1:]
        else:
            moved[..., 1:] = x[:, c, :, :-1]
        assert torch.equal(y[:, c][rest], moved[rest])


@pytest.mark.parametrize('layout', ['nchw', 'nhwc', 'sliced', 'expanded'])
def test_memory_formats(layout):
    x, weight, bias = example((2, 6, 5, 8))
    if layout == 'nhwc':
        x = x.to(memory_format=torch.channels_last)
    elif layout == 'sliced':
        x = x[:, :, 1:4, ::2]
    elif layout == 'expanded':
        x = x[:1].expand(3, -1, -1, -1)
    y = cycle_fc(x, weight, bias)
    torch.testing.assert_close(y, definition(x, weight, bias, (1, 3)))
    if layout == 'nhwc':
        assert y.is_contiguous(memory_format=torch.channels_last)
    if layout == 'nchw':
        assert y.is_contiguous()


@pytest.mark.parametrize('layout', ['expanded', 'cut-from-cat'])
def test_incoming_gradients_of_any_stride(layout):
    x, weight, bias = example()
    x.requires_grad_()
    y = cycle_fc(x, weight, bias)
    if layout == 'expanded':
        grad = y.new_ones(1, 1, 1, 1).expand_as(y)
    else:
        grad = torch.cat([y.detach(), y.detach()], 1)[:, 2:6]
    ours, = torch.autograd.grad(y, x, grad)
    theirs, = torch.autograd.grad(
        definition(x, weight, bias, (1, 3)), x, grad)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16,
                                   torch.float16], ids=str)
def test_dtypes(dtype, backend):
    if dtype == torch.float16 and torch.__version__ < '2.2':
        pytest.skip('torch 2.1 has no half precision products on the CPU')
    x, weight, bias = example()
    expected = definition(x, weight, bias, (3, 1))
    y = cycle_fc(x.to(dtype), weight.to(dtype), bias.to(dtype), (3, 1),
                 backend=backend)
    assert y.dtype == dtype
    rounding = {torch.float32: 1e-5, torch.float16: 2e-2,
                torch.bfloat16: 1e-1}[dtype]
    torch.testing.assert_close(y.double(), expected, rtol=rounding,
                               atol=rounding)


@pytest.mark.parametrize('channels_last', [False, True])
def test_autocast(channels_last):
    x, weight, bias = example(dtype=torch.float32)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        y = cycle_fc(x, weight, bias)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


def test_compile():
    inputs = [t.requires_grad_() for t in example(dtype=torch.float32)]
    y = torch.compile(cycle_fc)(*inputs)
    expected = cycle_fc(*inputs)
    torch.testing.assert_close(y, expected)
    grads = torch.autograd.grad(y.square().sum(), inputs)
    for ours, theirs in zip(
            grads, torch.autograd.grad(expected.square().sum(), inputs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('channels_last', [False, True])
def test_gpu(channels_last):
    x, weight, bias = example((2, 7, 9, 11), device='cuda')
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    expected = definition(x.cpu(), weight.cpu(), bias.cpu(), (1, 3))
    torch.testing.assert_close(cycle_fc(x, weight, bias).cpu(), expected)


@pytest.mark.parametrize('change, message', [
    (dict(x=torch.zeros(2, 7, 5)), r'\(N, C, H, W\).*\[2, 7, 5\]'),
    (dict(weight=torch.zeros(4, 6, 1, 1)), r'weight.*\[4, 6, 1, 1\]'),
    (dict(weight=torch.zeros(4, 7, 3, 3)), r'weight.*\[4, 7, 3, 3\]'),
    (dict(bias=torch.zeros(5)), r'bias.*\[5\]'),
    (dict(kernel_size=(2, 3)), r'odd.*\(2, 3\)'),
    (dict(kernel_size=3), r'odd.*kernel_size=3'),
    (dict(kernel_size=(1, 3, 1)), r'odd.*\(1, 3, 1\)'),
    (dict(backend='cuda'), r"triton.*torch.*reference.*backend='cuda'"),
])
def test_errors_name_the_value(change, message):
    x, weight, bias = example()
    arguments = dict(x=x, weight=weight, bias=bias) | change
    with pytest.raises(ValueError, match=message):
        cycle_fc(**arguments)


@pytest.mark.parametrize('channels_last', [False, True])
def test_triton_by_name(channels_last):
    x, weight, bias = example(dtype=torch.float32)
    reason = functional.triton.unavailable_reason(x)
    if reason is not None:
        pytest.skip(reason)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    for kernel in ((1, 3), (3, 1)):
        for b in (bias, None):
            y = cycle_fc(x, weight, b, kernel, backend='triton')
            torch.testing.assert_close(
                y, definition(x, weight, b, kernel), rtol=1e-5, atol=1e-5)
            assert y.is_contiguous() == (not channels_last)


class MapOnGpu:
    """A map with the attributes that the choice of a backend reads."""

    device = torch.device('cuda', 0)

    def __init__(self, dtype, is_cuda=True):
        self.dtype, self.is_cuda = dtype, is_cuda


@pytest.fixture
def resolve(monkeypatch):
    """Resolve the default backend for 64 channels, on a GPU as given."""
    functional._log_choice.cache_clear()

    def resolve(x, branches=3, channels=64, reason=None, known=None,
                capability=(9, 0)):
        monkeypatch.setattr(
            functional.triton, 'unavailable_reason', lambda x: reason)
        monkeypatch.setattr(tiles, 'MEASURED', known or {})
        monkeypatch.setattr(
            torch.cuda, 'get_device_capability', lambda device: capability)
        return functional._resolve(
            None, x, branches, channels, channels, (1, 3))

    return resolve


def known(us, torch_us, directions=('y', 'dx', 'dweight')):
    return {(9, 0): {
        f'{direction}-3-64-64-1x3-bfloat16':
        ((64, 64, 32, 8, 4), us, torch_us) for direction in directions}}


def test_default_on_a_gpu_depends_on_measurements(resolve):
    half = MapOnGpu(torch.bfloat16)
    assert resolve(half) == 'torch'
    assert resolve(half, known=known(1., 2.)) == 'triton'
    assert resolve(
        MapOnGpu(torch.float16), known=known(1., 2.)) == 'triton'
    assert resolve(half, known=known(2., 1.)) == 'torch'
    # Incomplete ones, and those of another GPU or shape, do not count.
    assert resolve(half, known=known(1., 2., ['y'])) == 'torch'
    assert resolve(half, known=known(1., 2.), capability=(8, 0)) == 'torch'
    assert resolve(half, known=known(1., 2.), channels=128) == 'torch'
    assert resolve(half, known=known(1., 2.), branches=1) == 'torch'
    assert resolve(half, known=known(1., 2.), reason='no triton') == 'torch'
    assert resolve(MapOnGpu(torch.float32), known=known(1., 2.)) == 'torch'
    assert resolve(
        MapOnGpu(torch.bfloat16, False), known=known(1., 2.)) == 'torch'


def test_choice_on_a_gpu_is_logged_once(resolve, caplog):
    caplog.set_level('INFO', 'mmcyclemlp')
    half = MapOnGpu(torch.bfloat16)
    for _ in range(3):
        resolve(half)
    line, = caplog.messages
    assert "backend='torch'" in line and '9.0' in line
    assert "backend='triton' tries" in line
    for _ in range(3):
        resolve(half, known=known(1., 2.))
    assert len(caplog.messages) == 2
    assert "backend='triton', which was measured" in caplog.messages[1]


@pytest.mark.parametrize('name', ['triton', 'reference'])
def test_backend_that_cannot_run_says_why(name, monkeypatch):
    x, weight, bias = example()
    module = getattr(functional, name)
    monkeypatch.setattr(
        module, 'unavailable_reason', lambda *_: 'the moon is full')
    with pytest.raises(BackendUnavailable, match=f'{name}.*the moon is full'):
        cycle_fc(x, weight, bias, backend=name)
    cycle_fc(x, weight, bias)  # the default is the best that can run


def test_2000_random_shapes():
    """Output and gradients against an ordinary convolution, in seconds."""
    random.seed(0)
    for case in range(2000):
        kernel = random.choice(KERNELS)
        shape = [random.choice((0, 1, 2, 3)), random.randint(1, 17),
                 random.randint(1, 9), random.randint(1, 9)]
        inputs = example(shape, random.randint(1, 9))
        if case % 2:
            inputs[0] = inputs[0].to(memory_format=torch.channels_last)
        inputs = [t.requires_grad_() for t in inputs]
        ours = cycle_fc(*inputs, kernel)
        theirs = dense_definition(*inputs, kernel)
        torch.testing.assert_close(
            ours, theirs, msg=lambda m: f'{shape} {kernel}: {m}')  # noqa
        grad = torch.randn_like(ours)
        for a, b in zip(torch.autograd.grad(ours, inputs, grad),
                        torch.autograd.grad(theirs, inputs, grad)):
            torch.testing.assert_close(
                a, b, msg=lambda m: f'{shape} {kernel}: {m}')  # noqa


def test_both_definitions_agree():
    for kernel in KERNELS:
        for shape in ((2, 11, 5, 6), (1, 7, 1, 9)):
            x, weight, bias = example(shape)
            torch.testing.assert_close(
                dense_definition(x, weight, bias, kernel),
                definition(x, weight, bias, kernel))
