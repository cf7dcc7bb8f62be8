"""Run commands of the project in processes that are started in advance."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .step import Step

ROOT = Path(__file__).parents[2]
SPARE = 2.  # seconds to end processes and to write figures


class Failed(Exception):
    """A command did not do what it should.

    Args:
        reason: What happened.
        log: What the command printed, if that helps.
    """

    def __init__(self, reason: str, log: Path | None = None) -> None:
        super().__init__(f'{log.stem}: {reason}' if log else reason)
        self.log = log


class Late(Failed):
    """The time was over before a command ended."""


class Command:
    """A command of the project. Its process imports, and waits for start().

    The process stays in the process group of the step, which is killed as a
    whole.
    """

    def __init__(self, step: Step, scope: str, log: Path, *args) -> None:
        self.step, self.log = step, log
        with log.open('w') as file:
            self.process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m',
                 'tests.gpu.without_mmcv_ops', '--wait', scope,
                 *map(str, args)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=file,
                stderr=subprocess.STDOUT,
                # One thread, because each core has its own process.
                env=dict(os.environ, OMP_NUM_THREADS='1'))

    def start(self) -> None:
        """Let the process continue. It may have ended with an error."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b'\n')
            self.process.stdin.close()

    def read_log(self) -> str:
        return self.log.read_text(errors='replace').strip()

    def finish(self) -> str:
        """Wait until the command succeeds, and return its log."""
        try:
            status = self.process.wait(max(0, self.step.left() - SPARE))
        except subprocess.TimeoutExpired:
            raise Late('no time', self.log) from None
        log = self.read_log()
        if status:
            last = log.rpartition('\n')[2][:300]
            raise Failed(f'exit status {status}: {last}', self.log)
        return log

    def kill_at(self, reached) -> None:
        """Kill the process as soon as ``reached()`` is true."""
        while not reached():
            if self.process.poll() is not None:
                self.finish()
                raise Failed('it ended before it was killed', self.log)
            if self.step.left() < SPARE:
                raise Late('no time', self.log)
            time.sleep(.02)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def commands(*all_of_them: Command) -> Iterator[tuple[Command, ...]]:
    """Yield the commands; on exit, end those that still run."""
    try:
        yield all_of_them
    finally:
        for command in all_of_them:
            command.process.kill()
            command.process.wait()
