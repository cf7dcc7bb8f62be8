"""Build a contender, and hold it to the definition before it is timed."""

from __future__ import annotations

import contextlib
import gc
import math
import traceback
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BackendUnavailable
from .cases import Case, Row
from .contenders import OFFICIAL, TEXTBOOK, LeftOut, first_line
from .memory import peak_on_cpu
from .timing import elapsed

# Largest |difference| / |expected| of a tensor: of an op, of a network.
TOLERANCES = {'fp32': (1e-5, 3e-5), 'bf16': (2e-2, 5e-2),
              'fp16': (3e-3, 2e-2)}
# Of what is not ours: torch sums a bias's gradient in bf16 on a CPU.
LENIENCE = 5
_TRACE = 2000  # characters that are kept


class Wrong(Exception):
    """A contender whose results are not those of the definition."""


@torch.no_grad()
def distance(results, expected) -> float:
    """Largest relative difference of a tensor, over all of them.

    A tensor much smaller than the largest beside it, as a gradient that
    nearly vanishes, is measured by that.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(results, expected)]
    norms = [float(b.norm()) for _, b in pairs]
    found = [float((a - b).norm()) / max(norm, 0.01 * max(norms))
             for (a, b), norm in zip(pairs, norms)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


class SetUp:
    """Sets contenders up, and remembers what it found out about them.

    Args:
        device: Where they run.
        alone: Gives a context in which no other process uses the GPU.
        peak_apart: Whether the memory of a training step on the CPU is
            measured, in a process of its own.

    Attributes:
        proofs: The error of each backend, on a small input.
        layouts: The layouts of the peers, by case and name.
    """

    def __init__(self, device: torch.device,
                 alone: Callable = contextlib.nullcontext,
                 peak_apart: bool = True) -> None:
        self.device, self.alone = device, alone
        self.peak_apart = peak_apart
        self.proofs: dict[tuple, float] = {}
        self.layouts: dict[tuple[str, str], str] = {}

    def attempt(self, case: Case, row: Row,
                expected: list[Tensor]) -> tuple[Callable, float] | None:
        """A checked contender's call and its seconds, or None.

        The row then says why. ``expected`` is what the results are compared
        with. It is filled in for the first contender.
        """
        try:
            return self(case, row, expected)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            row.status = 'out of memory'
        except (LeftOut, BackendUnavailable) as error:
            row.status, row.reason = 'left out', first_line(error)
        except Wrong as error:
            row.status, row.reason = 'wrong', str(error)
        except Exception as error:
            row.status, row.reason = 'failed', first_line(error)
            row.trace = traceback.format_exc()[-_TRACE:]
        gc.collect()
        return None

    def __call__(self, case: Case, row: Row,
                 expected: list[Tensor]) -> tuple[Callable, float]:
        contender, train = row.contender, case.question == 'train'
        gpu = self.device.type == 'cuda'
        if contender.backend == 'triton' and not gpu:
            raise LeftOut('it needs a GPU, or runs in an interpreter')
        if contender.kind in ('ours', 'textbook'):
            row.error = self.proof(case, contender)
        if train and not gpu and self.peak_apart:
            row.peak_bytes = peak_on_cpu(contender, case)
        call = self.make(case, row)
        # Such a graph is recorded by the second call.
        for _ in range(2 * (contender.mode == 'reduce-overhead')):
            call()
        self.check(case, row, call(), expected)
        if train and gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            row.peak_bytes = torch.cuda.max_memory_allocated() - before
        return call, elapsed(call, self.device)

    def make(self, case: Case, row: Row) -> Callable:
        contender = row.contender
        if contender.kind == 'dense':
            self.search(case.make(contender.runs('eager')))
        if contender.kind != 'peer':
            return case.make(contender)
        key = case.label, contender.name
        if key not in self.layouts:
            self.layouts[key] = case.layout(contender, alone=self.alone)
        row.layout = self.layouts[key]
        return case.make(contender, layout=row.layout)

    def search(self, call: Callable) -> None:
        """Have cuDNN time its algorithms, and keep the fastest."""
        # The first convolution of a process loads cuDNN.
        F.conv2d(*torch.zeros(2, 8, 8, 1, 1, device=self.device))
        cudnn = torch.backends.cudnn
        before, cudnn.benchmark = cudnn.benchmark, True
        try:
            with self.alone():
                call()
        finally:
            cudnn.benchmark = before

    def check(self, case: Case, row: Row, results: list[Tensor],
              expected: list[Tensor]) -> None:
        """Raise :class:`Wrong` where the results of the row are."""
        contender = row.contender
        if not contender.held:
            return
        if case.question != 'scaling':
            if not expected:
                expected += self.expect(case, contender, results)
            row.error = max(row.error or 0., distance(results, expected))
        tolerance = TOLERANCES[case.dtype][case.traffic is None]
        if contender.kind != 'ours':
            tolerance *= LENIENCE
        if not row.error <= tolerance:
            raise Wrong(f'off by {row.error:.1e}, more than {tolerance:.0e}')

    def expect(self, case: Case, contender, results) -> list[Tensor]:
        """What all contenders of a case are compared with.

        In a layer it is the definition in double precision, as in half
        precision even a sum over a map may be off. In a network it is the
        official route if that comes first, else the definition.
        """
        if case.traffic is not None:
            return case.make(TEXTBOOK, exact=True)()
        if contender == OFFICIAL:
            return results
        return case.make(TEXTBOOK)()

    def proof(self, case: Case, contender) -> float:
        """Error on a small input, against the definition in float64."""
        key = case.question, case.subject, contender.kind, contender.backend
        if key not in self.proofs:
            self.proofs[key] = distance(
                case.make(contender.runs('eager'), small=True)(),
                case.make(TEXTBOOK, small=True, exact=True)())
        return self.proofs[key]
