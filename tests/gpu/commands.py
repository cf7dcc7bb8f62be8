"""Commands of the project, each in a process that waits until it is needed."""

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
    """A command did not do what it has to.

    Args:
        reason: What happened.
        log: What the command printed, if that helps.
    """

    def __init__(self, reason: str, log: Path | None = None) -> None:
        super().__init__(f'{log.stem}: {reason}' if log else reason)
        self.log = log


class Late(Failed):
    """There was no time for a command to end."""


class Command:
    """A command of the project in a process that waits until it is needed.

    The process stays in the group of the step, which is killed as a whole.
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
                # There is a process for each core.
                env=dict(os.environ, OMP_NUM_THREADS='1'))

    def start(self) -> None:
        """Let the process go on. It may have ended with an error."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b'\n')
            self.process.stdin.close()

    def read_log(self) -> str:
        return self.log.read_text(errors='replace').strip()

    def finish(self) -> str:
        """Wait for success, and give the log."""
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
        """Kill the process as soon as ``reached()`` says so."""
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
    """End what still runs on the way out."""
    try:
        yield all_of_them
    finally:
        for command in all_of_them:
            command.process.kill()
            command.process.wait()
