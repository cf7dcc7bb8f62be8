"""Step ``layers``: the op and the mixer beside everything they compete with.

The kernels take the tiles that the step ``tiles`` has found.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch

from mmcyclemlp.benchmark import calls
from mmcyclemlp.benchmark.calls import (
    LINEAR,
    OFFICIAL,
    TEXTBOOK,
    TORCH,
    TRITON,
    Contender,
)
from mmcyclemlp.benchmark.cases import Case, layer_case, stages
from mmcyclemlp.benchmark.report import at_fault
from mmcyclemlp.ops.triton.measured import MEASURED

from .adopt import best_tiles
from .dense import DENSE, make_layer
from .pool import Job, Pool
from .step import Step, read
from .tables import layer_table
from .worker import place
from .worker_imports import WITHOUT_COMPILER

COLUMNS = {
    'triton': TRITON, 'torch': TORCH, 'official': OFFICIAL, 'linear': LINEAR,
    'dense': DENSE, 'dense+c': DENSE.runs('compiled'),
    'compiled': TEXTBOOK.runs('compiled'),
    'autotune': TEXTBOOK.runs('max-autotune'),
}
SIZES = [(800, 1344), (512, 512)]
BATCHES = [1, 8, 2, 16]
LAYERS = ['mixer', 'op']
# Seconds that compiling takes on one core: by Inductor of torch 2.11 for an
# H100, measured without one on an AMD EPYC, 2026-11-27.
COMPILING = dict(op=8., mixer=20., backbone=50., train=130.)


def take_tiles(path: Path) -> None:
    """Have the kernels launch with what this measurement has found."""
    figures = read(path)['steps'].get('tiles', {}).get('figures', {})
    if figures.get('keys'):
        known = MEASURED.setdefault(tuple(figures['capability']), {})
        known.update(best_tiles(figures['keys']))


def begin(path: Path, log: Path, miniature: bool) -> None:
    """What each process that measures for a step calls first."""
    # Inductor writes much that nobody has to read.
    with log.open('a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    if miniature:
        # Nothing is compiled, and a core is left to others.
        calls.COMPILER = 'eager'
        torch.set_num_threads(1)
    else:
        take_tiles(path)


def take_over(known: list[dict], all_cases: list[Case]) -> None:
    """Fill in what an earlier try of the step has measured."""
    rows = {(case['question'], case['label'], row['contender']): row
            for case in known for row in case['rows'] if row['samples']}
    for case in all_cases:
        for row in case.rows:
            found = rows.get(
                (case.question, case.label, row.contender.label), {})
            for key in {*found} & {'samples', 'error', 'peak_bytes'}:
                setattr(row, key, found[key])


def run(step: Step, all_cases: list[Case], jobs: list[Job], table) -> None:
    """Measure the jobs in processes until the time of the step is over.

    Args:
        step: Takes the figures.
        all_cases: Those of the jobs.
        jobs: Most decisive first.
        table: Gives the lines of the table.
    """
    take_over(step.figures.get('cases', []), all_cases)
    jobs = [job for job in jobs if not all(row.samples for row in job.rows)]

    def tell():
        step.record(
            table=table(), wrong=at_fault(all_cases),
            cases=[case.known() for case in all_cases
                   if any(row.samples or row.reason for row in case.rows)])

    if step.miniature:
        os.environ[WITHOUT_COMPILER] = '1'
    workers = 1 if step.miniature else min(12, max(2, os.cpu_count() - 2))
    rounds = 2 if step.miniature else None
    expected = {} if step.miniature else COMPILING
    log = step.path.with_suffix(f'.{step.name}.log')
    start = partial(begin, step.path, log, step.miniature)
    with place(step.device, start) as here:
        Pool(here, step.left, workers, rounds, expected).measure(jobs, tell)


def contenders(layer, batch: int) -> list[Contender]:
    """Those of one map."""
    found = list(COLUMNS.values())
    if layer == 'mixer':
        found.remove(LINEAR)
        if batch > 1:
            # Each image would need a kernel of its own.
            found = [one for one in found if one.kind != 'dense']
    return found


def with_dense(case: Case) -> Case:
    """Have a case build dense convolutions, too."""
    case.make = partial(make_layer, *case.make.args)
    return case


def cases(step: Step) -> Iterator[tuple[int, Case]]:
    """Cases, and how decisive each is. Rank 0 is the most decisive."""
    if step.miniature:
        for layer, backward in (('mixer', True), ('op', False)):
            yield 0, with_dense(layer_case(
                layer, step.device, (1, 6, 10, 16), 'fp32', backward,
                contenders(layer, 1)))
        return
    seen = set()
    for arch, size, batch in product(('b2', 'b5'), SIZES, BATCHES):
        for stage, (c, height, width) in enumerate(stages(arch, size)):
            rank = (3 * (arch == 'b5') + SIZES.index(size)
                    + BATCHES.index(batch) // 2 + stage // 2)
            for layer, backward in product(LAYERS, (False, True)):
                key = layer, batch, c, height, width, backward
                if key not in seen:
                    seen.add(key)
                    yield rank, with_dense(layer_case(
                        layer, step.device, (batch, height, width, c),
                        'bf16', backward, contenders(layer, batch)))


def jobs(ranked: list[tuple[int, Case]]) -> list[Job]:
    """Jobs of the cases, the most decisive first."""
    found = []
    for rank, case in ranked:
        parts: dict[str, list] = {}
        for row in case.rows:
            one = row.contender
            part = one.label if one.compiles or one == TRITON else 'others'
            parts.setdefault(part, []).append(row)
        for rows in parts.values():
            # What takes long to compile comes after other maps.
            late = {'eager': 0, 'compiled': 1, 'max-autotune': 2}[
                rows[-1].contender.mode]
            late += 2 * case.settings['backward'] * (late == 2)
            late += 2 * (rows[-1].contender.kind == 'dense') * (late > 0)
            found.append((2 * rank + late, Job(case, rows)))
    found.sort(key=lambda pair: pair[0])
    return [job for _, job in found]


def table(all_cases: list[Case], gpu: str | None) -> list[str]:
    lines = []
    for layer, backward in product(LAYERS, (False, True)):
        lines += layer_table(
            [case for case in all_cases if case.question == layer
             and case.settings['backward'] == backward], COLUMNS, gpu)
    return lines


def measure(step: Step) -> None:
    """Measure op and mixer on the maps of the networks."""
    ranked = list(cases(step))
    all_cases = [case for _, case in ranked]
    gpu = read(step.path)['machine'].get('gpu')
    run(step, all_cases, jobs(ranked), lambda: table(all_cases, gpu))
