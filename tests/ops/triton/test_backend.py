"""Whether the backend can run, and why not."""

import os
import re
import subprocess
import sys

import pytest
import torch

from mmcyclemlp.ops import triton as backend


@pytest.mark.parametrize('change, x, message', [
    (dict(_HAS_CUSTOM_OP=False), torch.zeros(1), r'torch 2\.6'),
    (dict(_TRITON=None), torch.zeros(1), 'not installed'),
    (dict(_TRITON='3.1.0'), torch.zeros(1), r'triton 3\.2.*got 3\.1\.0'),
    ({}, torch.zeros(1, dtype=torch.float64), 'got torch.float64'),
    ({}, torch.zeros(1), 'got cpu'),
    ({}, torch.zeros(1).bfloat16(), 'interpreter.*bfloat16'),
], ids=['old-torch', 'no-triton', 'old-triton', 'dtype', 'device',
        'interpreter'])
def test_unavailable_reason(monkeypatch, change, x, message):
    facts = dict(_HAS_CUSTOM_OP=True, _TRITON='3.2.0')
    for name, fact in {**facts, **change}.items():
        monkeypatch.setattr(backend, name, fact)
    monkeypatch.setenv('TRITON_INTERPRET',
                       '1' if x.dtype == torch.bfloat16 else '0')
    reason = backend.unavailable_reason(x)
    assert re.search(message, reason)


@pytest.mark.parametrize('capability, version, hip, reason', [
    ((7, 5), '3.2.0', None, r'8\.0 or higher, got 7\.5'),
    ((8, 0), '3.2.0', None, None),
    ((9, 0), '3.3.1', None, r'triton 3\.4.*9\.0, got 3\.3\.1'),
    ((9, 0), '3.4.0', None, None),
    ((9, 0), '3.4.0', '6.4', 'NVIDIA'),
])
def test_what_a_gpu_needs(monkeypatch, capability, version, hip, reason):
    class OnGpu:
        is_cuda, dtype, device = True, torch.float16, 'cuda:0'

    monkeypatch.setattr(backend, '_HAS_CUSTOM_OP', True)
    monkeypatch.setattr(backend, '_TRITON', version)
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda device: capability)
    found = backend.unavailable_reason(OnGpu)
    assert re.search(reason, found) if reason else found is None


def test_interpreter_replaces_a_gpu(monkeypatch):
    if backend._TRITON is None or not backend._HAS_CUSTOM_OP:
        pytest.skip('it needs triton 3.2 and torch 2.6')
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert backend.unavailable_reason(torch.zeros(1)) is None


def test_import_needs_no_triton(root):
    # Any import of it raises, as if it were not installed.
    code = ('import sys; sys.modules["triton"] = None; '
            'import mmcyclemlp, mmcyclemlp.ops.triton')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=root,
                   env=os.environ, check=True)


def test_unknown_name():
    with pytest.raises(AttributeError, match='cycle_product_cuda'):
        backend.cycle_product_cuda  # noqa: B018
