"""The doctor says what is there and what is broken, and never breaks."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def examine(root, tmp_path):
    """Run the doctor beside broken libraries; give its status and lines.

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


def problems(lines):
    return [line for line in lines if line.startswith('PROBLEM')]


def test_a_whole_installation(examine):
    status, lines = examine({})
    assert problems(lines) == [] and status == 0
    assert lines[-1] == 'no problems'
    text = '\n'.join(lines)
    for what in ('mmcyclemlp 0.', 'torch ', 'numpy ', 'mmengine ',
                 'backend torch on cpu: off by ', 'backend reference on cpu'):
        assert f'ok       {what}' in text
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
    assert 'mmcv: of both' in line
    assert 'pip uninstall onedl-mmcv mmcv, ' in line
    assert status == 1 and lines[-1] == f'{len(problems(lines))} problems'
