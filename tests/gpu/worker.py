"""What a process does that keeps contenders of its own.

It sets them up beside other processes. Then it waits, and takes a sample when
it is told to, while all others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import traceback
from multiprocessing.connection import Connection
from typing import Callable, NamedTuple

import torch

from mmcyclemlp.benchmark.bench import repeats
from mmcyclemlp.benchmark.cases import Case, Row
from mmcyclemlp.benchmark.contenders import first_line
from mmcyclemlp.benchmark.set_up import SetUp
from mmcyclemlp.benchmark.timing import FLUSH_BYTES, elapsed

FREE = 0.25  # of the GPU's memory is left to the contenders that run
SLOW = 0.2  # seconds of a call that is a sample by itself


class Place(NamedTuple):
    """Where jobs run.

    Attributes:
        device: 'cuda' or 'cpu'.
        lock: A file, which whoever times something for itself locks.
        start: Called first in each process.
    """

    device: str
    lock: str
    start: Callable[[], None]

    @contextlib.contextmanager
    def alone(self):
        """No other process times anything meanwhile."""
        with open(self.lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def serve(pipe: Connection, case: Case, rows: list[Row],
          layouts: dict, place: Place) -> None:
    """Set contenders up, say so, and take a sample for each number sent."""
    place.start()
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(place.device)
    if any(row.contender.mode == 'max-autotune' for row in rows):
        # It compiles some twenty kernels for a product, in threads.
        os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '4'
    set_up = SetUp(device, place.alone, peak_apart=False)
    set_up.layouts |= layouts
    expected, calls = [], {}
    for number, row in enumerate(rows):
        made = set_up.attempt(case, row, expected)
        if made is not None:
            calls[number] = made[0]
    del expected
    free = 1.
    # After an illegal access to memory nothing works.
    with contextlib.suppress(RuntimeError):
        if device.type == 'cuda':
            torch.cuda.empty_cache()
            free = free_memory()
    pipe.send(dict(rows=rows, ready=list(calls), layouts=set_up.layouts,
                   free=free))
    sample = Sampler(device, case.traffic is not None)
    with contextlib.suppress(EOFError):
        while True:
            call = calls[pipe.recv()]
            try:
                pipe.send(sample(call))
            except Exception as error:
                pipe.send([first_line(error), traceback.format_exc()[-2000:]])


def free_memory() -> float:
    """What part of the memory of the GPU is free."""
    left, total = torch.cuda.mem_get_info()
    return left / total


class Sampler:
    """Takes samples in turn with other processes, and shares the memory."""

    def __init__(self, device: torch.device, flushed: bool) -> None:
        self.device, self.flushed = device, flushed
        self.gpu = device.type == 'cuda'
        self.cold = self.gpu  # nothing is allocated

    def __call__(self, call: Callable) -> float:
        """Seconds of a call, the mean over some."""
        flush = None
        if self.cold:
            call()
            self.cold = False
        seconds = elapsed(call, self.device)
        if seconds < SLOW:
            if self.gpu and self.flushed:
                flush = torch.empty(
                    FLUSH_BYTES, dtype=torch.int8, device=self.device)
            number = repeats(seconds, self.device, self.flushed)
            seconds = elapsed(call, self.device, number, flush)
        del flush
        if self.gpu and free_memory() < FREE:
            torch.cuda.empty_cache()
            self.cold = True
        return seconds


@contextlib.contextmanager
def place(device: torch.device, start: Callable[[], None]):
    """A :class:`Place` for the time of the context."""
    with tempfile.NamedTemporaryFile() as lock:
        yield Place(device.type, lock.name, start)
