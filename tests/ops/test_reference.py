import pytest
import torch

from mmcyclemlp.ops import cycle_offsets, reference


def test_offsets_of_the_released_weights():
    # cyclenet: k = 3 gives 0, +1, -1, 0, +1, -1, ...
    cycle = torch.tensor([0, 1, -1, 0, 1, -1, 0])
    still = torch.zeros(7, dtype=torch.long)
    assert torch.equal(cycle_offsets(7, (1, 3)),
                       torch.stack([still, cycle], 1))
    assert torch.equal(cycle_offsets(7, (3, 1)),
                       torch.stack([cycle, still], 1))


def test_offsets_of_a_two_dimensional_kernel_visit_every_position():
    offsets = {tuple(o) for o in cycle_offsets(15, (3, 5)).tolist()}
    assert offsets == {(y, x) for y in range(-1, 2) for x in range(-2, 3)}


def test_reason_when_no_library_is_there(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(reference.importlib, 'import_module', fail)
    reason = reference.unavailable_reason()
    assert 'torchvision or mmcv' in reason


@pytest.mark.parametrize('library', ['torchvision', 'mmcv'])
def test_each_library_gives_the_same(library, monkeypatch):
    pytest.importorskip(f'{library}.ops')
    if library == 'mmcv':
        monkeypatch.setitem(__import__('sys').modules, 'torchvision.ops',
                            None)
    from definition import cycle_fc as definition

    x = torch.randn(2, 6, 4, 5)
    weight, bias = torch.randn(3, 6, 1, 1), torch.randn(3)
    y = reference.cycle_fc_reference(x, weight, bias, (1, 3))
    torch.testing.assert_close(
        y, definition(x, weight, bias, (1, 3)), rtol=1e-5, atol=1e-5)
