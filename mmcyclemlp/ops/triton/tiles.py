"""Choose the tiles of a kernel: measured, tuned at first use, or by a rule.

Tiles depend on channels, dtype and direction. They never depend on the batch
or on the size of the images, so one kernel serves images of all sizes.
"""

from __future__ import annotations

import contextlib
import json
from functools import cache
from hashlib import sha256
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from .measured import MEASURED


class Tiles(NamedTuple):
    """How the work of a kernel is divided.

    A tile has ``m`` positions, ``n`` outputs and ``k`` inputs. In
    ``'dweight'`` it has ``n`` outputs and ``k`` channels, and sums over
    ``m`` positions at a time. ``width`` is the width of a rectangle of
    positions, or 0 if the positions follow each other in memory. With
    ``moves_last``, ``dx`` is one product whose results are moved before
    they are written.
    """

    m: int
    n: int
    k: int
    width: int
    warps: int
    stages: int = 1
    moves_last: bool = False


class Key(NamedTuple):
    """What the tiles depend on.

    ``direction`` is ``'y'``, ``'dx'`` or ``'dweight'``, and ``dtype`` the
    name of a dtype of torch.
    """

    direction: str
    branches: int
    channels: int
    outputs: int
    size_h: int
    size_w: int
    dtype: str

    @classmethod
    def of(cls, direction: str, x: Tensor, weight_shape: torch.Size,
           kernel_size: tuple[int, int]) -> Key:
        """The key of a product of ``x`` with (B, R, O, C) weights."""
        _, branches, outputs, channels = weight_shape
        return cls(direction, branches, channels, outputs, *kernel_size,
                   str(x.dtype).replace('torch.', ''))

    @property
    def name(self) -> str:
        """The key as text, for tables and files."""
        return (f'{self.direction}-{self.branches}-{self.channels}-'
                f'{self.outputs}-{self.size_h}x{self.size_w}-{self.dtype}')

    @property
    def summed(self) -> int:
        """Channels of the map that is read, over which a product sums."""
        return self.outputs if self.direction == 'dx' else self.channels

    @property
    def written(self) -> int:
        """Channels of the result, or rows of the weight's gradient."""
        return self.channels if self.direction == 'dx' else self.outputs

    @property
    def can_move_last(self) -> bool:
        """Whether ``moves_last`` is possible."""
        sizes = self.size_h, self.size_w
        return (self.direction == 'dx' and self.branches == 1
                and min(sizes) == 1 < max(sizes) < 16)


class Measured(NamedTuple):
    """What was measured for a key on a GPU."""

    tiles: Tiles
    us: float  # of the kernel
    torch_us: float  # of the same product in backend 'torch'


# Tiles that were tuned in this process, by index of the device and key.
_tuned: dict[tuple[int, Key], Tiles] = {}


def choose(key: Key, device: torch.device) -> Tiles:
    """Look up the tiles for a launch.

    Tiles measured on a GPU of this capability come first, then those that
    :func:`tune` has found, then those of the rule.
    """
    if device.type != 'cuda':
        return rule(key)
    known = measured(key, torch.cuda.get_device_capability(device))
    if known is not None:
        return known.tiles
    return _tuned.get((device.index, key)) or rule(key)


def measured(key: Key, capability: tuple[int, int]) -> Measured | None:
    """Look up a key for GPUs of this capability in ``MEASURED``.

    Figures of bfloat16 are also used for float16: both have the same size
    and the same speed on tensor cores.
    """
    if key.dtype == 'float16':
        key = key._replace(dtype='bfloat16')
    known = MEASURED.get(capability, {}).get(key.name)
    if known is None:
        return None
    tiles, us, torch_us = known
    return Measured(Tiles(*tiles), us, torch_us)


def is_measured_faster(branches: int, channels: int, outputs: int,
                       kernel_size: tuple[int, int], dtype: torch.dtype,
                       capability: tuple[int, int]) -> bool:
    """Check whether the kernels were measured faster than backend ``'torch'``.

    The times of the three directions are added. Without a measurement on a
    GPU of this capability the result is False.
    """
    dtype = str(dtype).replace('torch.', '')
    found = [measured(Key(direction, branches, channels, outputs,
                          *kernel_size, dtype), capability)
             for direction in ('y', 'dx', 'dweight')]
    return None not in found and (
        sum(one.us for one in found) < sum(one.torch_us for one in found))


