"""The code of a process that sets up and times contenders.

It sets them up while other processes do the same. Then it waits, and takes a
sample on request, while all other processes wait.
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

from mmcyclemlp.benchmark.bench import LONG, seconds_of
from mmcyclemlp.benchmark.cases import Case, Row
from mmcyclemlp.benchmark.contenders import first_line
from mmcyclemlp.benchmark.set_up import seconds_once

from .dense import DenseSetUp

FREE = 0.25  # share of the GPU's memory that must stay free for timing


class Place(NamedTuple):
    """Where jobs run.

    Attributes:
        device: 'cuda' or 'cpu'.
        lock: A file. A process that needs to time alone locks it.
        start: A function that each process calls first.
    """

    device: str
    lock: str
    start: Callable[[], None]

    @contextlib.contextmanager
    def alone(self):
        """Let no other process time anything in this context."""
        with open(self.lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def serve(pipe: Connection, case: Case, rows: list[Row],
          layouts: dict, place: Place) -> None:
    """Set up contenders, report, and take a sample for each number sent."""
    place.start()
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(place.device)
    if any(row.contender.mode == 'max-autotune' for row in rows):
        # This mode compiles about twenty kernels for a product, in threads.
        os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '4'
    set_up = DenseSetUp(device, place.alone, peak_apart=False)
    set_up.layouts |= layouts
    expected, calls = [], {}
    for number, row in enumerate(rows):
        made = set_up.attempt(case, row, expected)
        if made is not None:
            calls[number] = made
    del expected
    free = 1.
    # After an illegal memory access, all of this raises.
    with contextlib.suppress(RuntimeError):
        if device.type == 'cuda':
            torch.cuda.empty_cache()
            free = free_memory()
    pipe.send(dict(rows=rows, ready=list(calls), layouts=set_up.layouts,
                   free=free))
    sample = Sampler(device)
    with contextlib.suppress(EOFError):
        while True:
            call = calls[pipe.recv()]
            try:
                pipe.send(sample(*call))
            except Exception as error:
                pipe.send([first_line(error), traceback.format_exc()[-2000:]])


def free_memory() -> float:
    """Return the share of the GPU's memory that is free."""
    left, total = torch.cuda.mem_get_info()
    return left / total


class Sampler:
    """Takes samples, and frees cached memory if other processes need it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gpu = device.type == 'cuda'
        self.cold = self.gpu  # nothing is allocated

    def __call__(self, call: Callable, about: float) -> float:
        """Return the seconds of a call that takes ``about`` as long."""
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
    """Yield a :class:`Place` whose lock exists in this context."""
    with tempfile.NamedTemporaryFile() as lock:
        yield Place(device.type, lock.name, start)
