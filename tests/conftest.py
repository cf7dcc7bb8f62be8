"""Options and fixtures of all tests."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

# Tests run in parallel, and more threads than cores would only wait. It is
# set before torch is imported. Processes that tests start inherit it.
os.environ['OMP_NUM_THREADS'] = '1'

import pytest
import torch

# Importing yapf writes a cache. Only one process should write it.
with contextlib.suppress(ImportError):
    import yapf  # noqa: F401

ROOT = Path(__file__).parent.parent

# Without a GPU the kernels are tested in Triton's interpreter. The variable
# must be set before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


def pytest_addoption(parser):
    parser.addoption('--soak', action='store_true', help='tests that repeat '
                     'something at random do so at full length')
    parser.addoption('--real-data', type=Path, metavar='DIR', help='folder '
                     'with minicoco and camvid, whose copies tests may spoil')


@pytest.fixture(scope='session')
def rounds(request):
    """Return a function ``rounds(short, long)``: how often to repeat.

    It returns ``long`` with ``--soak``, and ``short`` without.
    """
    def choose(short, long):
        return long if request.config.getoption('soak') else short

    return choose


@pytest.fixture(autouse=True)
def _same_start(monkeypatch):
    monkeypatch.delenv('FORK_LAST3', raising=False)
    # With torch 2.1 another test leaves gradients disabled.
    torch.set_grad_enabled(True)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def root():
    """The folder of the project."""
    return ROOT


@pytest.fixture(scope='session')
def run_python():
    """Run Python as a user would; return the finished process."""

    def run(*args, expect=0, cwd=ROOT):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *map(str, args)], cwd=cwd,
            capture_output=True, text=True, timeout=900)
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope='session')
def run_cli(run_python):
    """Run ``python -m mmcyclemlp`` as a user would."""
    return partial(run_python, '-m', 'mmcyclemlp')


@pytest.fixture(scope='session')
def drawn_data(tmp_path_factory):
    """Draw a few images like those of the demo, with COCO and ADE20K files."""
    spec = importlib.util.spec_from_file_location(
        'draw_data', ROOT / 'demo' / 'draw_data.py')
    draw_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw_data)
    folder = tmp_path_factory.mktemp('data')
    draw_data.draw_split(folder, 'train', 8, seed=0)
    draw_data.draw_split(folder, 'val', 4, seed=1)
    return folder