def tune(key: Key, device: torch.device,
         make_call: Callable[[Key, torch.device], Callable[[Tiles], None]],
         source: str) -> None:
    """Choose tiles by timing a short list, once for each device.

    ``triton.autotune`` would time the arguments of the first call, so a
    small first image would decide for all. Here the data is drawn, in a
    size that a network has with this number of channels. The result is
    stored in Triton's cache, so later processes use the same tiles.

    Args:
        key: What to choose tiles for.
        device: A GPU.
        make_call: ``(key, device)``, returns a function that runs the
            kernel with given tiles.
        source: Text of what the result depends on besides key and device,
            such as the hash of the kernels.
    """
    tiles = short_list(key)
    if len(tiles) < 2 or (device.index, key) in _tuned or measured(
            key, torch.cuda.get_device_capability(device)):
        return
    from triton.runtime.cache import get_cache_manager

    text = json.dumps([key, tiles, source,
                       torch.cuda.get_device_name(device)])
    cache = get_cache_manager(sha256(text.encode()).hexdigest())
    name = f'{key.name}.json'
    best = None
    if cache.get_file(name) is None:
        best = fastest(tiles, make_call(key, device))
        # If another process has finished first, its result is used. The
        # folder may be read-only.
        if cache.get_file(name) is None:
            with contextlib.suppress(OSError):
                cache.put(json.dumps(best), name, binary=False)
    path = cache.get_file(name)
    if path is not None:
        with open(path) as file:
            best = Tiles(*json.load(file))
    _tuned[device.index, key] = best


def fastest(tiles: list[Tiles], call: Callable[[Tiles], None]) -> Tiles:
    """Return the tiles whose call takes the least time.

    Tiles that need more shared memory than the GPU has are skipped. If no
    tiles can run, the first ones are returned.
    """
    from triton import testing
    from triton.runtime.errors import OutOfResources

    seconds = {}
    for one in tiles:
        try:
            seconds[one] = testing.do_bench(
                lambda one=one: call(one), warmup=5, rep=20,
                return_mode='median')
        except OutOfResources:
            continue
    return min(seconds, key=seconds.get, default=tiles[0])


def short_list(key: Key) -> list[Tiles]:
    """Return the tiles to time at first use; those of the rule come first."""
    first = rule(key)
    if key.dtype == 'float32':
        return [first]
    m, warps = (64, 4) if first.m == 128 else (128, 8)
    return list(dict.fromkeys([
        first,
        first._replace(m=m, warps=warps),
        first._replace(k=_block(key.summed, 64)),
        # The same with or without pipelined loads.
        first._replace(stages=1 if first.stages > 1 else 3)]))


@cache
def rule(key: Key) -> Tiles:
    """Return tiles for a GPU on which nothing was measured.

    They were chosen from the compiler's reports. In half precision no
    register spills on sm_80 and sm_90. On sm_90 two or more blocks nearly
    always fit on a multiprocessor. Loads go through the first-level cache,
    because the moved rows of a tile overlap there. With more than one stage
    they would bypass it.
    """
    single, three = key.dtype == 'float32', key.branches == 3
    summed, written = key.summed, key.written
    width = _rectangle(key)
    if key.direction == 'dweight':
        m, n, k = ((16, 64, 32) if single else (64, 64, 32) if three
                   else (64, 128, 64))
        return Tiles(m, _block(written, n), _block(summed, k), width, 8)
    # With few channels, memory limits the speed, and one product for each
    # offset costs no time.
    if key.can_move_last and written > 64:
        if single:
            return Tiles(64, _block(written, 64), 16, 0, 8, moves_last=True)
        return Tiles(64, _block(written, 128), 64, 0, 8, stages=3,
                     moves_last=True)
    if single:
        return Tiles(64, _block(written, 64), 16, width, 8)
    # A program has up to 128 outputs, because fewer programs read less. A
    # derivative needs more registers, so it has up to 64.
    n = _block(written, 128 if key.direction == 'y' else 64)
    k = 64 if summed <= 64 else 32
    if three and (n == 128 or key.direction == 'dx'):
        return Tiles(64, n, k if key.direction == 'y' else 32, width, 4)
    return Tiles(128, n, k, width, 8)


def _block(size: int, most: int) -> int:
    """Return a power of two, at least ``size`` if ``most`` allows it.

    It is at least 16, the smallest size that tl.dot accepts.
    """
    return min(max(16, 1 << (size - 1).bit_length()), most)


def _rectangle(key: Key) -> int:
    """Return the width of a rectangle of positions, or 0 for none.

    Few channels that move vertically get a rectangle: the rows above and
    below are then in the first-level cache. With many channels a rectangle
    does not fit there.
    """
    vertical = key.size_h > 1 or (key.branches == 3 and key.size_w > 1)
    return 8 if key.summed <= 128 and vertical else 0
