"""Contenders are checked before they are timed."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.benchmark import set_up
from mmcyclemlp.benchmark.cases import Case
from mmcyclemlp.benchmark.contenders import TEXTBOOK, TORCH, TRITON, peer

CPU, GPU = torch.device('cpu'), torch.device('cuda')


def new_case(make, contender, traffic=None, question='backbone'):
    return Case(question, 'b2', 0, 'fp32', [contender], make, '', traffic)


@pytest.mark.parametrize('faster', ['contiguous', 'channels_last'])
def test_layout_of_a_peer(faster, monkeypatch):
    made, alone = [], []

    def make(contender, layout):
        made.append((contender.mode, layout))
        return lambda: layout

    @contextlib.contextmanager
    def context():
        alone.append(None)
        yield

    monkeypatch.setattr(set_up, 'seconds_once',
                        lambda call: 1. if call() == faster else 2.)
    found = set_up.SetUp(CPU, context)
    for mode in ('eager', 'compiled'):
        case = new_case(make, peer('ConvNeXt-T').runs(mode))
        assert found.make(case, case.rows[0])() == faster
        assert case.rows[0].layout == faster
    # Both are tried once, and not compiled.
    assert made == [('eager', 'contiguous'), ('eager', 'channels_last'),
                    ('eager', faster), ('compiled', faster)]
    assert len(alone) == 2


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
    found, _ = set_up.SetUp(GPU).attempt(case, row, [])
    assert found is call and row.status == 'measured', row.trace
    assert row.peak_bytes == 30


@pytest.mark.parametrize('mode, times', [
    ('compiled', 2), ('reduce-overhead', 4)])
def test_a_graph_that_torch_compile_makes_is_recorded_first(mode, times):
    called = []

    def make(contender, small=False, exact=False):
        return lambda: called.append(None) or [torch.ones(1)]

    case = new_case(make, TORCH.runs(mode))
    found = set_up.SetUp(CPU)
    found.proofs['backbone', '', 'ours', 'torch'] = 0.
    assert found.attempt(case, case.rows[0], [torch.ones(1)]) is not None
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
    assert set_up.SetUp(CPU).attempt(case, row, []) is None
    assert row.status == 'wrong' and row.median is None
    assert row.error == pytest.approx(error, rel=1e-3)
    assert row.reason.startswith(f'off by {error:.1e}, ')
