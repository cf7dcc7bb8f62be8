"""Which tiles a kernel takes: measured, tuned at first use, or by a rule.

Tiles depend on channels, dtype and direction, and never on the batch or on
the size of the images. So images of all sizes share one kernel.
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
    """How a kernel is cut up.

    ``m`` positions by ``n`` outputs by ``k`` inputs. In ``'dweight'`` it is
    ``n`` outputs by ``k`` channels, summed over ``m`` positions at a time.
    ``width`` is the width of a rectangle of positions, or 0 if they follow
    each other. With ``moves_last`` the gradient of the input is one product
    whose results move before they are written.
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
    """What was measured of a key on some GPU."""

    tiles: Tiles
    us: float  # of the kernel
    torch_us: float  # of the same product in backend 'torch'


# Tiles that were tuned in this process, by index of the device and key.
_tuned: dict[tuple[int, Key], Tiles] = {}


def choose(key: Key, device: torch.device) -> Tiles:
    """The tiles to launch with. It only looks them up.

    What was measured on a GPU of this capability comes first, then what
    :func:`tune` has found, then the rule.
    """
    if device.type != 'cuda':
        return rule(key)
    known = measured(key, torch.cuda.get_device_capability(device))
    if known is not None:
        return known.tiles
    return _tuned.get((device.index, key)) or rule(key)


def measured(key: Key, capability: tuple[int, int]) -> Measured | None:
    """What the repository knows of a key on GPUs of this capability.

    Figures of bfloat16 count for float16 too: both have the same size, and
    the same rate on tensor cores.
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
    """Whether the kernels were measured faster than backend ``'torch'``.

    That is the sum over the three directions. Without a measurement on a
    GPU of this capability the answer is no.
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
    """Choose tiles by timing a short list, once for a device.

    ``triton.autotune`` would time the arguments of the first call. A first
    image that is small would then decide for all. Here the data are drawn,
    of a size that a network has at so many channels. The result is kept
    beside Triton's cache, so later processes take the same tiles.

    Args:
        key: What to choose tiles for.
        device: A GPU.
        make_call: ``(key, device)``, returns what runs the kernel with
            given tiles.
        source: What the result depends on besides key and device, such as
            the hash of the kernels.
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
        # Another process may have finished first, and then it decides. The
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
    """The tiles whose call takes the least time.

    Tiles that need more shared memory than the GPU has are passed over.
    The first are taken if none can run.
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
    """Tiles that are worth timing at first use; the rule's come first."""
    first = rule(key)
    if key.dtype == 'float32':
        return [first]
    m, warps = (64, 4) if first.m == 128 else (128, 8)
    return list(dict.fromkeys([
        first,
        first._replace(m=m, warps=warps),
        first._replace(k=_block(key.summed, 64)),
        # Loads that are pipelined, or not.
        first._replace(stages=1 if first.stages > 1 else 3)]))


@cache
def rule(key: Key) -> Tiles:
    """Tiles for a GPU on which nothing was measured.

    They are chosen by what the compiler says. In half precision nothing
    spills on sm_80 and sm_90, and on sm_90 two blocks or more fit a
    multiprocessor nearly always. Loads go through the first-level cache,
    where the moved rows of a tile meet; stages above 1 would bypass it.
    """
    single, three = key.dtype == 'float32', key.branches == 3
    summed, written = key.summed, key.written
    width = _rectangle(key)
    if key.direction == 'dweight':
        m, n, k = ((16, 64, 32) if single else (64, 64, 32) if three
                   else (64, 128, 64))
        return Tiles(m, _block(written, n), _block(summed, k), width, 8)
    # Where channels are few, memory is the limit, and one product for each
    # offset costs nothing.
    if key.can_move_last and written > 64:
        if single:
            return Tiles(64, _block(written, 64), 16, 0, 8, moves_last=True)
        return Tiles(64, _block(written, 128), 64, 0, 8, stages=3,
                     moves_last=True)
    if single:
        return Tiles(64, _block(written, 64), 16, width, 8)
    # Up to 128 outputs are one program's: the fewer programs, the fewer
    # reads. A derivative holds more at a time.
    n = _block(written, 128 if key.direction == 'y' else 64)
    k = 64 if summed <= 64 else 32
    if three and (n == 128 or key.direction == 'dx'):
        return Tiles(64, n, k if key.direction == 'y' else 32, width, 4)
    return Tiles(128, n, k, width, 8)


def _block(size: int, most: int) -> int:
    """Power of two that covers ``size``; tl.dot takes no less than 16."""
    return min(max(16, 1 << (size - 1).bit_length()), most)


def _rectangle(key: Key) -> int:
    """Width of a rectangle where channels are few and move vertically.

    Then the neighbors above and below are in the first-level cache. With
    many channels a rectangle does not fit there.
    """
    vertical = key.size_h > 1 or (key.branches == 3 and key.size_w > 1)
    return 8 if key.summed <= 128 and vertical else 0
