"""Steps that crash, hang or fail are reported, and keep their figures."""

import json
import subprocess
import sys

import pytest

from tests.gpu import correctness
from tests.gpu.test_on_gpu import SMALL_CASE

STEPS = {
    'done': "step.record(table=['all is well'])",
    'failed': "step.record(n=1)\n    raise ValueError('of a test')",
    'wrong': "step.record(table=['off by 1'], wrong=True)",
    'skipped': "raise Skipped('nothing here')",
    'hanging': "step.record(n=1)\n    import time\n    time.sleep(999)",
    'crashing': '''if step.figures.get('n') == 2:
        return step.record(table=['third try'])
    step.record(n=step.figures.get('n', 0) + 1)
    import os
    os.abort()''',
}


@pytest.fixture(scope='module')
def run(root, tmp_path_factory):
    """Run one of the steps above, in a copy of the package."""
    folder = tmp_path_factory.mktemp('other')
    package = folder / 'tests' / 'gpu'
    package.mkdir(parents=True)
    (folder / 'tests' / '__init__.py').write_text('')
    here = root / 'tests' / 'gpu'
    (package / 'step.py').write_text((here / 'step.py').read_text())
    main = (here / '__main__.py').read_text()
    start = main.index('STEPS = dict(')
    end = main.index(')\n', start)
    (package / '__main__.py').write_text(
        f'{main[:start]}STEPS = dict.fromkeys({list(STEPS)}, 1.{main[end:]}')
    for name, body in STEPS.items():
        (package / f'{name}.py').write_text(
            'from .step import Skipped\n'
            f'def measure(step):\n    {body}\n')

    def run(name, seconds=60):
        path = folder / f'{name}.json'
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'tests.gpu', name,
             '--miniature', '--json', path, '--seconds', str(seconds)],
            cwd=folder, capture_output=True, text=True, timeout=200,
            env={'PYTHONPATH': str(root), 'PATH': ''})
        known = json.loads(path.read_text())
        return done.returncode, done.stdout, known['steps'][name], path

    return run


def test_done(run):
    status, text, step, _ = run('done')
    assert status == 0 and step['status'] == 'done'
    assert 'all is well' in text


def test_failed(run):
    status, text, step, _ = run('failed')
    assert status == 1 and step['status'] == 'failed'
    assert step['reason'] == 'ValueError: of a test'
    assert 'of a test' in step['trace'] and step['figures'] == {'n': 1}
    assert '## failed: failed in' in text and 'ValueError' in text


def test_wrong(run):
    status, text, step, _ = run('wrong')
    assert status == 1 and step['status'] == 'done' and 'off by 1' in text


def test_skipped(run):
    status, text, step, _ = run('skipped')
    assert status == 0 and step['status'] == 'skipped'
    assert 'nothing here' in text


def test_hanging_is_cut_short_and_keeps_its_figures(run):
    status, _, step, _ = run('hanging', 40)
    assert status == 0 and step['status'] == 'cut short'
    assert step['figures'] == {'n': 1} and step['seconds'] < 200


def test_steps_of_another_run_are_kept(run):
    *_, path = run('skipped')
    known = json.loads(path.read_text())
    known['steps']['other'] = dict(status='done')
    path.write_text(json.dumps(known))
    run('skipped')
    assert set(json.loads(path.read_text())['steps']) == {'skipped', 'other'}


def test_a_crashed_step_continues_after_its_figures(run):
    status, text, step, _ = run('crashing')
    assert status == 0 and step['status'] == 'done'
    assert 'third try' in text and step['figures']['n'] == 2


def test_the_step_correctness_names_existing_tests(root):
    for name in correctness.FILES:
        path, _, test = name.partition('::')
        text = (root / 'tests' / path).read_text()
        assert not test or f'def {test}' in text


def test_the_case_for_the_sanitizer_imports_existing_modules():
    for line in SMALL_CASE.splitlines():
        if 'import' in line:
            exec(line, {})
