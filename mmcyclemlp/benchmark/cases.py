"""What is compared: questions, their cases, and a row for each contender."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Callable, NamedTuple

import torch

from ..backbones import CycleNet
from .calls import DTYPES, Call, Shape, make_layer, make_net
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
    """What to measure: each arch with each size, batch and dtype."""

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
    trace: str = ''  # traceback of a failure
    error: float | None = None  # the largest relative error
    peak_bytes: int | None = None
    layout: str | None = None  # memory layout of a peer

    @property
    def median(self) -> float | None:
        """Median of the samples, in seconds."""
        return statistics.median(self.samples) if self.samples else None

    def known(self) -> dict[str, Any]:
        """Return what is written to a file."""
        return dict(vars(self), contender=self.contender.label,
                    runs=self.contender._asdict(), median=self.median)


@dataclass
class Case:
    """One comparison, in which contenders take turns on the same work.

    Attributes:
        rank: Cases of rank 0 are measured first.
        make: ``make(contender, small, exact)`` returns the call of a
            contender, see :mod:`.calls`. Networks also take ``layout``.
        subject: A check on a small input holds for all cases with it.
        traffic: Of a layer, the least bytes and operations.
        settings: What else is written to a file.
    """

    question: str
    label: str
    rank: int
    dtype: str
    contenders: list[Contender]
    make: Callable[..., Call]
    subject: str
    traffic: tuple[float, float] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(contender) for contender in self.contenders]

    def known(self) -> dict[str, Any]:
        """Return what is written to a file."""
        known = {key: value for key, value in vars(self).items()
                 if key not in ('make', 'contenders')}
        return dict(known, rows=[row.known() for row in self.rows])


def combinations(scope: Scope) -> Iterator[tuple]:
    """Yield rank, arch, size, batch and dtype. b2 has the first rank."""
    archs = sorted(scope.arch, key=lambda arch: (arch != 'b2', arch))
    for numbered in product(*map(
            enumerate, (archs, scope.size, scope.batch, scope.dtype))):
        ranks, values = zip(*numbered)
        yield sum(ranks), *values


def stages(arch: str | dict, size: Iterable[int]
           ) -> Iterator[tuple[int, int, int]]:
    """Yield channels, height and width of the stages."""
    kernel, stride, padding = 7, 4, 2
    settings = CycleNet.arch_settings[arch] if isinstance(arch, str) else arch
    for channels in settings['embed_dims']:
        size = [(s + 2 * padding - kernel) // stride + 1 for s in size]
        kernel, stride, padding = 3, 2, 1
        yield channels, *size


class Layer(NamedTuple):
    """An op or a module.

    Attributes:
        maps: The least passes over the map: forward, and with gradients.
        products: Number of C x C products at each position.
    """

    question: str
    maps: tuple[int, int]
    products: float


OP = Layer('op', (2, 5), 1)
MIXER = Layer('mixer', (3, 6), 7 / 3)


def layer_case(layer: Layer, device: torch.device, shape: Shape, dtype: str,
               backward: bool, contenders: list[Contender], rank: int = 0
               ) -> Case:
    """Return the case of a layer on a map of ``shape``."""
    n, height, width, c = shape
    times, numbers = 1 + 2 * backward, math.prod(shape)
    nbytes = DTYPES[dtype].itemsize * (
        layer.maps[backward] * numbers
        + times * math.ceil(layer.products) * c**2)
    return Case(
        layer.question, f'{n}x{c}x{height}x{width} {dtype} '
        f'{"fwd+bwd" if backward else "forward"}', rank, dtype, contenders,
        partial(make_layer, layer.question, device, shape, dtype, backward),
        f'{c} {dtype} {backward}',
        (nbytes, times * 2 * layer.products * numbers * c),
        dict(shape=shape, backward=backward))


def layer_cases(layer: Layer, others: list[Contender], scope: Scope
                ) -> Iterator[Case]:
    """Yield the cases of a layer, at the stages of the networks."""
    ours = [TRITON] if scope.device.type == 'cuda' else []
    seen = set()
    for rank, arch, size, batch, dtype in combinations(scope):
        for c, height, width in stages(arch, size):
            shape = (batch, height, width, c)
            if (shape, dtype) not in seen:
                seen.add((shape, dtype))
                for backward in (False, True):
                    yield layer_case(
                        layer, scope.device, shape, dtype, backward,
                        [OFFICIAL, *ours, TORCH, *others], rank)


def net_case(train: bool, device: torch.device, arch: str | dict,
             size: tuple[int, int], batch: int, dtype: str,
             contenders: list[Contender], rank: int = 0,
             name: str | None = None) -> Case:
    """Return the case of a network. A dict ``arch`` needs a ``name``."""
    name = name or arch
    return Case(
        'train' if train else 'backbone',
        f'{name} {size[0]}x{size[1]} batch {batch} {dtype}', rank, dtype,
        contenders, partial(make_net, device, arch, size, batch, dtype, train),
        f'{name} {dtype}',
        settings=dict(arch=arch, name=name, size=size, batch=batch))


def net_cases(train: bool, scope: Scope) -> Iterator[Case]:
    """Yield the cases of networks. Those of the first arch have peers."""
    first, gpu = None, scope.device.type == 'cuda'
    # On a GPU the table names the backend.
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


# Name -> ``(scope)``, which yields the cases.
QUESTIONS: dict[str, Callable[[Scope], Iterator[Case]]] = {
    'op': partial(layer_cases, OP, [LINEAR]),
    'mixer': partial(layer_cases, MIXER, [TEXTBOOK.runs('compiled')]),
    'backbone': partial(net_cases, False),
    'train': partial(net_cases, True),
}
