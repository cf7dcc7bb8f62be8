import pytest
import torch

from mmcyclemlp.ops import custom_op


def make_square(name):
    def save(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def grads(ctx, dy):
        return 2 * ctx.saved_tensors[0] * dy

    return custom_op.register(
        name, '(Tensor x) -> Tensor', lambda x: x.square(),
        torch.empty_like, save, grads)


@pytest.mark.parametrize('has_custom_op', [False, True])
def test_register(has_custom_op, monkeypatch):
    if has_custom_op and not custom_op.HAS_CUSTOM_OP:
        pytest.skip('torch is older than 2.6')
    monkeypatch.setattr(custom_op, 'HAS_CUSTOM_OP', has_custom_op)
    square = make_square(f'test_square_{has_custom_op}')
    x = torch.tensor([1., -3.], requires_grad=True)
    y = square(x)
    assert y.tolist() == [1, 9]
    y.sum().backward()
    assert x.grad.tolist() == [2, -6]
    assert hasattr(torch.ops.mmcyclemlp,
                   'test_square_True') == has_custom_op


def test_autocast_casts_what_torch_would():
    single, double = torch.ones(2), torch.ones(2).double()
    assert custom_op.autocast(single, None) == (single, None)
    with torch.autocast('cpu', torch.bfloat16):
        cast = custom_op.autocast(single, double, None)
    assert cast[0].dtype == torch.bfloat16
    assert cast[1] is double and cast[2] is None
