"""What is compared: questions, their cases, and a row for each contender."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from ..backbones import CycleNet
from .calls import DTYPES, faster_layout, make_mixer, make_net, make_op
from .contenders import (
    LINEAR,
    OFFICIAL,
    OURS,
    PEERS,
    TEXTBOOK,
    TORCH,
    TRITON,
    Contender,
    peer,
)


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

    contender: Contender
    samples: list[float] = field(default_factory=list)  # seconds a call
    status: str = 'measured'
    reason: str = ''
    trace: str = ''  # of what failed
    error: float | None = None  # the largest found, relative
    peak_bytes: int | None = None
    layout: str | None = None  # in which a peer runs

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    def known(self) -> dict:
        """What goes into a file."""
        return dict(vars(self), contender=self.contender.label,
                    runs=self.contender._asdict(), median=self.median)


@dataclass
class Case:
    """One comparison: contenders that take turns on the same work.

    ``make(contender, small, exact)`` builds a contender and returns a call
    that gives its results as a list: ``small`` for a small input, ``exact``
    in double precision. ``layout(contender, alone)`` gives the memory layout
    that suits a peer, which ``make`` takes.
    """

    question: str
    label: str
    rank: int  # 0 is measured first
    dtype: str
    contenders: list[Contender]
    make: Callable[..., Callable[[], list[Tensor]]]
    subject: str  # what a check on a small input is good for
    work: float  # operations, up to a factor
    traffic: tuple[float, float] | None = None  # least bytes, operations
    layout: Callable[..., str] | None = None
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(contender) for contender in self.contenders]

    def known(self) -> dict:
        """What goes into a file."""
        known = {key: value for key, value in vars(self).items()
                 if key not in ('make', 'layout', 'contenders')}
        return dict(known, rows=[row.known() for row in self.rows])


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
    settings = CycleNet.arch_settings[arch] if isinstance(arch, str) else arch
    for channels, depth, ratio in zip(
            *(settings[key] for key in ('embed_dims', 'depths', 'mlp_ratios'))
            ):
        size = [(s + 2 * padding - kernel) // stride + 1 for s in size]
        kernel, stride, padding = 3, 2, 1
        yield channels, *size, depth, ratio


class Layer(NamedTuple):
    """An op or a module.

    Attributes:
        question: What it is called.
        make: See :class:`Case`.
        maps: The passes over the map that it cannot do without, forward and
            with gradients.
        products: The C x C products at each position.
    """

    question: str
    make: Callable
    maps: tuple[int, int]
    products: float


OP = Layer('op', make_op, (2, 5), 1)
MIXER = Layer('mixer', make_mixer, (3, 6), 7 / 3)


def layer_case(layer: Layer, device: torch.device,
               shape: tuple[int, int, int, int], dtype: str, backward: bool,
               contenders: list[Contender], rank: int = 0) -> Case:
    """The case of a layer on a map of ``shape`` (N, H, W, C)."""
    n, height, width, c = shape
    times, numbers = 1 + 2 * backward, math.prod(shape)
    operations = times * 2 * layer.products * numbers * c
    nbytes = DTYPES[dtype].itemsize * (
        layer.maps[backward] * numbers
        + times * math.ceil(layer.products) * c**2)
    return Case(
        layer.question, f'{n}x{c}x{height}x{width} {dtype} '
        f'{"fwd+bwd" if backward else "forward"}', rank, dtype, contenders,
        partial(layer.make, device, shape, dtype, backward),
        f'{c} {dtype} {backward}', operations, (nbytes, operations),
        settings=dict(shape=shape, backward=backward))


def layer_cases(layer, contenders):
    """Cases of an op or a module, at the stages of the networks."""

    def cases(scope):
        seen = set()
        for rank, arch, size, batch, dtype in combinations(scope):
            for c, height, width, *_ in stages(arch, size):
                shape = (batch, height, width, c)
                if (shape, dtype) in seen:
                    continue
                seen.add((shape, dtype))
                for backward in (False, True):
                    yield layer_case(layer, scope.device, shape, dtype,
                                     backward, contenders, rank)

    return cases


def net_work(arch, size, batch):
    """Operations of a network, up to a factor."""
    return batch * sum(
        depth * channels**2 * height * width * (4 + 2 * ratio)
        for channels, height, width, depth, ratio in stages(arch, size))


def net_case(train: bool, device: torch.device, arch: str | dict,
             size: tuple[int, int], batch: int, dtype: str,
             contenders: list[Contender], rank: int = 0,
             name: str | None = None) -> Case:
    """The case of a network, called ``name`` if ``arch`` is a dict."""
    name, what = name or arch, (device, arch, size, batch, dtype, train)
    return Case(
        'train' if train else 'backbone',
        f'{name} {size[0]}x{size[1]} batch {batch} {dtype}', rank, dtype,
        contenders, partial(make_net, *what), f'{name} {dtype}',
        net_work(arch, size, batch), layout=partial(faster_layout, *what),
        settings=dict(arch=arch, name=name, size=size, batch=batch))


def net_cases(train):
    """Cases of whole networks; the peers stand beside the first."""

    def cases(scope):
        first, gpu = None, scope.device.type == 'cuda'
        # On a GPU the table has to say which backend it was.
        ours = [OFFICIAL, *([TORCH, TRITON] if gpu else [OURS])]
        fastest = ours[-1]
        peers = [peer(name) for name in PEERS]
        if gpu and not train:
            ours.append(fastest.runs('graph'))
        if gpu or not train:
            ours += [fastest.runs('compiled'), TEXTBOOK.runs('compiled')]
            peers += [one.runs('compiled') for one in peers]
        for rank, arch, size, batch, dtype in combinations(scope):
            first = first or arch
            yield net_case(train, scope.device, arch, size, batch, dtype,
                           ours + peers * (arch == first), rank)

    return cases


def scaling_cases(scope):
    """Cases of one network, whose contenders are its sizes."""
    # A CUDA graph, or at small sizes one would time the launches.
    route = (TRITON.runs('graph') if scope.device.type == 'cuda' else OURS)
    for rank, arch, _, batch, dtype in combinations(scope, [None]):

        def make(contender, small=False, exact=False, arch=arch, batch=batch,
                 dtype=dtype):
            return make_net(scope.device, arch, contender.size, batch, dtype,
                            False, contender, small, exact)

        yield Case('scaling', f'{arch} batch {batch} {dtype}, {route.label}',
                   rank, dtype, [
                       route._replace(name=f'{height}x{width}',
                                      size=(height, width))
                       for height, width in (
                           (256, 256), (256, 512), (1024, 1024))],
                   make, f'{arch} {dtype}',
                   net_work(arch, (1024, 1024), batch),
                   settings=dict(arch=arch, batch=batch))


QUESTIONS = {
    'op': layer_cases(OP, [OFFICIAL, TRITON, TORCH, LINEAR]),
    'mixer': layer_cases(MIXER, [
        OFFICIAL, TRITON, TORCH, TEXTBOOK.runs('compiled')]),
    'backbone': net_cases(False),
    'train': net_cases(True),
    'scaling': scaling_cases,
}
