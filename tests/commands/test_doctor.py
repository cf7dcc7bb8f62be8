"""The doctor reports what works and what is broken, and never breaks."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.apis import doctor
from mmcyclemlp.ops import functional
from mmcyclemlp.ops import torch_backend as shift
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

NO_IMAGE = ('CUDA error: no kernel image is available for execution on the '
            'device')


@pytest.fixture
def examine(root, tmp_path):
    """Run the doctor with broken libraries; return its status and lines.

    ``examine({'mmdet/__init__.py': 'raise ...'})`` puts those before the
    installed ones.
    """
    def run(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        done = subprocess.run(
            [sys.executable, '-m', 'mmcyclemlp', 'doctor'],
            env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{root}'},
            capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert 'Traceback' not in done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines()

    return run


@pytest.fixture
def gpu(monkeypatch):
    """Make a CPU pass for an A100; returns what gives it other properties."""
    def change(**properties):
        for name, value in properties.items():
            monkeypatch.setattr(torch.cuda, name,
                                lambda *args, value=value: value)

    # A name for the CPU that differs from that of its own checks.
    monkeypatch.setattr(doctor, 'GPU', 'cpu:0')
    monkeypatch.setattr(
        functional.triton, 'unavailable_reason', lambda x: 'not tested')
    change(is_available=True, device_count=2, get_device_name='A100',
           get_device_capability=(8, 0), get_arch_list=['sm_75', 'sm_80'])
    return change


@pytest.fixture
def nms(monkeypatch):
    """Put a function in the place of mmcv's operator, or an error."""
    def put(result):
        def run(boxes, scores, iou_threshold):
            if isinstance(result, Exception):
                raise result
            return None, torch.tensor(result)

        for name, value in dict(mmcv=SimpleNamespace(__spec__=1), mmdet=None,
                                mmseg=SimpleNamespace(__spec__=1)).items():
            monkeypatch.setitem(sys.modules, name, value)
        monkeypatch.setitem(sys.modules, 'mmcv.ops', SimpleNamespace(nms=run))

    return put


def problems(lines):
    return [line for line in lines if line.startswith('PROBLEM')]


def test_a_whole_installation(examine):
    status, lines = examine({})
    assert problems(lines) == [] and status == 0
    assert lines[-1] == 'no problems'
    text = '\n'.join(lines)
    for what in ('mmcyclemlp 0.', 'torch ', 'numpy ', 'mmengine ',
                 'backend torch on cpu, torch.float32: off by '):
        assert f'ok       {what}' in text
    assert 'backend reference on cpu' in text
    assert 'CycleNet is in the registry of mm' in text


@pytest.mark.parametrize('broken', [
    dict(mmdet=("ImportError('libGL.so.1: cannot open')",
                'pip install opencv-python-headless'),
         mmseg=('ModuleNotFoundError("No module named \'ftfy\'")',
                'pip install ftfy'),
         torchvision=("RuntimeError('operator torchvision::nms does not "
                      "exist')", 'pip uninstall torchvision')),
    dict(mmcv=("AssertionError('MMCV==9 is used but incompatible')",
               'install the versions that the extras'),
         mmengine=('ModuleNotFoundError("No module named '
                   '\'pkg_resources\'")', "pip install 'setuptools<82'")),
], ids=lambda broken: '-'.join(broken))
def test_broken_libraries(broken, examine):
    metadata = 'Metadata-Version: 2.1\nName: {}\nVersion: 0.10.0\n'
    status, lines = examine({
        **{f'{name}/__init__.py': f'raise {error}'
           for name, (error, _) in broken.items()},
        **{f'{name.replace("-", "_")}-0.10.0.dist-info/METADATA':
           metadata.format(name) for name in ('mmcv', 'onedl-mmcv')}})
    for name, (_, remedy) in broken.items():
        line, = (line for line in problems(lines)
                 if line.split()[1] == f'{name}:' and 'Remedy' in line
                 and 'both families' not in line)
        assert f'Remedy: {remedy}' in line
    line, = (line for line in problems(lines) if 'both families' in line)
    assert 'mmcv: both' in line
    assert 'pip uninstall onedl-mmcv mmcv, ' in line
    assert status == 1 and lines[-1] == f'{len(problems(lines))} problems'


def test_libraries_that_end_python(examine):
    """No version, an exit in place of an error, and a broken operator."""
    status, lines = examine({
        'cv2/__init__.py': 'raise SystemExit(0)',
        'mmseg/__init__.py': '',
        'mmdet/__init__.py': '__version__ = 1',
        'mmdet/registry.py': 'raise RuntimeError("no registry")',
        'mmcv/__init__.py': '__version__ = 1',
        'mmcv/ops.py': 'def nms(*args): raise RuntimeError("no nms")'})
    text = '\n'.join(lines)
    for line in ('PROBLEM  cv2: SystemExit: 0',
                 'ok       mmseg (no version) (',
                 'PROBLEM  the registry of mmdet: RuntimeError: no registry',
                 'PROBLEM  operators of mmcv on cpu: RuntimeError: no nms',
                 'ok       backend torch on cpu'):
        assert line in text
    assert status == 1


def test_error_in_a_check(gpu, nms, monkeypatch):
    nms([2, 1])

    def fails():
        yield doctor.Result(doctor.OK, 'one')
        raise ZeroDivisionError('two')

    monkeypatch.setattr(doctor, '_libraries', fails)
    monkeypatch.setattr(doctor, '_registries', list)
    findings = list(doctor.examine())
    where = findings.index((doctor.OK, 'one'))
    assert findings[where + 1] == (
        doctor.PROBLEM,
        'the check of libraries failed: ZeroDivisionError: two')
    text = '\n'.join(text for _, text in findings)
    for what in ('operators of mmcv on cpu: nms is correct', '2 x A100 ',
                 'operators of mmcv on cpu:0: nms is correct'):
        assert what in text


