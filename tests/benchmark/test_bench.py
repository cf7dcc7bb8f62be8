"""Contenders are checked, and then measured in turns."""

import sys
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.benchmark import bench
from mmcyclemlp.benchmark.calls import TEXTBOOK, TORCH, TRITON
from mmcyclemlp.benchmark.cases import Case, Row

CPU, GPU = torch.device('cpu'), torch.device('cuda')


@pytest.mark.parametrize('device, about, triton, used', [
    (CPU, 0., True, 'Timer'),
    (GPU, 1e-4, True, 'do_bench'),
    (GPU, 1e-4, False, 'Timer'),
    (GPU, 1., True, 'Timer'),
])
def test_who_measures(device, about, triton, used, monkeypatch):
    log = []

    def do_bench(call, warmup, rep, return_mode):
        assert return_mode == 'median' and rep == 2
        log.append('do_bench')
        return 3.  # milliseconds

    class Timer:
        def __init__(self, stmt, globals, num_threads):
            assert num_threads == torch.get_num_threads()
            exec(stmt, globals)

        def blocked_autorange(self, min_run_time):
            log.append('Timer')
            return SimpleNamespace(median=3e-3)

    monkeypatch.setattr(bench, 'Timer', Timer)
    monkeypatch.setitem(sys.modules, 'triton.testing', SimpleNamespace(
        do_bench=do_bench) if triton else None)
    called = []
    seconds = bench.seconds_of(lambda: called.append(None), device, about)
    assert seconds == 3e-3 and log == [used]
    assert bool(called) == (used == 'Timer')


def test_contenders_take_turns():
    log = []

    def sample(name, seconds):
        return lambda: log.append(name) or seconds

    one, other, late = Row(TORCH), Row(TORCH), Row(TORCH)
    bench.take_turns([(one, sample('one', 1.)), (other, sample('other', 2.)),
                      (late, lambda: None)], lambda: len(log) > 7)
    # The fewest rounds are 3; the fifth would begin after there is enough.
    assert log == ['one', 'other'] * 4
    assert (one.samples, other.samples) == ([1.] * 4, [2.] * 4)
    assert (late.status, late.median) == ('no time', None)


def new_case(make, contender, traffic=None, question='backbone'):
    return Case(question, 'b2', 0, 'fp32', [contender], make, traffic)


def test_peak_memory_of_a_training_step(monkeypatch):
    """It is what one step adds to what was there before."""
    memory, steps = SimpleNamespace(now=100, peak=0), []
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda: memory.now)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated',
                        lambda: memory.peak)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats',
                        lambda: setattr(memory, 'peak', memory.now))

    def call():
        steps.append(None)
        # The first step takes more.
        memory.peak = max(memory.peak,
                          memory.now + (70 if len(steps) == 1 else 30))
        return [torch.ones(1)]

    def make(contender, small=False, exact=False):
        return call if contender == TRITON and not small else (
            lambda: [torch.ones(1)])

    case = new_case(make, TRITON, question='train')
    row, = case.rows
    found, _ = bench.set_up(case, row, [], GPU)
    assert found is call and row.status == 'measured', row.trace
    assert row.peak_bytes == 30


@pytest.mark.parametrize('mode, times', [
    ('compiled', 2), ('reduce-overhead', 4)])
def test_a_graph_that_torch_compile_makes_is_recorded_first(mode, times):
    called = []

    def make(contender, small=False, exact=False):
        log = [] if small else called
        return lambda: log.append(None) or [torch.ones(1)]

    case = new_case(make, TORCH.runs(mode))
    expected = [[torch.ones(1)]] * 2
    assert bench.set_up(case, case.rows[0], expected, CPU) is not None
    assert len(called) == times


@pytest.mark.parametrize('traffic, error', [
    (None, .1),  # a network: the definition in its dtype
    ((1., 1.), .0476),  # a layer: the definition in double precision
])
def test_what_contenders_are_compared_with(traffic, error):
    values = {TORCH: 1.1, TEXTBOOK: 1.}

    def make(contender, small=False, exact=False):
        value = 1. if small else 1.05 if exact else values[contender]
        return lambda: [torch.full((1, ), value)]

    case = new_case(make, TORCH, traffic)
    row, = case.rows
    assert bench.set_up(case, row, [], CPU) is None
    assert row.status == 'wrong' and row.median is None
    assert row.error == pytest.approx(error, rel=1e-3)
    assert row.reason.startswith(f'off by {error:.1e}, ')
