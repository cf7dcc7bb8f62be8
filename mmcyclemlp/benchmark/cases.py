"""What is compared: questions, their cases, and a row a contender."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Callable

import torch
from torch import Tensor

from ..backbones import CycleNet
from .calls import DTYPES, make_mixer, make_net, make_op
from .contenders import LINEAR, OFFICIAL, OURS, PEERS, PLAIN


@dataclass
class Scope:
    """What a question is asked of: each with each, on one device."""

    arch: list[str]
    size: list[tuple[int, int]]
    batch: list[int]
    dtype: list[str]
    device: torch.device


@dataclass
class Row:
    """What is known of one contender in one case."""

    contender: str
    samples: list[float] = field(default_factory=list)  # seconds a call
    status: str = 'measured'
    reason: str = ''
    error: float | None = None  # the largest found, relative
    peak_bytes: int | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None


@dataclass
class Case:
    """One comparison: contenders that take turns on the same work.

    ``make(name, small, exact)`` builds a contender and returns a call that
    gives its results as a list: ``small`` for a small input, ``exact`` in
    double precision.
    """

    question: str
    label: str
    rank: int  # 0 is measured first
    dtype: str
    names: list[str]
    make: Callable[..., Callable[[], list[Tensor]]]
    subject: str  # what a check on a small input is good for
    work: float  # operations, up to a factor
    traffic: tuple[float, float] | None = None  # least bytes, operations
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(name) for name in self.names]


def combinations(scope, sizes=None):
    """Rank, arch, size, batch and dtype; what matters most has rank 0."""
    archs = sorted(scope.arch, key=lambda arch: (arch != 'b2', arch))
    for numbered in product(*map(
            enumerate,
            (archs, sizes or scope.size, scope.batch, scope.dtype))):
        ranks, values = zip(*numbered)
        yield sum(ranks), *values


def stages(arch, size):
    """Channels, height, width, depth and MLP ratio of the stages."""
    kernel, stride, padding = 7, 4, 2
    for channels, depth, ratio in zip(*CycleNet.arch_settings[arch].values()):
        size = [(s + 2 * padding - kernel) // stride + 1 for s in size]
        kernel, stride, padding = 3, 2, 1
        yield channels, *size, depth, ratio


def layer_cases(question, make, names, maps, products):
    """Cases of an op or a module, at the stages of the networks.

    ``maps`` are the passes over the map that it cannot do without, forward
    and with gradients; ``products`` the C x C products at each position.
    """

    def cases(scope):
        seen = set()
        for rank, arch, size, batch, dtype in combinations(scope):
            for c, height, width, *_ in stages(arch, size):
                shape = (batch, height, width, c)
                if (shape, dtype) in seen:
                    continue
                seen.add((shape, dtype))
                for backward in (False, True):
                    times, numbers = 1 + 2 * backward, math.prod(shape)
                    operations = times * 2 * products * numbers * c
                    nbytes = DTYPES[dtype].itemsize * (
                        maps[backward] * numbers
                        + times * math.ceil(products) * c**2)
                    yield Case(
                        question, f'{batch}x{c}x{height}x{width} {dtype} '
                        f'{"fwd+bwd" if backward else "forward"}', rank,
                        dtype, names,
                        partial(make, scope.device, shape, dtype, backward),
                        f'{c} {dtype} {backward}', operations,
                        (nbytes, operations),
                        dict(shape=shape, backward=backward))

    return cases


def net_work(arch, size, batch):
    """Operations of a network, up to a factor."""
    return batch * sum(
        depth * channels**2 * height * width * (4 + 2 * ratio)
        for channels, height, width, depth, ratio in stages(arch, size))


def net_cases(question, train):
    """Cases of whole networks; the peers stand beside the first."""

    def cases(scope):
        first, gpu = None, scope.device.type == 'cuda'
        ours = [OFFICIAL, OURS]
        if not train:
            ours += ['torch', f'{OURS}, CUDA graph'] if gpu else []
            ours += [f'{OURS}, compiled']
        ours += [f'{PLAIN}, compiled'] if gpu or not train else []
        for rank, arch, size, batch, dtype in combinations(scope):
            first = first or arch
            yield Case(
                question, f'{arch} {size[0]}x{size[1]} batch {batch} {dtype}',
                rank, dtype, ours + list(PEERS) * (arch == first),
                partial(make_net, scope.device, arch, size, batch, dtype,
                        train),
                f'{arch} {dtype}', net_work(arch, size, batch),
                settings=dict(arch=arch, size=size, batch=batch))

    return cases


def scaling_cases(scope):
    """Cases of one network, whose contenders are its sizes."""
    areas = {'256x256': (256, 256), '256x512': (256, 512),
             '1024x1024': (1024, 1024)}
    # A CUDA graph, or at small sizes one would time the launches.
    route = f'{OURS}, CUDA graph' if scope.device.type == 'cuda' else OURS
    for rank, arch, _, batch, dtype in combinations(scope, [None]):

        def make(name, small=False, exact=False, arch=arch, batch=batch,
                 dtype=dtype):
            size = areas.get(name)
            return make_net(scope.device, arch, size, batch, dtype, False,
                            route if size else name, small, exact)

        yield Case('scaling', f'{arch} batch {batch} {dtype}, {route}', rank,
                   dtype, list(areas), make, f'{arch} {dtype}',
                   net_work(arch, (1024, 1024), batch),
                   settings=dict(arch=arch, batch=batch))


QUESTIONS = {
    'op': layer_cases('op', make_op, [OFFICIAL, 'triton', 'torch', LINEAR],
                      (2, 5), 1),
    'mixer': layer_cases('mixer', make_mixer, [
        OFFICIAL, 'triton', 'torch', f'{PLAIN}, compiled'], (3, 6), 7 / 3),
    'backbone': net_cases('backbone', False),
    'train': net_cases('train', True),
    'scaling': scaling_cases,
}
