import definition
import pytest
import torch

from mmcyclemlp.ops import constants
from mmcyclemlp.ops import torch_backend as shift
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP
from mmcyclemlp.ops.product import branch_kernels

# (B, H, W, C): one chunk, several chunks, several images in a chunk.
SHAPES = {
    'odd': (2, 5, 7, 8),
    'one-pixel': (3, 1, 1, 7),
    'narrower-than-kernel': (1, 9, 2, 64),
    'high': (2, 200, 100, 4),
    'many-images': (300, 7, 7, 5),
    'batch-0': (0, 4, 4, 6),
    'height-0': (2, 0, 4, 6),
}


def expected(x, weight, bias, shortcut, kernel_size):
    y = 0
    kernels = branch_kernels(kernel_size, weight.shape[1])
    for kernel, branch in zip(kernels, weight.unbind(1)):
        eye = torch.eye(x.shape[3]).to(x)[..., None, None]
        moved = definition.cycle_fc_dense(
            x.permute(0, 3, 1, 2), eye, None, kernel).permute(0, 2, 3, 1)
        y = y + torch.einsum('bhwc,boc->bhwo', moved,
                             branch.expand(x.shape[0], -1, -1))
    return y + bias[:, None, None] + shortcut


@pytest.fixture(params=[False, True], ids=['as-they-lie', 'sorted'])
def sorts(request, monkeypatch):
    """Whether channels are sorted before they move, as on a GPU."""
    monkeypatch.setattr(shift, '_sorts', lambda x: request.param)
    return request.param


@pytest.mark.parametrize('branches', [1, 3])
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_product_equals_definition(shape, shared, branches, sorts):
    b, h, w, c = shape
    for kernel in ((1, 3), (3, 1), (3, 3), (1, 1)):
        inputs = [
            torch.randn(size, dtype=torch.float64, requires_grad=True)
            for size in ((b, h, w, c), (1 if shared else b, branches, 6, c),
                         (1 if shared else b, 6), (b, h, w, 6))]
        y = shift.cycle_product_torch(*inputs, kernel)
        if h == 0:
            assert y.shape == (b, h, w, 6)
            continue
        theirs = expected(*inputs, kernel)
        grad = torch.randn_like(y)
        for ours, other in zip(
                (y, *torch.autograd.grad(y, inputs, grad)),
                (theirs, *torch.autograd.grad(theirs, inputs, grad))):
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_sorted_channels_are_copied_as_vectors(monkeypatch, sorts):
    strides = set()
    pair = shift._pair

    def keep(tap, *args):
        strides.add(tap.channels.step or 1)
        return pair(tap, *args)

    monkeypatch.setattr(shift, '_pair', keep)
    x, dy = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 6)
    weight = torch.randn(1, 3, 6, 5)
    shift._product(x, weight, None, None, 1, 3)
    shift._product_backward_x(dy, weight, 1, 3)
    shift._product_backward_weight(x, dy, 1, 3, 3, True)
    assert strides == ({1} if sorts else {3})


@pytest.mark.parametrize('layout', [
    torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_cycle_fc_equals_definition(layout, sorts):
    for kernel in ((1, 3), (3, 1), (3, 3), (1, 1)):
        x, weight, bias = (
            torch.randn(size, dtype=torch.float64, requires_grad=True)
            for size in ((2, 7, 5, 6), (4, 7, 1, 1), (4, )))
        y = shift.cycle_fc_torch(
            x.contiguous(memory_format=layout), weight, bias, kernel)
        assert y.is_contiguous(memory_format=layout)
        theirs = definition.cycle_fc_dense(x, weight, bias, kernel)
        grad = torch.randn_like(theirs)
        inputs = [x, weight, bias]
        for ours, other in zip(
                (y, *torch.autograd.grad(y, inputs, grad)),
                (theirs, *torch.autograd.grad(theirs, inputs, grad))):
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_training_after_inference_mode(sorts):
    # Tensors cached in inference mode must be usable for training.
    constants._kept.cache_clear()
    x = torch.randn(2, 7, 5, 6).to(memory_format=torch.channels_last)
    weight = torch.randn(4, 7, 1, 1, requires_grad=True)
    with torch.inference_mode():
        expected = shift.cycle_fc_torch(x, weight, None, (1, 3))
    y = shift.cycle_fc_torch(x, weight, None, (1, 3))
    y.sum().backward()
    assert torch.equal(y, expected)


def test_eager_after_fake_tensors_and_the_other_way(sorts):
    from torch._subclasses import FakeTensorMode

    constants._kept.cache_clear()
    x = torch.randn(2, 7, 5, 6).to(memory_format=torch.channels_last)
    weight = torch.randn(4, 7, 1, 1)
    for _ in range(2):
        with FakeTensorMode() as mode:
            fake = shift.cycle_fc_torch(
                mode.from_tensor(x), mode.from_tensor(weight), None, (1, 3))
        y = shift.cycle_fc_torch(x, weight, None, (1, 3))
        assert y.shape == fake.shape and y.stride() == fake.stride()


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='torch is older than 2.6')
def test_compiles_without_a_break(sorts):
    x = torch.randn(2, 7, 5, 6).to(memory_format=torch.channels_last)
    weight = torch.randn(4, 7, 1, 1)
    compiled = torch.compile(
        shift.cycle_fc_torch, fullgraph=True, backend='aot_eager')
    for inputs in ((x, weight), (x[:, :, 1:], weight)):
        inputs = [t.detach().requires_grad_() for t in inputs]
        y = compiled(*inputs, None, (1, 3))
        theirs = shift.cycle_fc_torch(*inputs, None, (1, 3))
        for a, b in zip((y, *torch.autograd.grad(y.sum(), inputs)),
                        (theirs, *torch.autograd.grad(theirs.sum(), inputs))):
            torch.testing.assert_close(a, b)


def test_product_to_second_order(sorts):
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True)
              for size in ((2, 3, 4, 5), (2, 3, 2, 5), (2, 2), (2, 3, 4, 2))]

    def product(*inputs):
        return shift.cycle_product_torch(*inputs, (1, 3))

    assert torch.autograd.gradcheck(product, inputs)
    assert torch.autograd.gradgradcheck(product, inputs)


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='torch is older than 2.6')
def test_product_passes_opcheck(sorts):
    x, weight, bias, shortcut = (
        torch.randn(size, requires_grad=True)
        for size in ((2, 3, 4, 5), (2, 3, 2, 5), (2, 2), (2, 3, 4, 2)))
    ops = torch.ops.mmcyclemlp
    for op, arguments in (
            (ops.product_torch, (x, weight, bias, shortcut, 1, 3)),
            (ops.product_torch_backward_x, (shortcut, weight, 1, 3)),
            (ops.product_torch_backward_weight,
             (x, shortcut, 1, 3, 3, False))):
        torch.library.opcheck(op.default, arguments)
