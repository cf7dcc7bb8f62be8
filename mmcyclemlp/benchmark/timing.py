"""How long a call takes, and a limit to it."""

from __future__ import annotations

import contextlib
import math
import signal
import time

import torch

# Larger than any cache.
FLUSH_BYTES = 2**30
# Bytes a second that no GPU exceeds when it clears memory.
_CLEARS = 8e12
_MOST_CLEARS = 50


class TimeUp(BaseException):
    """The time for a contender is over; no library may swallow this."""


def elapsed(call, device, repeats=1, flush=None) -> float:
    """Seconds a call takes, the mean of ``repeats``.

    On a GPU this is what CUDA events say. With ``flush``, a tensor larger
    than the cache, the time to launch the call is not part of it, and
    nothing of the input is in the cache.
    """
    if device.type != 'cuda':
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    clears = 0 if flush is None else _clears_while_launching(call, flush)
    events = []
    for _ in range(repeats):
        # The GPU is busy with these until the call is launched.
        for _ in range(clears):
            flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in '12')
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return sum(a.elapsed_time(b) for a, b in events) / 1e3 / repeats


def _clears_while_launching(call, flush) -> int:
    """How often to clear ``flush`` while the CPU launches a call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    launching = time.perf_counter() - start
    # A second one, since this time may be shorter than the next.
    clears = 1 + math.ceil(launching * _CLEARS / flush.nbytes)
    return min(clears, _MOST_CLEARS)


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
