"""Processes of contenders run in turns, and may fail or run out of time."""

import multiprocessing
import os
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.benchmark.calls import Contender
from mmcyclemlp.benchmark.cases import Case
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP
from tests.gpu import pool
from tests.gpu.worker import FREE, place
from tests.gpu.worker_imports import WITHOUT_COMPILER

pytestmark = pytest.mark.skipif(
    sys.platform != 'linux' or not HAS_CUSTOM_OP,
    reason='the measurement needs Linux and torch 2.6')


def note(path, *words):
    with open(path, 'a') as file:
        print(*words, f'{time.monotonic():.4f}', file=file)


def make(path, contender, **_):
    """Make a contender that behaves as its name says."""
    calls = []
    if contender.name == 'crashes':
        os._exit(3)
    if contender.name == 'refuses':
        raise ValueError('no such luck\nand more')
    end = time.monotonic() + 60 * (contender.name == 'hangs')
    while time.monotonic() < end:
        note(path, 'hangs')
        time.sleep(.02)

    def call():
        calls.append(None)
        if len(calls) > 4:
            if contender.name == 'crashes when timed':
                os._exit(4)
            if contender.name == 'fails when timed':
                raise ValueError('out of luck\nand more')
        start = time.monotonic()
        time.sleep(.003)
        note(path, contender.name, f'{start:.4f}')
        return [torch.ones(1)]

    return call


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Measure contenders with these names; return their rows and notes."""
    monkeypatch.setenv(WITHOUT_COMPILER, '1')
    path = tmp_path / 'notes'

    def measure(*names, seconds=60, workers=1, apart=True):
        case = Case('op', 'a case', 0, 'fp32',
                    [Contender(name, 'linear') for name in names],
                    partial(make, path))
        jobs = [pool.Job(case, [row]) for row in case.rows]
        if not apart:
            jobs = [pool.Job(case, case.rows)]
        end = time.monotonic() + seconds
        told = []
        with place(torch.device('cpu'), int) as here:
            pool.Pool(here, lambda: end - time.monotonic(), workers,
                      rounds=5).measure(jobs, lambda: told.append(None))
        assert told and not multiprocessing.active_children()
        notes = [line.split() for line in path.read_text().split('\n')
                 if line] if path.exists() else []
        return {row.contender.name: row for row in case.rows}, notes

    return measure


@pytest.mark.parametrize('apart', [True, False])
def test_contenders_take_turns(measure, apart):
    rows, notes = measure('one', 'other', apart=apart)
    for row in rows.values():
        assert row.status == 'measured' and len(row.samples) == 5
        assert all(2e-3 < sample < .5 for sample in row.samples)
    names = [name for name, *_ in notes]
    # The set-up calls each contender twice.
    assert names[:4] == ['one'] * 2 + ['other'] * 2
    turns = [name for name, before in zip(names[4:], names[3:])
             if name != before]
    assert turns == ['one', 'other'] * 5


@pytest.mark.parametrize('name, reason', [
    ('crashes', 'its process ended with status 3'),
    ('crashes when timed', 'its process ended with status 4'),
    ('refuses', 'no such luck'),
    ('fails when timed', 'out of luck'),
])
def test_a_failure_affects_one_contender(measure, name, reason):
    rows, _ = measure(name, 'other')
    row = rows[name]
    assert (row.status, row.reason, row.samples) == ('failed', reason, [])
    assert bool(row.trace) == ('luck' in reason)
    assert rows['other'].status == 'measured'
    assert len(rows['other'].samples) == 5


def test_set_up_pauses_while_others_are_timed(measure):
    """A contender that hangs does not stop the others."""
    rows, notes = measure('hangs', 'other', 'late', seconds=8, workers=2)
    assert rows['hangs'].status == 'no time'
    assert len(rows['other'].samples) == len(rows['late'].samples) == 5
    beats = [float(words[-1]) for words in notes if words[0] == 'hangs']
    # The set-up calls a contender twice.
    _, _, first, *_, last = [
        words for words in notes if words[0] == 'other']
    assert beats[0] < float(first[1]) - .1
    assert not any(
        float(first[1]) - .1 < beat < float(last[2]) for beat in beats)
    # Its set-up continued after the others were timed.
    assert beats[-1] > float(last[2])


def test_contenders_without_time_are_marked(measure):
    rows, _ = measure('one', 'other', seconds=.5)
    assert {row.status for row in rows.values()} == {'no time'}


class Started:
    """A replacement for Remote that starts no process."""

    def __init__(self, context, job, place):
        self.job = job


def make_pool(monkeypatch, left=100.):
    monkeypatch.setattr(pool, 'Remote', Started)
    monkeypatch.setattr(pool, 'start_processes', lambda: None)
    return pool.Pool(None, lambda: left, 3, expected=dict(train=40.))


def jobs(*modes, question='op'):
    case = SimpleNamespace(question=question)
    return [pool.Job(case, [SimpleNamespace(
        contender=Contender('a', mode=mode))]) for mode in modes]


def test_cores_and_memory_limit_the_processes(monkeypatch):
    here = make_pool(monkeypatch)
    waiting = jobs(*['eager'] * 5)
    here.fill(waiting, 64)
    assert len(here.busy) == 3 and len(waiting) == 2
    here.busy.clear()
    here.free = .9 * FREE
    here.fill(waiting, 64)
    assert not here.busy
    here.free = 1.
    here.fill(waiting, 1)
    assert len(here.busy) == 1 and len(waiting) == 1


def test_compiling_is_not_started_too_late(monkeypatch):
    here = make_pool(monkeypatch, left=50.)
    waiting = jobs('compiled', 'eager', 'max-autotune')
    here.seconds['op'] = [30., 40., 50.]
    here.fill(waiting, 64)
    assert [remote.job.compiles for remote in here.busy] == [False]
    here.seconds['op'] = [30.]
    here.fill(waiting, 64)
    assert len(here.busy) == 3 and not waiting
    # The expected time counts until a time is measured.
    here.busy.clear()
    waiting = jobs('compiled', question='train')
    here.fill(waiting, 64)
    assert not here.busy
    here.expected['train'] = 30.
    here.fill(waiting, 64)
    assert len(here.busy) == 1


def say_what_is_loaded(pipe):
    pipe.send({name: name in sys.modules for name in (
        'torch', 'tests.gpu.worker', 'torch._dynamo')})


def fork_badly():
    sys.exit(1)


def test_processes_start_with_what_they_need(monkeypatch):
    monkeypatch.setenv(WITHOUT_COMPILER, '1')
    context = pool.start_processes()
    assert context.get_start_method() == 'forkserver'
    pipe, theirs = context.Pipe()
    process = context.Process(target=say_what_is_loaded, args=(theirs, ))
    process.start()
    assert all(pipe.recv().values())
    process.join()
    monkeypatch.setattr(pool, '_find_out_whether_cuda_works', fork_badly)
    assert pool.start_processes().get_start_method() == 'spawn'


def test_inductor_is_loaded_without_asking_cuda(run_python):
    """Otherwise no forked process could use a GPU."""
    done = run_python('-c', '''
import os
import torch
from tests.gpu import worker_imports
import sys
assert 'torch._inductor.select_algorithm' in sys.modules
if os.fork() == 0:
    os._exit(int(torch.cuda._is_in_bad_fork()))
_, status = os.wait()
print('status', status)
''')
    assert 'status 0' in done.stdout
