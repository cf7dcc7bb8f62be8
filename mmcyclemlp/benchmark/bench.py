"""Measure contenders in turns, and share the time out among the cases."""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from collections.abc import Iterator
from typing import Any, Callable

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from .cases import Case, Row
from .set_up import SetUp

ROUNDS, FEWEST_ROUNDS = 15, 3
SAMPLE_SECONDS = 2e-3
# In longer calls (seconds) launches and the cache do not matter.
LONG = 5e-3
# Share of the whole time after which nothing more is compiled.
COMPILING_SHARE = 0.4
# Relative time of a case, by question.
WEIGHTS = {'op': 1, 'mixer': 1, 'backbone': 5, 'train': 5}


def seconds_of(call: Callable[[], Any], device: torch.device,
               about: float = 0.) -> float:
    """Measure the seconds of a call.

    A short call on a GPU is measured with ``triton.testing.do_bench``, which
    clears the cache before each call, and other calls with torch's Timer.

    Args:
        call: It is called several times.
        device: Where it runs.
        about: A first estimate of the seconds.
    """
    if device.type == 'cuda' and about < LONG:
        with contextlib.suppress(ImportError):
            return importlib.import_module('triton.testing').do_bench(
                call, warmup=1, rep=1e3 * SAMPLE_SECONDS,
                return_mode='median') / 1e3
    return Timer(
        'call()', globals=dict(call=call), num_threads=torch.get_num_threads()
    ).blocked_autorange(min_run_time=SAMPLE_SECONDS).median


def take_turns(runs: list[tuple[Row, Callable[[], float | None]]],
               enough: Callable[[], bool], rounds: int | None = None) -> None:
    """Take a sample of each contender in turn, for several rounds.

    A change of the clock rate then affects all of them.

    Args:
        runs: Rows, and functions that return the seconds of a sample, or
            None if there is none.
        enough: Whether to end after the fewest rounds.
        rounds: The most rounds. None for the default.
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
    """Measure cases in the order of their rank, and yield each before.

    Args:
        cases: Their rows are filled in.
        device: Where the contenders run.
        seconds: Time for all cases. Nothing is begun after it.
    """
    end = time.perf_counter() + seconds
    set_up, compiling = SetUp(device), 0.

    def sampler(call, about):
        return lambda: (seconds_of(call, device, about)
                        if time.perf_counter() + about < end else None)

    queue = sorted(cases, key=lambda case: case.rank)
    for i, case in enumerate(queue):
        yield case
        start = time.perf_counter()
        stop = start + (end - start) * WEIGHTS[case.question] / sum(
            WEIGHTS[later.question] for later in queue[i:])
        expected: list[Tensor] = []
        runs = []
        for row in case.rows:
            start, compiles = time.perf_counter(), row.contender.compiles
            if start > end or (
                    compiles and compiling > COMPILING_SHARE * seconds):
                row.status = 'no time'
                continue
            made = set_up.attempt(case, row, expected)
            compiling += compiles * (time.perf_counter() - start)
            if made is not None:
                runs.append((row, sampler(*made)))
        expected.clear()
        take_turns(runs, lambda stop=stop: time.perf_counter() > stop)
        # Free what was compiled and captured for this case.
        del runs
        torch.compiler.reset()
        gc.collect()
        if device.type == 'cuda':
            torch.cuda.empty_cache()