@pytest.mark.parametrize('device', ['cpu', 'cpu:0'])
def test_operator(device, gpu, nms):
    nms([2, 1])
    assert list(doctor._operators(device)) == [
        (doctor.OK, f'operators of mmcv on {device}: nms is correct')]
    nms([2, 0, 1])
    (level, text), = doctor._operators(device)
    assert level == doctor.PROBLEM
    assert 'keeps boxes [2, 0, 1] instead of [2, 1]. Remedy: ' in text


@pytest.mark.parametrize('error', [
    NO_IMAGE, 'nms_impl: implementation for device cuda:0 not found.\n'])
@pytest.mark.parametrize('name, version', [
    ('onedl-mmcv', '2.3.6'), ('mmcv', '2.1.0')])
def test_mmcv_without_code_for_the_gpu(
        error, name, version, gpu, nms, monkeypatch):
    gpu(get_device_capability=(10, 3), get_arch_list=['sm_100'])
    nms(RuntimeError(f'{error}\nSearch for `cudaError...'))
    monkeypatch.setattr(doctor, '_version', {name: version}.get)
    findings = list(doctor._gpu())
    assert findings[0] == (doctor.OK, '2 x A100 (compute capability 10.3)')
    level, problem = findings[1]
    assert level == doctor.PROBLEM and problem.startswith(
        f'operators of mmcv on cpu:0: RuntimeError: {error.strip()}. ')
    assert 'has compute capability 10.3. ' in problem
    assert problem.count('Remedy') == 1
    assert 'TORCH_CUDA_ARCH_LIST=10.3 pip install ' in problem
    assert problem.endswith(f' --no-binary {name} {name}=={version}')
    # This error does not spoil the GPU, so the other checks run.
    assert any('backend torch on cpu:0' in text for _, text in findings)


def test_broken_operators(gpu, nms, monkeypatch):
    """A problem only where they are needed, and reported only once."""
    nms(RuntimeError(NO_IMAGE))
    monkeypatch.setattr(torch.version, 'hip', '7.0')
    (level, text), = doctor._operators('cpu:0')
    assert level == doctor.PROBLEM and text.endswith('no wheel for ROCm')
    monkeypatch.setitem(sys.modules, 'mmseg', None)
    (level, text), = doctor._operators('cpu')
    assert level == doctor.NOTE and 'classifiers do not need' in text
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    assert list(doctor._operators('cpu:0')) == []
    (level, text), = doctor._operators('cpu')
    assert level == doctor.NOTE and 'ModuleNotFoundError' in text


@pytest.mark.parametrize('capability, archs, build', [
    ((8, 6), 'sm_80', None),
    ((8, 0), 'sm_75 sm_80 sm_90a', None),
    ((12, 0), 'sm_90 compute_90', None),
    ((10, 3), 'sm_100', None),
    ((9, 4), 'gfx90a gfx942', None),
    ((9, 0), '', None),
    ((8, 0), 'sm_75 sm_86', 'that has code for it'),
    ((12, 0), 'sm_50 sm_90 compute_120a', None),
    ((12, 0), 'sm_50 sm_90', 'for CUDA 12.8 or later'),
    ((7, 0), 'sm_75 sm_80 compute_120', 'for CUDA 12.6'),
])
def test_torch_without_code_for_the_gpu(capability, archs, build, gpu, nms):
    nms([2, 1])
    gpu(get_device_capability=capability, get_arch_list=archs.split())
    findings = list(doctor._gpu())
    if build is None:
        assert findings[1].level == doctor.OK and len(findings) > 2
        return
    assert len(findings) == 2 and findings[1].level == doctor.PROBLEM
    assert findings[1].text == (
        'torch on cpu:0: it has no code for compute capability '
        f'{capability[0]}.{capability[1]}, but for {archs}. Remedy: install '
        f'a torch {build}')


def test_gpu_that_cannot_be_used(gpu, nms, monkeypatch):
    nms(RuntimeError('CUDA error: an illegal memory access'))
    answers = iter([None, 'it cannot add'])
    with monkeypatch.context() as patch:
        patch.setattr(doctor, '_unusable', lambda: next(answers))
        assert [level for level, _ in doctor._gpu()] == [
            doctor.OK, doctor.PROBLEM, doctor.NOTE]
    monkeypatch.setattr(doctor, 'GPU', 'nonsense')
    _, (level, text) = doctor._gpu()
    assert level == doctor.PROBLEM and text.startswith('torch on nonsense: ')


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='an older torch multiplies no '
                    'half precision on a CPU')
def test_kernels(gpu, nms, monkeypatch):
    """Both kernels run in both precisions, and a wrong result is reported."""
    nms([2, 1])
    seen = set()

    def product(x, weight, bias, shortcut, kernel_size):
        seen.add((weight.shape[1], x.dtype))
        return wrong + shift.cycle_product_torch(
            x, weight, bias, shortcut, kernel_size)

    monkeypatch.setattr(
        functional.triton, 'unavailable_reason', lambda x: None)
    monkeypatch.setattr(functional.triton, 'cycle_product_triton', product,
                        raising=False)
    for wrong, level in enumerate([doctor.OK, doctor.PROBLEM]):
        found = [one for one in doctor._gpu() if 'triton' in one.text]
        assert [one.level for one in found] == [level] * 2
        assert all(bool(wrong) == ('report this' in one.text)
                   for one in found)
    assert seen == {(branches, dtype) for branches in (1, 3)
                    for dtype in (torch.float32, torch.float16)}
