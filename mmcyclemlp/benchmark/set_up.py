"""Build a contender, and check its results before it is timed."""

from __future__ import annotations

import contextlib
import gc
import math
import traceback
from typing import Callable

import torch
from torch import Tensor
from torch.utils.benchmark import timer

from ..errors import BackendUnavailable
from .calls import LAYOUTS, Call
from .cases import Case, Row
from .contenders import TEXTBOOK, Contender, LeftOut, first_line
from .memory import peak_on_cpu

# Largest |difference| / |expected| of a tensor: in a layer, in a network.
TOLERANCES = {'fp32': (1e-5, 3e-5), 'bf16': (2e-2, 5e-2),
              'fp16': (3e-3, 2e-2)}
# For other code: torch sums the gradient of a bias in bf16 on a CPU.
LENIENCE = 5
_TRACE = 2000  # characters of a traceback that are kept


class Wrong(Exception):
    """The results of a contender are not those of the definition."""


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


class SetUp:
    """Build and check contenders.

    Args:
        device: Where they run.
        alone: Returns a context in which no other process uses the GPU.
        peak_apart: Whether to measure the memory of a training step on the
            CPU, in a process of its own.

    Attributes:
        proofs: The error of each backend on a small input.
        layouts: Memory layouts of the peers, by case and name.
    """

    def __init__(self, device: torch.device,
                 alone: Callable = contextlib.nullcontext,
                 peak_apart: bool = True) -> None:
        self.device, self.alone = device, alone
        self.peak_apart = peak_apart
        self.proofs: dict[tuple, float] = {}
        self.layouts: dict[tuple[str, str], str] = {}

    def attempt(self, case: Case, row: Row,
                expected: list[Tensor]) -> tuple[Call, float] | None:
        """Return a checked call and its seconds, or None.

        If None, the row has the reason. ``expected`` is what the results
        are compared with. The first contender fills it in.
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
                 expected: list[Tensor]) -> tuple[Call, float]:
        contender, train = row.contender, case.question == 'train'
        gpu = self.device.type == 'cuda'
        if contender.kind in ('ours', 'textbook'):
            row.error = self.proof(case, contender)
        if train and not gpu and self.peak_apart:
            row.peak_bytes = peak_on_cpu(contender, case)
        call = self.make(case, row)
        # torch.compile records a CUDA graph in the second call.
        for _ in range(2 * (contender.mode == 'reduce-overhead')):
            call()
        results = call()
        if contender.checked:
            self.check(case, row, results, expected)
        del results
        if train and gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            row.peak_bytes = torch.cuda.max_memory_allocated() - before
        return call, seconds_once(call)

    def make(self, case: Case, row: Row) -> Call:
        """Build a contender, a peer in the memory layout that is faster."""
        contender = row.contender
        if contender.kind != 'peer':
            return case.make(contender)
        key = case.label, contender.name
        if key not in self.layouts:
            seconds = {}
            for layout in LAYOUTS:
                call = case.make(contender.runs('eager'), layout=layout)
                call()
                with self.alone():
                    seconds[layout] = seconds_once(call)
            self.layouts[key] = min(seconds, key=seconds.get)
        row.layout = self.layouts[key]
        return case.make(contender, layout=row.layout)

    def proof(self, case: Case, contender: Contender) -> float:
        """Return the error on a small input, against float64."""
        key = case.question, case.subject, contender.kind, contender.backend
        if key not in self.proofs:
            self.proofs[key] = distance(
                case.make(contender.runs('eager'), small=True)(),
                case.make(TEXTBOOK, small=True, exact=True)())
        return self.proofs[key]

    def check(self, case: Case, row: Row, results: list[Tensor],
              expected: list[Tensor]) -> None:
        """Compare results with the definition.

        That of a layer is in double precision, since in half precision a
        sum over a map is not exact enough.

        Raises:
            Wrong: The difference is larger than the tolerance.
        """
        if not expected:
            expected += case.make(TEXTBOOK, exact=case.traffic is not None)()
        row.error = max(row.error or 0., distance(results, expected))
        tolerance = TOLERANCES[case.dtype][case.traffic is None]
        if row.contender.kind != 'ours':
            tolerance *= LENIENCE
        if not row.error <= tolerance:
            raise Wrong(f'off by {row.error:.1e}, more than {tolerance:.0e}')
