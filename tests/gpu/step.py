"""One step of the measurement: its time, its figures, and their file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch


class Skipped(Exception):
    """A step that cannot run here. The message says why."""


class Step:
    """The argument of the function ``measure(step)`` of each step.

    Args:
        name: Name of the step, a module of this package.
        path: JSON file of the whole measurement.
        seconds: Time for this step.
        miniature: Whether to run on a CPU, in tiny sizes, with Triton's
            interpreter. The figures then mean nothing.

    Attributes:
        figures: What the step has recorded so far. At the start it has
            the figures of an earlier try that crashed.
    """

    def __init__(self, name: str, path: Path, seconds: float,
                 miniature: bool) -> None:
        self.name, self.path, self.miniature = name, path, miniature
        self.device = torch.device('cpu' if miniature else 'cuda')
        self.end = time.monotonic() + seconds
        # Nobody else writes the file while the step runs.
        self.known = read(path)
        self.result = self.known['steps'].setdefault(name, {})
        self.figures = self.result.setdefault('figures', {})

    def left(self) -> float:
        """Seconds left for this step."""
        return self.end - time.monotonic()

    def record(self, **figures) -> None:
        """Add figures, and write the file.

        The figure ``table`` is a list of lines. They are printed at the
        end of the run.
        """
        self.figures.update(figures)
        write(self.path, self.known)

    def end_with(self, **result) -> None:
        """Record how the step has ended."""
        self.result.update(result)
        write(self.path, self.known)


def read(path: Path) -> dict:
    """Read the measurement so far; it is empty without a file."""
    if path.exists():
        return json.loads(path.read_text())
    return dict(machine={}, steps={})


def write(path: Path, known: dict) -> None:
    """Replace the file atomically, because the process may be killed."""
    part = path.with_name(path.name + '.part')
    # Without an indent the encoder is six times as fast.
    part.write_text(json.dumps(known))
    os.replace(part, path)
