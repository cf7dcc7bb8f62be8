"""How long a call takes, and a limit to it."""

from __future__ import annotations

import contextlib
import signal
import time

import torch


class TimeUp(BaseException):
    """The time for a contender is over; no library may swallow this."""


def elapsed(call, device, repeats=1, flush=None) -> float:
    """Seconds a call takes, the mean of ``repeats``."""
    if device.type != 'cuda':
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    events = []
    for _ in range(repeats):
        if flush is not None:
            # Nothing of the input stays in the cache, and the launches of
            # the call are over before the GPU comes to it.
            flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in '12')
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return sum(a.elapsed_time(b) for a, b in events) / 1e3 / repeats


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeUp where the code is after ``seconds``."""

    def stop(*_):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    # Once more every five seconds, for where exceptions are ignored.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
