"""Contenders in processes of their own: set up side by side, timed alone.

Most time goes into compiling, which takes one core for each contender. So
many processes set contenders up at once, and keep what they have built. To
compile once in advance, for one process that measures all, would take longer:
even where Inductor finds its results on disk, torch.compile traces again. A
process that crashes takes no other contender along.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import time
from functools import partial
from multiprocessing import connection, get_context
from typing import Callable, NamedTuple

import torch

from mmcyclemlp.benchmark.bench import take_turns
from mmcyclemlp.benchmark.cases import Case, Row

from .worker import FREE, Place, serve

# Of the time that is left, setting up takes so much, and then timing so much
# of the rest, before more contenders are set up.
PREPARING, TIMING = 0.5, 0.5
MOST = 64  # processes at a time
HANGING = 30.  # seconds without an answer
SPARE = 1.  # seconds to write down what was found
ENVIRONMENT = {
    # The processes keep the cores busy. A pool of each one would compete.
    'TORCHINDUCTOR_COMPILE_THREADS': '1',
    # A process that has asked CUDA itself cannot fork ones that use it.
    'PYTORCH_NVML_BASED_CUDA_CHECK': '1',
}


class Job(NamedTuple):
    """Contenders of one case that one process sets up."""

    case: Case
    rows: list[Row]

    @property
    def compiles(self) -> bool:
        return any(row.contender.compiles for row in self.rows)


class Remote:
    """A process with the contenders of a job."""

    def __init__(self, context, job: Job, place: Place) -> None:
        self.job, self.ready = job, []
        self.started = time.perf_counter()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(
            theirs, job.case, job.rows, place))
        self.process.start()
        theirs.close()

    def learn(self) -> dict:
        """Take over what it found out while it set up."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.lose(self.job.rows)
            return dict(free=1.)
        self.ready = answer['ready']
        for row, theirs in zip(self.job.rows, answer['rows']):
            vars(row).update(vars(theirs))
        return answer

    def sample(self, number: int) -> float | None:
        """Seconds of a call of a contender, or None if it failed."""
        row = self.job.rows[number]
        try:
            self.pipe.send(number)
            if not self.pipe.poll(HANGING):
                self.end()
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.lose([row])
            return None
        if isinstance(answer, float):
            return answer
        row.status, (row.reason, row.trace) = 'failed', answer
        row.samples.clear()
        return None

    def lose(self, rows: list[Row]) -> None:
        self.process.join(1)
        for row in rows:
            row.status = 'failed'
            row.reason = (
                f'its process ended with status {self.process.exitcode}')
            row.samples.clear()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def end_all(remotes: list[Remote]) -> None:
    """End processes at the same time, as the driver is slow to clean up."""
    for remote in remotes:
        remote.process.kill()
    for remote in remotes:
        remote.end()


class Pool:
    """Measures jobs in processes, for as long as there is time.

    Args:
        place: Where they run.
        left: Gives the seconds that are left.
        workers: How many processes set up at the same time.
        rounds: How many samples each contender has at most.
        expected: Seconds that compiling takes, by question, until it is
            known.

    Attributes:
        busy: The processes that set up. They pause while others are timed.
    """

    def __init__(self, place: Place, left: Callable[[], float],
                 workers: int, rounds: int | None = None,
                 expected: dict[str, float] | None = None) -> None:
        self.place, self.left, self.workers = place, left, workers
        self.rounds, self.expected = rounds, expected or {}
        self.context = start_processes()
        self.busy: list[Remote] = []
        self.seconds: dict[str, list[float]] = {}  # that compiling took
        self.free = 1.

    def measure(self, jobs: list[Job], tell: Callable[[], None]) -> None:
        """Measure jobs, the most important first.

        Args:
            jobs: What to measure. Their rows are filled in.
            tell: Called whenever a case was timed.
        """
        order = {id(job): place for place, job in enumerate(jobs)}
        waiting, ready = list(jobs), []
        try:
            while (waiting or self.busy) and self.left() > SPARE:
                ready = self.prepare(waiting)
                if ready:
                    ready.sort(key=lambda remote: order[id(remote.job)])
                    self.time(ready, tell)
                if not (ready or self.busy):
                    break
        finally:
            for job in waiting + [remote.job for remote in self.busy]:
                for row in job.rows:
                    row.status = 'no time'
            tell()
            end_all(self.busy + ready)
            self.busy.clear()

    def prepare(self, waiting: list[Job]) -> list[Remote]:
        """Set jobs up at the same time; gives those that ended in time."""
        end = self.left() * (1 - PREPARING)
        ready: list[Remote] = []
        for remote in self.busy:
            remote.signal(signal.SIGCONT)
        self.fill(waiting, MOST)
        while self.busy and self.left() > end:
            pipes = [remote.pipe for remote in self.busy]
            for pipe in connection.wait(pipes, max(0, self.left() - end)):
                remote = self.busy.pop(pipes.index(pipe))
                pipes.remove(pipe)
                answer = remote.learn()
                self.free = answer['free']
                if remote.job.compiles:
                    self.seconds.setdefault(
                        remote.job.case.question, []).append(
                            time.perf_counter() - remote.started)
                ready.append(remote)
            self.fill(waiting, MOST - len(ready))
        for remote in self.busy:
            remote.signal(signal.SIGSTOP)
        return ready

    def fill(self, waiting: list[Job], most: int) -> None:
        """Start jobs, as far as there are cores, memory and time."""
        most = min(most, self.workers)
        for job in list(waiting):
            if len(self.busy) >= most or self.free < FREE:
                return
            # What is compiled has to be timed yet.
            if job.compiles and 1.5 * self.typical(job) > self.left():
                continue
            waiting.remove(job)
            self.busy.append(Remote(self.context, job, self.place))

    def typical(self, job: Job) -> float:
        """Seconds that compiling takes."""
        question = job.case.question
        if question in self.seconds:
            return statistics.median(self.seconds[question])
        return self.expected.get(question, 0.)

    def time(self, ready: list[Remote], tell: Callable[[], None]) -> None:
        """Have the contenders of each case take turns."""
        cases: dict[int, list[Remote]] = {}
        for remote in ready:
            cases.setdefault(id(remote.job.case), []).append(remote)
        share = self.left() * TIMING / max(1, len(cases))
        if self.busy:
            # What these had launched ends.
            time.sleep(0.2)
        for remotes in cases.values():
            runs = [(remote.job.rows[number],
                     partial(remote.sample, number))
                    for remote in remotes for number in remote.ready]
            end = self.left() - share
            take_turns(runs, lambda end=end: self.left() < end, self.rounds)
            end_all(remotes)
            tell()
        self.free = 1.


def start_processes():
    """Give what starts processes that have imported torch already."""
    os.environ.update(ENVIRONMENT)
    context = get_context('forkserver')
    context.set_forkserver_preload([f'{__package__}.worker_imports'])
    probe = context.Process(target=_find_out_whether_cuda_works)
    probe.start()
    probe.join()
    # A new interpreter imports all of it again, but can always use CUDA.
    return get_context('spawn') if probe.exitcode else context


def _find_out_whether_cuda_works() -> None:
    sys.exit(int(torch.cuda._is_in_bad_fork()))
