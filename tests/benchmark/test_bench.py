"""Which tool of torch or Triton measures, and turn-taking."""

import sys
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.benchmark import bench
from mmcyclemlp.benchmark.cases import Row
from mmcyclemlp.benchmark.contenders import TORCH

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
