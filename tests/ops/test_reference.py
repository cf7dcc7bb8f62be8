import pytest
import torch

from mmcyclemlp.ops import reference


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
