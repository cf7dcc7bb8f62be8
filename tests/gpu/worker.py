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

from mmcyclemlp.benchmark.bench import (
    LONG,
    seconds_of,
    seconds_once,
    set_up,
)
from mmcyclemlp.benchmark.cases import Case, Row
from mmcyclemlp.errors import first_line

from .dense import choose_algorithms

FREE = 0.25  # of the GPU's memory is left to the contenders that run


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


def serve(pipe: Connection, case: Case, rows: list[Row], place: Place
          ) -> None:
    """Set contenders up, say so, and take a sample for each number sent."""
    place.start()
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(place.device)
    if any(row.contender.mode == 'max-autotune' for row in rows):
        # It compiles some twenty kernels for a product, in threads.
        os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '4'
    expected, calls = [], {}
    for number, row in enumerate(rows):
        if row.contender.kind == 'dense':
            choose_algorithms(case, row.contender, device, place)
        made = set_up(case, row, expected, device)
        if made is not None:
            calls[number] = made
    del expected
    free = 1.
    # After an illegal access to memory nothing works.
    with contextlib.suppress(RuntimeError):
        if device.type == 'cuda':
            torch.cuda.empty_cache()
            free = free_memory()
    pipe.send(dict(rows=rows, ready=list(calls), free=free))
    sample = Sampler(device)
    with contextlib.suppress(EOFError):
        while True:
            call = calls[pipe.recv()]
            try:
                pipe.send(sample(*call))
            except Exception as error:
                pipe.send([first_line(error), traceback.format_exc()[-2000:]])


def free_memory() -> float:
    """What part of the memory of the GPU is free."""
    left, total = torch.cuda.mem_get_info()
    return left / total


class Sampler:
    """Takes samples in turn with other processes, and shares the memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gpu = device.type == 'cuda'
        self.cold = self.gpu  # nothing is allocated

    def __call__(self, call: Callable, about: float) -> float:
        """Seconds of a call that takes ``about`` as long."""
        if self.cold:
            call()
            self.cold = False
        seconds = (seconds_of(call, self.device, about) if about < LONG
                   else seconds_once(call))
        if self.gpu and free_memory() < FREE:
            torch.cuda.empty_cache()
            self.cold = True
        return seconds


@contextlib.contextmanager
def place(device: torch.device, start: Callable[[], None]):
    """A :class:`Place` for the time of the context."""
    with tempfile.NamedTemporaryFile() as lock:
        yield Place(device.type, lock.name, start)
