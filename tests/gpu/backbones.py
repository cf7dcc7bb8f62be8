"""Step ``backbones``: compare whole networks with the official code and peers.

Each network runs eager, compiled, and in inference also as a CUDA graph.
cuDNN chooses its algorithms by heuristics, which is torch's default.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmcyclemlp.benchmark.calls import (
    OFFICIAL,
    PEERS,
    TEXTBOOK,
    TORCH,
    TRITON,
    Contender,
)
from mmcyclemlp.benchmark.cases import Case, net_case

from .layers import run
from .pool import Job
from .step import Step
from .tables import left_out, net_table

LARGE, MIDDLE, SMALL = (800, 1344), (512, 512), (224, 224)
# (training, arch, size, batch), most important first. Peers are compared with
# b2.
CASES = [
    (False, 'b2', LARGE, 1), (False, 'b2', LARGE, 8), (True, 'b2', LARGE, 2),
    (False, 'b1', LARGE, 1), (False, 'b1', LARGE, 8),
    (False, 'b2', SMALL, 128), (False, 'b1', SMALL, 128),
    (False, 'b2', MIDDLE, 1), (False, 'b2', MIDDLE, 8),
    (True, 'b2', MIDDLE, 8), (True, 'b1', LARGE, 2),
    (False, 'b5', LARGE, 1), (False, 'b5', LARGE, 8),
    (False, 'b1', MIDDLE, 1), (False, 'b1', MIDDLE, 8),
    (True, 'b1', MIDDLE, 8), (True, 'b5', LARGE, 2),
    (False, 'b2', LARGE, 16), (False, 'b2', MIDDLE, 16),
    (False, 'b2', SMALL, 1), (False, 'b1', SMALL, 1),
    (False, 'b5', SMALL, 128), (False, 'b5', MIDDLE, 1),
    (False, 'b5', MIDDLE, 8), (True, 'b5', MIDDLE, 8),
    (False, 'b1', LARGE, 16), (False, 'b5', LARGE, 16),
    (False, 'b1', MIDDLE, 16), (False, 'b5', MIDDLE, 16),
    (False, 'b5', SMALL, 1),
]
DECISIVE, NEXT = 3, 10  # places of cases, for the order of jobs
LAST = 5  # rank of the least important contender
# The peers of the main comparison.
RIVALS = ('Swin-T', 'ConvNeXt-T')
OTHERS = [name for name in PEERS
          if name not in (*RIVALS, 'PoolFormer-S24')]
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1),
            mlp_ratios=(2, 2, 2, 2))


def groups(train: bool, batch: int, peers: list[str]
           ) -> Iterator[tuple[int, list[Contender]]]:
    """Yield contenders that share a process, after their rank (0 is first)."""

    def uncompiled(one):
        # With a large batch the GPU is busy, and a graph saves no time.
        graph = not train and (batch == 1 or one == TRITON)
        return [one, one.runs('graph')] if graph else [one]

    # It copies its offsets to the GPU, which cannot be captured in a graph.
    yield 0, [OFFICIAL]
    yield 0, uncompiled(TRITON)
    yield 0, uncompiled(TORCH)
    # Compiling takes a minute, so it starts before the other peers.
    yield 1, [TRITON.runs('compiled')]
    for name in peers:
        one = Contender(name, 'peer')
        yield 1 if name in RIVALS else 4, [one.runs('compiled')]
        yield 2, uncompiled(one)
    yield 3, [TEXTBOOK.runs('compiled')]
    if batch == 1 and not train:
        yield 3, [TRITON.runs('reduce-overhead')]
    yield LAST, [OFFICIAL.runs('compiled')]


def order(place: int, rank: int, job: Job) -> tuple:
    """Return the key by which jobs are sorted.

    Args:
        place: Place of the case in ``CASES``.
        rank: Rank of the contenders, see :func:`groups`.
        job: The job.
    """
    train = job.case.question == 'train'
    if place < DECISIVE:
        # A training step takes longest to compile, so it is not last.
        last = job.compiles and not train
        return (2 if rank > 3 else 0), rank, last, place
    if place < NEXT:
        return (3 if job.compiles else 1), place, rank
    return 4, place, rank


def plan(step: Step) -> tuple[list[Case], list[Job]]:
    """Return the cases, and their jobs with the most important first."""
    all_cases, found = [], []
    wanted = CASES
    if step.miniature:
        wanted = [(False, TINY, (64, 64), 1), (True, TINY, (64, 64), 1)]
    for place, (train, arch, size, batch) in enumerate(wanted):
        peers = [*RIVALS, *OTHERS] * (arch == 'b2')
        if step.miniature:
            peers = ['Swin-T', 'ResNet-50'] * (not train)
        shared = list(groups(train, batch, peers))
        if step.miniature:
            shared = [(rank, [one for one in several if one.mode != 'graph'])
                      for rank, several in shared if rank < LAST]
        case = net_case(
            train, step.device, arch, size, batch,
            'fp32' if step.miniature else 'bf16',
            [one for _, several in shared for one in several],
            name='tiny' if step.miniature else None)
        rows = {row.contender: row for row in case.rows}
        all_cases.append(case)
        for rank, several in shared:
            job = Job(case, [rows[one] for one in several])
            found.append((order(place, rank, job), job))
    found.sort(key=lambda pair: pair[0])
    return all_cases, [job for _, job in found]


def table(all_cases: list[Case]) -> list[str]:
    """Return the lines of a table for each size and batch."""
    tables: dict[tuple, list[Case]] = {}
    for case in all_cases:
        settings = case.settings
        tables.setdefault(
            (case.question, settings['size'], settings['batch']),
            []).append(case)
    lines = []
    for together in tables.values():
        lines += net_table([case for case in together if any(
            row.samples or row.status not in ('measured', 'no time')
            for row in case.rows)])
    return lines + left_out(all_cases)


def measure(step: Step) -> None:
    """Measure inference and training steps of the networks."""
    all_cases, jobs = plan(step)
    run(step, all_cases, jobs, lambda: table(all_cases))
