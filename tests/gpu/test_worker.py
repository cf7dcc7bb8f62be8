"""A process frees memory, takes samples, and times alone."""

import multiprocessing
import sys
import time
from multiprocessing import connection

import pytest
import torch

from tests.gpu import worker

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
GPU = torch.device('cuda')


@pytest.fixture
def gpu(monkeypatch):
    """Replace a GPU by an object that records the calls."""

    class Model:
        log, free, seconds = [], 90, 1e-3

        def call(self):
            self.log.append('call')

        def seconds_of(self, call, device, about):
            call()
            self.log.append('several')
            return self.seconds

        def seconds_once(self, call):
            call()
            self.log.append('once')
            return self.seconds

    model = Model()
    for name in ('seconds_of', 'seconds_once'):
        monkeypatch.setattr(worker, name, getattr(model, name))
    for name, value in dict(
            mem_get_info=lambda: (model.free, 100),
            empty_cache=lambda: model.log.append('empty')).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return model


def test_memory_is_freed_when_little_is_left(gpu):
    sample = worker.Sampler(GPU)

    def log():
        gpu.log.clear()
        assert sample(gpu.call, 1e-3) == gpu.seconds
        return gpu.log

    assert log() == ['call', 'call', 'several']
    assert log() == ['call', 'several']
    gpu.free = 20
    assert log() == ['call', 'several', 'empty']
    gpu.free = 90
    assert log() == ['call', 'call', 'several']
    assert log() == ['call', 'several']


def test_a_long_call_is_timed_once(gpu):
    sample = worker.Sampler(GPU)
    sample(gpu.call, 1.)
    gpu.log.clear()
    assert sample(gpu.call, 1.) == gpu.seconds
    assert gpu.log == ['call', 'once']


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
        # When one is killed, the other continues.
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
