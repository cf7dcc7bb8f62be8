"""What only runs on a GPU, on a model of one."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from mmcyclemlp.benchmark import calls, set_up, timing
from mmcyclemlp.benchmark.cases import Case
from mmcyclemlp.benchmark.contenders import OFFICIAL, TEXTBOOK, TORCH, TRITON

GPU = torch.device('cuda')
LAUNCH, KERNEL, CLEAR = 1e-4, 2e-5, 3e-4  # seconds


class Model:
    """A GPU with a queue, and the clock of the CPU that fills it."""

    def __init__(self):
        self.now = self.free_at = 0.
        self.log = []

    def run(self, seconds, launch=LAUNCH):
        self.now += launch
        self.free_at = max(self.free_at, self.now) + seconds

    def call(self):
        """Ten kernels, which take longer to launch than to run."""
        self.log.append('call')
        for _ in range(10):
            self.run(KERNEL)

    def synchronize(self):
        self.log.append('synchronize')
        self.now = max(self.now, self.free_at)


@pytest.fixture
def gpu(monkeypatch):
    model = Model()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = max(model.now, model.free_at)

        def elapsed_time(self, end):
            # CUDA tells it of events that are over.
            assert model.now >= end.time
            return 1e3 * (end.time - self.time)

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'synchronize', model.synchronize)
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: model.now)
    return model


def test_launches_count_where_nothing_hides_them(gpu):
    assert timing.elapsed(gpu.call, GPU, 3) == pytest.approx(
        10 * LAUNCH + KERNEL, rel=.05)
    assert gpu.log == ['call'] * 3 + ['synchronize']


@pytest.mark.parametrize('kernels', [1, 10, 100])
def test_kernels_alone_count_behind_a_flush(gpu, kernels):
    flush = SimpleNamespace(
        nbytes=timing.FLUSH_BYTES,
        zero_=lambda: gpu.run(CLEAR, launch=5e-6) or gpu.log.append('clear'))

    def call():
        gpu.log.append('call')
        for _ in range(kernels):
            gpu.run(KERNEL)

    assert timing.elapsed(call, GPU, 4, flush) == pytest.approx(
        kernels * KERNEL)
    # One call more, to see how long it is to launch.
    assert gpu.log.count('call') == 5
    assert gpu.log[:3] == ['synchronize', 'call', 'clear']


def test_a_call_that_waits_for_the_gpu_is_not_cleared_for_ever(gpu):
    flush = SimpleNamespace(nbytes=2**30,
                            zero_=lambda: gpu.log.append('clear'))

    def call():
        gpu.run(1.)
        gpu.synchronize()

    timing.elapsed(call, GPU, 1, flush)
    assert gpu.log.count('clear') == timing._MOST_CLEARS


def test_cuda_graph(gpu, monkeypatch):
    log = []

    class Stream:
        def wait_stream(self, other):
            log.append((self.name, 'waits for', other.name))

        def __init__(self, name='side'):
            self.name = name

    class Graph:
        def replay(self):
            log.append('replay')

    @contextlib.contextmanager
    def capture(graph):
        log.append('begin')
        yield
        log.append('end')

    main = Stream('main')
    for name, value in dict(
            Stream=Stream, CUDAGraph=Graph, graph=capture,
            current_stream=lambda: main,
            stream=lambda stream: contextlib.nullcontext()).items():
        monkeypatch.setattr(torch.cuda, name, value)
    results = [torch.ones(1)]

    def call():
        log.append('call')
        return results

    replay = calls.captured(call)
    assert log == [('side', 'waits for', 'main'), *['call'] * 3,
                   ('main', 'waits for', 'side'), 'begin', 'call', 'end']
    log.clear()
    assert replay() is results and replay() is results
    assert log == ['replay'] * 2


def test_peak_memory_of_a_training_step(gpu, monkeypatch):
    """It is what one step adds to what was there before."""
    memory = SimpleNamespace(now=100, peak=0)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda: memory.now)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated',
                        lambda: memory.peak)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats',
                        lambda: setattr(memory, 'peak', memory.now))
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing',
                        lambda: False)

    def call():
        # The first step takes more.
        gpu.call()
        memory.peak = max(
            memory.peak, memory.now + (70 if gpu.log.count('call') == 1
                                       else 30))
        return [torch.ones(1)]

    def make(contender, small=False, exact=False):
        return (lambda: [torch.ones(1)]) if small or exact else call

    case = Case('train', 'b2', 0, 'bf16', [TRITON], make, '', 1.)
    row, = case.rows
    found, seconds = set_up.SetUp(GPU).attempt(case, row, [])
    assert row.status == 'measured', row.trace
    assert row.peak_bytes == 30
    assert seconds == pytest.approx(10 * LAUNCH, rel=.05)


def test_a_graph_that_torch_compile_makes_is_recorded_first(gpu):
    made = []

    def make(contender, small=False, exact=False):
        made.append(contender)
        return lambda: gpu.call() or [torch.ones(1)]

    for mode, times in (('compiled', 2), ('reduce-overhead', 4)):
        gpu.log.clear()
        case = Case('backbone', 'b2', 0, 'bf16', [TRITON.runs(mode)], make,
                    '', 1.)
        found = set_up.SetUp(GPU)
        found.proofs['backbone', '', 'ours', 'triton'] = 0.
        expected = [torch.ones(1)]
        assert found.attempt(case, case.rows[0], expected) is not None
        assert gpu.log.count('call') == times
        assert made[-1].mode == mode


@pytest.mark.parametrize('several, traffic, error', [
    # A network: the official route if it comes first, else the definition.
    ([OFFICIAL, TORCH], None, .0989),
    ([TORCH], None, .1),
    # A layer: the definition in double precision.
    ([OFFICIAL, TORCH], (1., 1.), .0476),
    ([TEXTBOOK], (1., 1.), .0476),
])
def test_what_contenders_are_compared_with(several, traffic, error):
    values = {OFFICIAL: 1.001, TORCH: 1.1, TEXTBOOK: 1.}

    def make(contender, small=False, exact=False):
        value = 1. if small else 1.05 if exact else values[contender]
        return lambda: [torch.full((1, ), value)]

    case = Case('op', '', 0, 'fp32', several, make, '', 1., traffic)
    expected, found = [], set_up.SetUp(torch.device('cpu'))
    for row in case.rows:
        found.attempt(case, row, expected)
    assert row.status == 'wrong' and row.median is None
    assert row.error == pytest.approx(error, rel=1e-3)
    assert row.reason.startswith(f'off by {error:.1e}, ')
