"""Contenders take turns: time limits, set-up, timing."""

from __future__ import annotations

import gc
import math
import time
from typing import Callable, NamedTuple

import torch

from .cases import Row
from .set_up import SetUp
from .timing import FLUSH_BYTES, TimeUp, elapsed, time_limit

ROUNDS, FEWEST_ROUNDS = 15, 3
SAMPLE_SECONDS = 2e-3
# No contender's set-up takes more of what is left, and compiling in all no
# more of the whole.
SET_UP_SHARE, COMPILING_SHARE = 0.2, 0.4
# How the time is shared out, a case.
WEIGHTS = {'op': 1, 'mixer': 1, 'backbone': 5, 'train': 5, 'scaling': 2}


class Run(NamedTuple):
    """A contender that is set up.

    Attributes:
        row: Where its samples go.
        sample: Gives the seconds of a call, the mean over some.
    """

    row: Row
    sample: Callable[[], float]


def repeats(seconds: float, device: torch.device, flushed: bool) -> int:
    """Calls in a sample. A single one may be too short to time."""
    most = 1000 if device.type != 'cuda' else 5 if flushed else 20
    return min(most, math.ceil(SAMPLE_SECONDS / seconds))


def take_turns(runs: list[Run], enough: Callable[[], bool],
               rounds: int | None = None) -> None:
    """Take samples of each contender in turn.

    So a change of clock meets all of them. ``enough`` may end it once each
    has had the fewest rounds.
    """
    for done in range(rounds or ROUNDS):
        if done >= FEWEST_ROUNDS and enough():
            break
        for run in runs:
            if run.row.status == 'measured':
                seconds = run.sample()
                if seconds is not None:
                    run.row.samples.append(seconds)
    for run in runs:
        if not run.row.samples and run.row.status == 'measured':
            run.row.status = 'no time'
            run.row.reason = 'set up, but not timed'


class Bench:
    """One run in this process: its time, and what it has learned so far."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        self.gpu = device.type == 'cuda'
        self.end = time.perf_counter() + seconds
        self.compiling = 0.
        self.cuts = {}  # (question, contender) -> seconds given, work
        self.set_up = SetUp(device)

    def left(self) -> float:
        return self.end - time.perf_counter()

    def shares(self, cases):
        """Cases by rank, each with its seconds; cleans up after each.

        Those that no time is left for are passed over.
        """
        queue = sorted(cases, key=lambda case: case.rank)
        for i, case in enumerate(queue):
            if self.left() < 0.02 * self.seconds:
                for row in case.rows:
                    row.status = 'no time'
                continue
            yield case, self.left() * WEIGHTS[case.question] / sum(
                WEIGHTS[later.question] for later in queue[i:])
            # What was compiled, captured and kept for reuse is of this case.
            torch.compiler.reset()
            gc.collect()
            if self.gpu:
                torch.cuda.empty_cache()

    def measure(self, case, share: float) -> None:
        """Set up, check and time the contenders, in ``share`` seconds.

        More, where the fewest rounds take more.
        """
        end = self.left() - share
        expected, runs, flush = [], [], None
        made = [(row, self.attempt(case, row, expected)) for row in case.rows]
        del expected
        if self.gpu and case.traffic:
            flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device='cuda')
        for row, found in made:
            if found is not None:
                runs.append(Run(row, self.sampler(*found, flush)))
        take_turns(runs, lambda: self.left() < end)

    def sampler(self, call, seconds, flush):
        number = repeats(seconds, self.device, flush is not None)

        def sample():
            if number * seconds < self.left():
                return elapsed(call, self.device, number, flush)
            return None

        return sample

    def attempt(self, case, row, expected):
        """A checked contender's call and its seconds, or None."""
        key = case.question, row.contender
        compiles = row.contender.compiles
        limit = self.left() * SET_UP_SHARE
        if compiles:
            limit = min(limit, COMPILING_SHARE * self.seconds
                        - self.compiling)
        start = time.perf_counter()
        given, enough = self.cuts.get(key, (0., math.inf))
        try:
            if limit <= 0 or (case.work >= enough and limit <= given):
                raise TimeUp
            with time_limit(limit):
                return self.set_up.attempt(case, row, expected)
        except TimeUp:
            self.cuts.setdefault(key, (limit, case.work))
            row.status, row.reason = 'no time', 'its set-up takes too long'
        finally:
            self.compiling += compiles * (time.perf_counter() - start)
        return None
