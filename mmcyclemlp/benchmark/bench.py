"""Contenders take turns: time limits, proofs, timing, memory."""

from __future__ import annotations

import gc
import math
import time

import torch

from .contenders import OFFICIAL, PEERS, PLAIN, LeftOut, first_line, is_ours
from .memory import peak_on_cpu
from .timing import TimeUp, elapsed, time_limit

# Largest |difference| / |expected| of a tensor: of an op, of a network.
TOLERANCES = {'fp32': (1e-5, 3e-5), 'bf16': (2e-2, 5e-2),
              'fp16': (3e-3, 2e-2)}
ROUNDS, FEWEST_ROUNDS = 15, 3
SAMPLE_SECONDS = 2e-3
# Larger than any cache, and long enough to clear for the launches of an op.
FLUSH_BYTES = 2**30
# No contender's set-up takes more of what is left, and compiling in all no
# more of the whole.
SET_UP_SHARE, COMPILING_SHARE = 0.2, 0.4
# How the time is shared out, a case.
WEIGHTS = {'op': 1, 'mixer': 1, 'backbone': 5, 'train': 5, 'scaling': 2}


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


class Bench:
    """One run: its time, and what it has learnt on the way."""

    def __init__(self, device, seconds):
        self.device, self.seconds = device, seconds
        self.gpu = device.type == 'cuda'
        self.end = time.perf_counter() + seconds
        self.compiling = 0.
        self.cuts = {}  # (question, contender) -> seconds given, work
        self.proofs = {}  # what was held to the definition -> error

    def left(self) -> float:
        return self.end - time.perf_counter()

    def shares(self, cases):
        """Cases by rank, each with its seconds; sweeps up after each.

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

    def measure(self, case, share):
        """Set up, check and time the contenders, in ``share`` seconds.

        More, where the fewest rounds take more.
        """
        end = self.left() - share
        expected, runs = [], []
        for row in case.rows:
            made = self.attempt(case, row, expected)
            if made is not None:
                runs.append((row, *made))
        del expected
        flush = None
        if self.gpu and case.traffic:
            flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device='cuda')
        most = 20 if self.gpu else 1000
        for done in range(ROUNDS):
            if done >= FEWEST_ROUNDS and self.left() < end:
                break
            for row, call, seconds in runs:
                repeats = min(most, math.ceil(SAMPLE_SECONDS / seconds))
                if repeats * seconds < self.left():
                    row.samples.append(
                        elapsed(call, self.device, repeats, flush))
        for row, *_ in runs:
            if not row.samples:
                row.status, row.reason = 'no time', 'set up, but not timed'

    def attempt(self, case, row, expected):
        """A checked contender's call and its seconds, or None."""
        key = case.question, row.contender
        compiles = 'compiled' in row.contender
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
                return self.set_up(case, row, expected)
        except TimeUp:
            self.cuts.setdefault(key, (limit, case.work))
            row.status, row.reason = 'no time', 'its set-up takes too long'
        except (torch.cuda.OutOfMemoryError, MemoryError):
            row.status = 'out of memory'
            gc.collect()
        except Exception as error:
            row.reason = first_line(error)
            absent = isinstance(error, LeftOut) or 'cannot run here' in (
                row.reason)
            row.status = 'left out' if absent else 'failed'
        finally:
            self.compiling += compiles * (time.perf_counter() - start)
        return None

    def set_up(self, case, row, expected):
        name, train = row.contender, case.question == 'train'
        if name == 'triton' and not self.gpu:
            raise LeftOut('it needs a GPU, or runs in an interpreter')
        if is_ours(name):
            row.error = self.proof(case, name)
        if train and not self.gpu:
            row.peak_bytes = peak_on_cpu(
                name, dtype=case.dtype, **case.settings)
        call = case.make(name)
        if is_ours(name) and case.question != 'scaling':
            results = call()
            if not expected:
                # The first is the official route; else the definition.
                expected += (results if name == OFFICIAL
                             else case.make(PLAIN)())
            row.error = max(row.error, distance(results, expected))
            del results
        elif name not in PEERS:
            call()
        tolerance = TOLERANCES[case.dtype][case.traffic is None]
        if is_ours(name) and row.error > tolerance:
            row.status = 'wrong'
            row.reason = f'off by {row.error:.1e}, more than {tolerance:.0e}'
            return None
        if train and self.gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            row.peak_bytes = torch.cuda.max_memory_allocated() - before
        return call, elapsed(call, self.device)

    def proof(self, case, name):
        """Error on a small input, against the definition in float64."""
        key = case.question, case.subject, name.partition(',')[0]
        if key not in self.proofs:
            self.proofs[key] = distance(
                case.make(key[2], small=True)(),
                case.make(PLAIN, small=True, exact=True)())
        return self.proofs[key]
