"""Run the GPU measurement in miniature, to find its errors without a GPU."""

import json
import subprocess
import sys

import pytest

from mmcyclemlp.ops import triton as backend


@pytest.fixture(scope='module')
def measurement(root, tmp_path_factory):
    """Return the finished program, and the machine and steps in its file."""
    # Without these, kernels cannot run, even on a GPU.
    if backend._TRITON is None or not backend._HAS_CUSTOM_OP:
        pytest.skip('it needs triton and torch 2.6')
    path = tmp_path_factory.mktemp('gpu') / 'gpu.json'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.gpu', '--miniature',
         '--json', path, '--seconds', '3000'],
        cwd=root, capture_output=True, text=True, timeout=1500)
    assert path.exists(), done.stdout + done.stderr
    known = json.loads(path.read_text())
    return done, known['machine'], known['steps']


def test_no_step_fails(measurement):
    done, machine, steps = measurement
    for name, step in steps.items():
        assert step['status'] in ('done', 'skipped'), (name, step)
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine['torch'] and machine['date']


def test_each_step_has_a_table_or_a_reason(measurement):
    done, _, steps = measurement
    for name, step in steps.items():
        assert f'\n## {name}: {step["status"]}' in done.stdout
        if step['status'] == 'skipped':
            assert len(step['reason']) > 10
            continue
        assert step['figures']['table']
        assert '\n'.join(step['figures']['table']) in done.stdout


def test_kernels_are_checked_compiled_and_timed(measurement):
    *_, steps = measurement
    counts = steps['correctness']['figures']['counts']
    assert counts['passed'] >= 5 and counts['failed'] == 0
    assert steps['correctness']['figures']['passed'] is True
    keys = steps['tiles']['figures']['keys']
    assert {name.partition('-')[0] for name in keys} == {
        'y', 'dx', 'dweight'}
    for of_key in keys.values():
        assert len(of_key['tiles']) == 4
        for one in of_key['tiles']:
            assert one['us'] > 0 and one['registers'] > 0
            assert one['error'] < 2e-2
        assert sum('proved' in one for one in of_key['tiles']) >= 1


def run(root, *args, expect):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.gpu', *args], cwd=root,
        capture_output=True, text=True, timeout=300)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_a_step_that_does_not_exist(root, tmp_path):
    done = run(root, 'tuned', '--json', tmp_path / 'x', expect=2)
    assert 'the steps are correctness, tiles, ' in done.stderr


def test_error_without_a_gpu(root, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    done = run(root, '--json', tmp_path / 'x', expect=2)
    assert '--miniature does without' in done.stderr
