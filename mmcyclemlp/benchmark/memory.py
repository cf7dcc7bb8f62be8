"""Measure the memory of a training step on the CPU."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from .cases import Case
from .contenders import Contender

STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def peak_on_cpu(contender: Contender, case: Case) -> int | None:
    """Return the bytes that a step adds, or None on other than Linux.

    A new process measures them, since in this one the step could reuse
    memory that is free already.
    """
    if not CLEAR.exists():
        return None
    with ProcessPoolExecutor(1, get_context('spawn')) as process:
        return process.submit(added_by_call, case.make, contender,
                              torch.get_num_threads()).result()


def added_by_call(make, contender: Contender, threads: int) -> int:
    """Return the bytes by which a call raises the memory of this process."""

    def status(key):
        return int(re.search(rf'{key}:\s*(\d+) kB',
                             STATUS.read_text())[1]) * 1024

    torch.set_num_threads(threads)
    call = make(contender)
    # The peak so far is that of building the network.
    CLEAR.write_text('5')
    before = status('VmRSS')
    call()
    return status('VmHWM') - before
