"""Tensors are cached where later calls can use them, and only there."""

import pytest
import torch

from mmcyclemlp.ops import constants
from mmcyclemlp.ops.constants import constant


@pytest.fixture
def made():
    """Return a function that makes a tensor and records the devices."""
    devices = []

    def make(device, size):
        devices.append(device)
        # Tensors for a GPU are made on the CPU here.
        return torch.arange(size)

    make.devices = devices
    return make


def test_it_is_made_once_for_a_device_and_a_size(made):
    x = torch.zeros(1)
    assert constant(made, x, 3) is constant(made, x, 3)
    assert constant(made, x, 4).shape == (4, )
    assert len(made.devices) == 2
    constant(made, torch.zeros(1, device='meta'), 3)
    assert [device.type for device in made.devices] == ['cpu', 'cpu', 'meta']


def test_it_can_be_trained_with_after_inference(made):
    with torch.inference_mode():
        first = constant(made, torch.zeros(1), 3)
    assert not first.is_inference()
    assert constant(made, torch.zeros(1), 3) is first


def test_it_is_not_kept_while_compiling(made, monkeypatch):
    monkeypatch.setattr(constants, 'is_compiling', lambda: True)
    x = torch.zeros(1)
    assert constant(made, x, 3) is not constant(made, x, 3)


def test_it_is_not_kept_for_fake_tensors(made):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode() as mode:
        constant(made, mode.from_tensor(torch.zeros(1)), 3)
    assert type(constant(made, torch.zeros(1), 3)) is torch.Tensor


def test_it_is_kept_only_in_the_default_stream(made, monkeypatch):
    class OnGpu:
        is_cuda, device = True, torch.device('cuda', 0)

    monkeypatch.setattr(constants, 'Tensor', OnGpu)
    monkeypatch.setattr(torch.cuda, 'default_stream', lambda device: 0)
    # A CUDA graph is captured in another stream.
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: 1)
    captured = constant(made, OnGpu(), 3)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: 0)
    kept = constant(made, OnGpu(), 3)
    assert kept is not captured and constant(made, OnGpu(), 3) is kept
