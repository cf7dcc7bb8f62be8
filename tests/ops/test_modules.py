import pytest
import torch

from mmcyclemlp.ops import CycleFC, cycle_fc


def test_calls_the_function_with_its_parameters():
    layer = CycleFC(6, 4, (3, 1))
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(
        layer(x), cycle_fc(x, layer.weight, layer.bias, (3, 1)))


def test_keys_and_shapes_are_the_official_ones():
    shapes = {key: tuple(value.shape)
              for key, value in CycleFC(6, 4, (1, 3)).state_dict().items()}
    assert shapes == {'weight': (4, 6, 1, 1), 'bias': (4, )}
    assert set(CycleFC(6, 4, (1, 3), bias=False).state_dict()) == {'weight'}


@pytest.mark.parametrize('arguments, message', [
    ((0, 4, (1, 3)), 'in_channels=0'),
    ((4, 0, (1, 3)), 'out_channels=0'),
    ((4, 4, (1, 2)), r'\(1, 2\)'),
])
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        CycleFC(*arguments)
