"""The step ``models`` evaluates logs, and starts and ends commands."""

import json
import math
import sys
import time

import pytest

from tests.gpu import commands, models
from tests.gpu.commands import Command, Failed, Late


@pytest.mark.parametrize('pair, expected', [
    ((2., 2.), 0.), ((2., 1.), .5), ((1., 2.), .5),
    ((math.inf, math.inf), 0.), ((math.inf, 1.), math.inf),
    ((math.nan, 1.), math.inf), ((math.nan, math.nan), math.inf)])
def test_difference(pair, expected):
    assert models.difference(pair) == expected


def test_steps_that_both_runs_have():
    one = {step: dict(loss=1., other=9.) for step in (1, 2, 3)}
    other = {step: dict(loss=1. + step, other=0.) for step in (2, 3, 4)}
    assert models.differences(('loss', ), one, other) == {2: 2 / 3, 3: 3 / 4}
    with pytest.raises(Failed, match='no step in common'):
        models.differences(('loss', ), one, {9: dict(loss=1.)})


def test_an_incomplete_line_of_a_log_is_skipped(tmp_path):
    path = tmp_path / '2026' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = [json.dumps(dict(step=1, loss=2.)), json.dumps(dict(mAP=0.)),
             '{"step": 2, "lo']
    path.write_text('\n'.join([lines[0], '{"step": 1, "mAP": 0.1}',
                               lines[2]]))
    assert models.read_losses(tmp_path) == [{1: dict(step=1, loss=2.)}]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Make a command that runs Python code, in a step with limited time."""

    class Step:
        end = time.monotonic() + 100

        def left(self):
            return self.end - time.monotonic()

    def command(code, left=100.):
        step = Step()
        step.end = time.monotonic() + left
        popen = commands.subprocess.Popen
        with monkeypatch.context() as patch:
            patch.setattr(
                commands.subprocess, 'Popen', lambda args, **options: popen(
                    [sys.executable, '-c', f'input()\n{code}'], **options))
            return Command(step, 'mmdet', tmp_path / 'of_test.log')

    return command


def test_a_command_waits_until_it_is_started(command):
    one = command('print("done")')
    with commands.commands(one):
        time.sleep(.5)
        assert one.process.poll() is None
        one.start()
        assert one.finish() == 'done'


def test_a_failed_command_is_reported(command):
    with commands.commands(command('raise SystemExit("bad luck")')) as (one, ):
        one.start()
        with pytest.raises(Failed, match='of_test: exit status 1: bad luck'):
            one.finish()


def test_a_command_that_takes_too_long_is_ended(command):
    with commands.commands(command(
            'import time; time.sleep(999)', left=3.)) as (one, ):
        one.start()
        with pytest.raises(Late, match='of_test: no time'):
            one.finish()
    assert one.process.returncode < 0


def test_a_command_is_killed_at_the_given_point(command):
    with commands.commands(command(
            'import time; time.sleep(999)')) as (one, ):
        one.start()
        answers = iter([False, False, True])
        one.kill_at(lambda: next(answers))
        assert one.process.returncode == -9
