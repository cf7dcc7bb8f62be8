"""Set up contenders in parallel processes, and time them one at a time.

Compiling takes most of the time, and one core for each contender. So many
processes set up contenders at the same time, and keep them. It would take
longer to compile in advance and to measure in one process: torch.compile
traces again even if Inductor finds its results on disk. When a process
crashes, contenders of other processes are not affected.
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

# One round sets up contenders for at most the share PREPARING of the time that
# is left, then times them for the share TIMING of the rest.
PREPARING, TIMING = 0.5, 0.5
MOST = 64  # processes at a time
HANGING = 30.  # seconds without an answer
SPARE = 1.  # seconds to write down what was found
ENVIRONMENT = {
    # The processes use all cores. Compile pools in them would compete.
    'TORCHINDUCTOR_COMPILE_THREADS': '1',
    # NVML, because a process that has called CUDA cannot fork CUDA users.
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

    def __init__(self, context, job: Job, layouts: dict,
                 place: Place) -> None:
        self.job, self.ready = job, []
        self.started = time.perf_counter()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(
            theirs, job.case, job.rows, layouts, place))
        self.process.start()
        theirs.close()

    def learn(self) -> dict:
        """Receive the results of the set-up from the process."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.lose(self.job.rows)
            return dict(layouts={}, free=1.)
        self.ready = answer['ready']
        for row, theirs in zip(self.job.rows, answer['rows']):
            vars(row).update(vars(theirs))
        return answer

    def sample(self, number: int) -> float | None:
        """Return the seconds of a contender's call, or None if it failed."""
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
    """End processes together, because the driver is slow to clean up."""
    for remote in remotes:
        remote.process.kill()
    for remote in remotes:
        remote.end()


class Pool:
    """Measures jobs in processes, for as long as there is time.

    Args:
        place: Where the processes run.
        left: Returns the seconds that are left.
        workers: How many processes set up at the same time.
        rounds: Largest number of samples of a contender.
        expected: Expected seconds of compiling by question, used until
            they are measured.

    Attributes:
        busy: Processes that set up. They pause while others are timed.
    """

    def __init__(self, place: Place, left: Callable[[], float],
                 workers: int, rounds: int | None = None,
                 expected: dict[str, float] | None = None) -> None:
        self.place, self.left, self.workers = place, left, workers
        self.rounds, self.expected = rounds, expected or {}
        self.context = start_processes()
        self.busy: list[Remote] = []
        self.layouts: dict[tuple[str, str], str] = {}
        self.seconds: dict[str, list[float]] = {}  # of compiling
        self.free = 1.

    def measure(self, jobs: list[Job], tell: Callable[[], None]) -> None:
        """Measure jobs, and write the results to their rows.

        Args:
            jobs: What to measure, most important first.
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
        """Set up jobs in parallel; return those that finished in time."""
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
                self.layouts |= answer['layouts']
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
        """Start jobs while there are cores, memory and time."""
        most = min(most, self.workers)
        for job in list(waiting):
            if len(self.busy) >= most or self.free < FREE:
                return
            # After compiling, there must be time to measure.
            if job.compiles and 1.5 * self.typical(job) > self.left():
                continue
            waiting.remove(job)
            self.busy.append(Remote(
                self.context, job, self.layouts, self.place))

    def typical(self, job: Job) -> float:
        """Return the seconds that compiling takes, measured or expected."""
        question = job.case.question
        if question in self.seconds:
            return statistics.median(self.seconds[question])
        return self.expected.get(question, 0.)

    def time(self, ready: list[Remote], tell: Callable[[], None]) -> None:
        """Time the contenders of each case in turns."""
        cases: dict[int, list[Remote]] = {}
        for remote in ready:
            cases.setdefault(id(remote.job.case), []).append(remote)
        share = self.left() * TIMING / max(1, len(cases))
        if self.busy:
            # Wait for kernels that these have launched.
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
    """Return a context whose new processes have already imported torch."""
    os.environ.update(ENVIRONMENT)
    context = get_context('forkserver')
    context.set_forkserver_preload([f'{__package__}.worker_imports'])
    probe = context.Process(target=_find_out_whether_cuda_works)
    probe.start()
    probe.join()
    # 'spawn' imports everything again, but can always use CUDA.
    return get_context('spawn') if probe.exitcode else context


def _find_out_whether_cuda_works() -> None:
    sys.exit(int(torch.cuda._is_in_bad_fork()))
