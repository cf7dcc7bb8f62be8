"""What a process does that keeps contenders of its own."""

import multiprocessing
import sys
import time
from multiprocessing import connection

import pytest
import torch

from mmcyclemlp.benchmark.timing import FLUSH_BYTES
from tests.gpu import worker

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
GPU = torch.device('cuda')


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of which nothing runs; notes what it is asked for."""

    class Model:
        log, free, seconds = [], 90, 1e-3

        def call(self):
            self.log.append('call')

        def elapsed(self, call, device, repeats=1, flush=None):
            call()
            self.log.append((repeats, flush))
            return self.seconds

        def new(self, size, dtype, device):
            assert (dtype, device) == (torch.int8, GPU)
            return size

    model = Model()
    monkeypatch.setattr(worker, 'elapsed', model.elapsed)
    monkeypatch.setattr(torch, 'empty', model.new)
    for name, value in dict(
            mem_get_info=lambda: (model.free, 100),
            empty_cache=lambda: model.log.append('empty')).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return model


def test_memory_is_given_back_where_it_is_scarce(gpu):
    sample = worker.Sampler(GPU, flushed=False)

    def log():
        gpu.log.clear()
        assert sample(gpu.call) == gpu.seconds
        return gpu.log

    # After the first it knows how long a call takes.
    twice = ['call', (1, None), 'call', (2, None)]
    assert log() == ['call', *twice]
    assert log() == twice
    gpu.free = 20
    assert log() == [*twice, 'empty']
    gpu.free = 90
    assert log() == ['call', *twice]
    assert log() == twice


def test_layers_are_flushed_and_slow_calls_are_samples(gpu):
    sample = worker.Sampler(GPU, flushed=True)
    sample(gpu.call)
    assert gpu.log[-1] == (2, FLUSH_BYTES)
    gpu.log.clear()
    gpu.seconds = 1.
    assert sample(gpu.call) == 1. and gpu.log == ['call', (1, None)]


def hold(place, pipe):
    with place.alone():
        pipe.send('held')
        pipe.recv()


def test_one_process_at_a_time_is_alone():
    context = multiprocessing.get_context('fork')
    with worker.place(torch.device('cpu'), int) as place:
        holders = []
        for _ in '12':
            pipe, theirs = context.Pipe()
            holders.append((pipe, context.Process(
                target=hold, args=(place, theirs), daemon=True)))
            holders[-1][1].start()
        ready = connection.wait(
            [pipe for pipe, _ in holders], 10)
        assert len(ready) == 1
        other, = (pipe for pipe, _ in holders if pipe not in ready)
        assert not other.poll(.3)
        # One that is killed lets the other go on.
        for pipe, process in holders:
            if pipe in ready:
                process.kill()
        assert other.poll(10)
        start = time.monotonic()
        other.recv()
        other.send('enough')
        with place.alone():
            assert time.monotonic() - start < 10
        for _, process in holders:
            process.join()
