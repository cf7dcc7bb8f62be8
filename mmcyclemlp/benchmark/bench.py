"""Check contenders, and measure them in turns."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import math
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, Callable

import torch
from torch import Tensor
from torch.utils.benchmark import Timer, timer

from ..errors import UserError, first_line
from .calls import TEXTBOOK, Call
from .cases import Case, Row

ROUNDS, FEWEST_ROUNDS = 15, 3
SAMPLE_SECONDS = 2e-3
# In longer calls (seconds) launches and the cache do not matter.
LONG = 5e-3
# Largest |difference| / |expected| of a tensor: in a layer, in a network.
TOLERANCES = {'fp32': (1e-5, 3e-5), 'bf16': (2e-2, 5e-2),
              'fp16': (3e-3, 2e-2)}
# For other code: torch sums the gradient of a bias in bf16 on a CPU.
LENIENCE = 5


@torch.no_grad()
def distance(results: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest relative difference of a tensor.

    The difference of a tensor that is much smaller than the largest one,
    such as a gradient that nearly vanishes, is relative to the largest.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(results, expected)]
    norms = [float(b.norm()) for _, b in pairs]
    found = [float((a - b).norm()) / max(norm, 0.01 * max(norms))
             for (a, b), norm in zip(pairs, norms)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


def seconds_once(call: Call) -> float:
    """Return the seconds of one call. On a GPU it waits for the end."""
    start = timer()
    call()
    return timer() - start


def seconds_of(call: Callable[[], Any], device: torch.device,
               about: float = 0.) -> float:
    """Measure the seconds of a call that takes ``about`` as long.

    A short call on a GPU is measured with ``triton.testing.do_bench``, which
    clears the cache before each call, and other calls with torch's Timer.
    """
    if device.type == 'cuda' and about < LONG:
        with contextlib.suppress(ImportError):
            return importlib.import_module('triton.testing').do_bench(
                call, warmup=1, rep=1e3 * SAMPLE_SECONDS,
                return_mode='median') / 1e3
    return Timer(
        'call()', globals=dict(call=call), num_threads=torch.get_num_threads()
    ).blocked_autorange(min_run_time=SAMPLE_SECONDS).median


def added_bytes(call: Call, device: torch.device) -> int | None:
    """Return the bytes that a call adds at its peak to what is in use.

    On a CPU only Linux tells. Elsewhere the function returns None.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    proc = Path('/proc/self')
    if not (proc / 'clear_refs').exists():
        return None

    def kilobytes(key):
        return int(re.search(rf'{key}:\s*(\d+) kB',
                             (proc / 'status').read_text())[1])

    # Free memory that the process keeps would serve the call unseen.
    ctypes.CDLL(None).malloc_trim(0)
    (proc / 'clear_refs').write_text('5')  # The peak becomes the present size.
    before = kilobytes('VmRSS')
    call()
    return 1024 * (kilobytes('VmHWM') - before)


def is_right(case: Case, row: Row, results: list[Tensor],
             expected: list[list[Tensor]]) -> bool:
    """Compare results with the definition, also on a small input in float64.

    That of a layer is in double precision, since in half precision a sum
    over a map is not exact enough.
    """
    if not expected:
        expected += [
            case.make(TEXTBOOK, exact=case.traffic is not None)(),
            case.make(TEXTBOOK, small=True, exact=True)()]
    row.error = distance(results, expected[0])
    if row.contender.kind in ('ours', 'textbook'):
        small = case.make(row.contender.runs('eager'), small=True)
        row.error = max(row.error, distance(small(), expected[1]))
    tolerance = TOLERANCES[case.dtype][case.traffic is None]
    if row.contender.kind != 'ours':
        tolerance *= LENIENCE
    if not row.error <= tolerance:
        row.status = 'wrong'
        row.reason = f'off by {row.error:.1e}, more than {tolerance:.0e}'
    return row.status != 'wrong'


def set_up(case: Case, row: Row, expected: list[list[Tensor]],
           device: torch.device) -> tuple[Call, float] | None:
    """Return a checked call and its seconds, or None.

    If None, the row has the reason. ``expected`` is what the results are
    compared with. The first contender fills it in.
    """
    try:
        call = case.make(row.contender)
        # torch.compile records a CUDA graph in the second call.
        for _ in range(2 * (row.contender.mode == 'reduce-overhead')):
            call()
        results = call()
        if row.contender.checked and not is_right(
                case, row, results, expected):
            return None
        del results
        if case.question == 'train':
            row.peak_bytes = added_bytes(call, device)
        return call, seconds_once(call)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        row.status = 'out of memory'
    except UserError as error:
        row.status, row.reason = 'left out', first_line(error)
    except Exception as error:
        row.status, row.reason = 'failed', first_line(error)
        row.trace = traceback.format_exc()[-2000:]
    gc.collect()
    return None


def take_turns(runs: list[tuple[Row, Callable[[], float | None]]],
               enough: Callable[[], bool], rounds: int | None = None) -> None:
    """Take a sample of each contender in turn, for several rounds.

    A change of the clock rate then affects all of them. A sample is the
    seconds of a call, or None. ``enough()`` tells whether to end after the
    fewest rounds. ``rounds`` are the most.
    """
    for done in range(rounds or ROUNDS):
        if done >= FEWEST_ROUNDS and enough():
            break
        for row, sample in runs:
            if row.status == 'measured':
                seconds = sample()
                if seconds is not None:
                    row.samples.append(seconds)
    for row, _ in runs:
        if not row.samples and row.status == 'measured':
            row.status = 'no time'


def measure(cases: list[Case], device: torch.device, seconds: float
            ) -> Iterator[Case]:
    """Yield cases in the order of their rank, and then fill in their rows.

    Nothing begins after ``seconds``.
    """
    end = perf_counter() + seconds

    def sampler(call, about):
        return lambda: (seconds_of(call, device, about)
                        if perf_counter() + about < end else None)

    queue = sorted(cases, key=lambda case: case.rank)
    # A network takes five times the share of a layer.
    weights = [1 if case.traffic else 5 for case in queue]
    for i, case in enumerate(queue):
        yield case
        now = perf_counter()
        stop = now + (end - now) * weights[i] / sum(weights[i:])
        runs, expected = [], []
        for row in case.rows:
            # Compiling may take minutes, which later cases need.
            if perf_counter() > (stop if row.contender.compiles else end):
                row.status = 'no time'
                continue
            made = set_up(case, row, expected, device)
            if made is not None:
                runs.append((row, sampler(*made)))
        expected.clear()
        take_turns(runs, lambda stop=stop: perf_counter() > stop)
        # Free what was compiled and captured for this case.
        del runs
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
