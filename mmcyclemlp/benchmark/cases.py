"""What is compared: questions, their cases, and a row for each contender."""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Callable

import torch

from ..backbones import CycleNet
from . import calls
from .calls import Call, Contender, Shape

# The least passes over the map, forward and with gradients, and the number of
# C x C products at each position.
LAYERS = {'op': ((2, 5), 1), 'mixer': ((3, 6), 7 / 3)}


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

    @property
    def median(self) -> float | None:
        """Median of the samples, in seconds."""
        return statistics.median(self.samples) if self.samples else None


@dataclass
class Case:
    """One comparison, in which contenders take turns on the same work."""

    question: str
    label: str
    rank: int  # Cases of rank 0 are measured first.
    dtype: str
    contenders: list[Contender]
    make: Callable[..., Call]  # of (contender, small, exact), see .calls
    traffic: tuple[float, float] | None = None  # of a layer, see floor
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(contender) for contender in self.contenders]

    def known(self) -> dict[str, Any]:
        """Return what is written to a file."""
        known = dict(vars(self), rows=[
            dict(vars(row), contender=row.contender.label, median=row.median)
            for row in self.rows])
        del known['make'], known['contenders']
        return known


def combinations(args: Namespace) -> Iterator[tuple]:
    """Yield rank, arch, size, batch and dtype. b2 has the first rank."""
    archs = sorted(args.arch, key=lambda arch: (arch != 'b2', arch))
    for numbered in product(*map(
            enumerate, (archs, args.size, args.batch, args.dtype))):
        ranks, values = zip(*numbered)
        yield sum(ranks), *values


def stages(arch: str, size: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Yield channels, height and width of the stages."""
    dims = CycleNet.arch_settings[arch]['embed_dims']
    for stage, channels in enumerate(dims):
        # Convolutions: 7x7, stride 4, padding 2; 3x3, stride 2, padding 1.
        size = [(side + 1) // (2 if stage else 4) for side in size]
        yield channels, *size


def layer_case(layer: str, device: torch.device, shape: Shape, dtype: str,
               backward: bool, contenders: list[Contender], rank: int = 0
               ) -> Case:
    """Return the case of a key of ``LAYERS`` on a map of ``shape``."""
    n, height, width, c = shape
    maps, products = LAYERS[layer]
    times, numbers = 1 + 2 * backward, math.prod(shape)
    nbytes = calls.DTYPES[dtype].itemsize * (
        maps[backward] * numbers + times * math.ceil(products) * c**2)
    return Case(
        layer, f'{n}x{c}x{height}x{width} {dtype} '
        f'{"fwd+bwd" if backward else "forward"}', rank, dtype, contenders,
        partial(calls.make_layer, layer, device, shape, dtype, backward),
        (nbytes, times * 2 * products * numbers * c),
        dict(shape=shape, backward=backward))


def layer_cases(layer: str, others: list[Contender], args: Namespace
                ) -> Iterator[Case]:
    """Yield the cases of a layer, at the stages of the networks."""
    ours = [calls.TRITON] if args.device.type == 'cuda' else []
    found: dict[tuple, int] = {}
    for rank, arch, size, batch, dtype in combinations(args):
        for c, height, width in stages(arch, size):
            found.setdefault((batch, height, width, c, dtype), rank)
    for (*shape, dtype), rank in found.items():
        for backward in (False, True):
            yield layer_case(
                layer, args.device, tuple(shape), dtype, backward,
                [calls.OFFICIAL, *ours, calls.TORCH, *others], rank)


def net_case(train: bool, device: torch.device, arch: str | dict,
             size: tuple[int, int], batch: int, dtype: str,
             contenders: list[Contender], rank: int = 0,
             name: str | None = None) -> Case:
    """Return the case of a network. A dict ``arch`` needs a ``name``."""
    name = name or arch
    return Case(
        'train' if train else 'backbone',
        f'{name} {size[0]}x{size[1]} batch {batch} {dtype}', rank, dtype,
        contenders, partial(
            calls.make_net, device, arch, size, batch, dtype, train),
        settings=dict(arch=arch, name=name, size=size, batch=batch))


def net_cases(train: bool, args: Namespace) -> Iterator[Case]:
    """Yield the cases of networks. Those of the first arch have peers."""
    first, gpu = None, args.device.type == 'cuda'
    # On a GPU the table names the backend.
    ours = [calls.OFFICIAL, *(
        [calls.TORCH, calls.TRITON] if gpu else [calls.OURS])]
    fastest = ours[-1]
    peers = [Contender(name, 'peer') for name in calls.PEERS]
    if gpu and not train:
        ours.append(fastest.runs('graph'))
    if gpu or not train:
        ours += [fastest.runs('compiled'), calls.TEXTBOOK.runs('compiled')]
        peers += [one.runs('compiled') for one in peers]
    for rank, arch, size, batch, dtype in combinations(args):
        first = first or arch
        yield net_case(train, args.device, arch, size, batch, dtype,
                       ours + peers * (arch == first), rank)


# Name -> ``(args)``, which yields the cases of arguments of the command.
QUESTIONS: dict[str, Callable[[Namespace], Iterator[Case]]] = {
    'op': partial(layer_cases, 'op', [calls.LINEAR]),
    'mixer': partial(layer_cases, 'mixer', [calls.TEXTBOOK.runs('compiled')]),
    'backbone': partial(net_cases, False),
    'train': partial(net_cases, True),
}
