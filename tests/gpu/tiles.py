"""Step ``tiles``: time a grid of tiles for each kernel."""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark.bench import distance, seconds_of
from mmcyclemlp.ops import torch_backend as shift  # noqa: F401  it registers ops
from mmcyclemlp.ops.triton.tiles import Key, Tiles, rule, short_list

from .compiler import resources, without_interpreter
from .step import Step

TOLERANCE = 2e-2  # |difference| / |backend 'torch'|, in half precision
COMPILING = 0.35  # largest share of the time left to wait for compiling
DIRECTIONS = ('y', 'dx', 'dweight')


def groups(miniature: bool) -> list[list[Key]]:
    """Return groups of keys to compile together, most important first."""
    if miniature:
        return [[Key('y', 3, 16, 16, 1, 3, 'float16'),
                 Key('dx', 1, 16, 16, 3, 1, 'float16'),
                 Key('dweight', 3, 16, 16, 1, 3, 'float16')]]
    return [[Key(direction, branches, channels, channels, *kernel, 'bfloat16')
             for channels in CycleNet.arch_settings[arch]['embed_dims']
             for direction in DIRECTIONS for kernel in kernels]
            for branches, kernels in ((3, [(1, 3)]), (1, [(1, 3), (3, 1)]))
            for arch in ('b1', 'b5')]


def first_grid(key: Key) -> list[Tiles]:
    """Return the short list, and a grid of m, n, k and stages."""
    start = rule(key)
    found = [*short_list(key)]
    for m in (64, 128):
        for n in (64, 128):
            for k in (32, 64):
                for stages in (1, 3):
                    if n == 64 or key.written > 64:
                        found.append(start._replace(
                            m=m, n=n, k=k, stages=stages,
                            warps=4 if m * n < 2**13 else 8))
    return list(dict.fromkeys(found))


def second_grid(key: Key, best: Tiles) -> list[Tiles]:
    """Return tiles that differ in one number from the best ones so far.

    There are no clusters of blocks (``num_ctas``): Triton 3.6 fails to
    compile three of these four kernels with them.
    """
    found = [best._replace(warps=2 * best.warps),
             best._replace(warps=best.warps // 2),
             best._replace(stages=2), best._replace(stages=4),
             best._replace(m=best.m // 2), best._replace(m=2 * best.m),
             best._replace(n=2 * best.n), best._replace(k=2 * best.k)]
    if best.moves_last:
        found.append(best._replace(moves_last=False))
    else:
        found += [best._replace(width=width) for width in (0, 8, 16)]
        if key.can_move_last:
            found.append(best._replace(width=0, moves_last=True))
    return [one for one in dict.fromkeys(found)
            if one != best and one.warps in (1, 2, 4, 8, 16)
            and 32 <= one.m <= 256]


class Tuning:
    """Compile, time and check tiles, and record the figures of the step."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.capability = (torch.cuda.get_device_capability()
                           if step.device.type == 'cuda' else (9, 0))
        self.pool = None
        figures = step.figures
        figures.setdefault('keys', {})
        figures['capability'] = self.capability
        if figures.get('at'):
            # The earlier process crashed while it ran these tiles.
            name, tiles = figures['at']
            figures['keys'][name]['tiles'].append(
                dict(tiles=tiles, failed='the process crashed',
                     fault=True))
        figures['at'] = None
        if 'ceilings' not in figures:
            step.record(ceilings=self.ceilings())

    def seconds(self, call) -> float:
        """Return the median time of a call whose inputs are not cached."""
        return seconds_of(call, self.step.device)

    def ceilings(self) -> dict:
        """Measure bytes/s of a copy and operations/s of a matrix product."""
        size = 2**6 if self.step.miniature else 2**13
        a, b = (torch.randn(size, size, device=self.step.device).bfloat16()
                for _ in '12')
        big = torch.empty(size**2 * 16, dtype=torch.int8,
                          device=self.step.device)
        target = torch.empty_like(big)
        self.seconds(lambda: a @ b)
        return dict(
            bytes=2 * big.numel() / self.seconds(lambda: target.copy_(big)),
            operations=2 * size**3 / self.seconds(lambda: a @ b))

    def floor(self, key: Key, x, dy, weight, shortcut) -> float:
        """Return the least seconds for the kernel's memory and products."""
        nbytes = sum(t.nbytes for t in (x, dy, weight))
        if shortcut is not None and key.direction == 'y':
            nbytes += shortcut.nbytes
        columns = 7 / 3 if key.branches == 3 else 1
        operations = 2 * x.numel() * key.outputs * columns
        ceilings = self.step.figures['ceilings']
        return max(nbytes / ceilings['bytes'],
                   operations / ceilings['operations'])

    def submit(self, wanted: list[tuple[Key, Tiles]]) -> list[tuple]:
        """Start to compile in other processes those that are not known."""
        capability = 10 * self.capability[0] + self.capability[1]
        if self.pool is None:
            workers = 1 if self.step.miniature else max(1, os.cpu_count() - 1)
            self.pool = ProcessPoolExecutor(workers, get_context('spawn'))
        with without_interpreter():
            return [(key, tiles, self.pool.submit(
                resources, capability, tuple(key), tuple(tiles)))
                for key, tiles in wanted if tiles not in self.known(key)]

    def collect(self, pending: list[tuple], again: bool = True) -> list[tuple]:
        """Wait for compilations; return keys, tiles and their resources."""
        wait([future for *_, future in pending],
             COMPILING * self.step.left())
        done, lost = [], []
        for key, tiles, future in pending:
            if future.cancel() or not future.done():
                continue
            error = future.exception()
            if error is None:
                done.append((key, tiles, future.result()))
            elif isinstance(error, BrokenProcessPool):
                # When tiles crash a compiler, the whole pool is lost.
                self.pool = None
                lost.append((key, tiles))
            else:
                self.note(key, tiles,
                          failed=f'{type(error).__name__}: {error}'[:300])
        if lost and again:
            done += self.collect(self.submit(lost), again=False)
        return done

    def note(self, key: Key, tiles: Tiles, **known) -> None:
        of_key = self.step.figures['keys'].setdefault(
            key.name, dict(tiles=[]))
        of_key['tiles'].append(dict(tiles=tiles, **known))

    def known(self, key: Key) -> dict[Tiles, dict]:
        of_key = self.step.figures['keys'].get(key.name, dict(tiles=[]))
        return {Tiles(*one['tiles']): one for one in of_key['tiles']}

    def best(self, key: Key) -> Tiles | None:
        timed = {tiles: one['us'] for tiles, one in self.known(key).items()
                 if 'us' in one}
        return min(timed, key=timed.get, default=None)

    def time(self, key: Key, compiled: list[tuple[Tiles, dict]]) -> None:
        """Check and time the tiles of a key."""
        product = importlib.import_module('mmcyclemlp.ops.triton.launch')
        shape = (2, 3, 4) if self.step.miniature else None
        # draw and make_call use the same data.
        tensors = product.draw(key, self.step.device, shape)
        call = product.make_call(key, self.step.device, shape)
        in_torch = torch_call(key, *tensors)
        expected = in_torch()
        of_key = self.step.figures['keys'].setdefault(
            key.name, dict(tiles=[]))
        if 'torch_us' not in of_key:
            x, dy, weight, _, shortcut = tensors
            of_key |= dict(
                torch_us=1e6 * self.seconds(in_torch),
                floor_us=1e6 * self.floor(key, x, dy, weight, shortcut))
            self.step.figures['keys'][key.name] = of_key
        for tiles, needs in compiled:
            if self.step.left() < 1:
                break
            self.step.record(at=[key.name, tiles])
            self.note(key, tiles, **needs, **self.attempt(
                call, tiles, expected))
        self.step.record(at=None, table=self.table())

    def prove(self, key: Key) -> None:
        """Compare the best tiles with float64, on a map of odd size.

        Wrong tiles are recorded as a fault, and the next best are tried.
        """
        product = importlib.import_module('mmcyclemlp.ops.triton.launch')
        shape = (2, 3, 5) if self.step.miniature else (3, 17, 31)
        tensors = product.draw(key, self.step.device, shape)
        call = product.make_call(key, self.step.device, shape)
        expected = torch_call(key, *(
            t if t is None else t.double() for t in tensors))()
        while (best := self.best(key)) is not None:
            self.step.record(at=[key.name, best])
            first, second = call(best), call(best)
            error = distance([first], [expected])
            entry = self.known(key)[best]
            if error <= TOLERANCE and torch.equal(first, second):
                entry['proved'] = error
                break
            entry.update(fault=True, failed=f'off by {error:.1e} at {shape}, '
                         f'or two runs differ ({entry.pop("us"):.1f} us)')
        self.step.record(at=None, table=self.table())

    def attempt(self, call, tiles, expected) -> dict:
        """Return the time and the error of a call, or why it failed."""
        try:
            error = distance([call(tiles)], [expected])
            if error > TOLERANCE:
                return dict(failed=f'wrong: off by {error:.1e}', fault=True)
            return dict(us=1e6 * self.seconds(lambda: call(tiles)),
                        error=error)
        except Exception as refusal:
            if self.step.device.type == 'cuda':
                # It raises after an illegal memory access, which ends us.
                torch.cuda.synchronize()
            return dict(failed=f'{type(refusal).__name__}: {refusal}'[:300])

    def table(self) -> list[str]:
        """Return a line for each key: the best tiles, and what to compare."""
        lines = ['key | us | of floor | rule us | torch us | registers, '
                 'spilled | m n k width warps stages last']
        for name, of_key in self.step.figures['keys'].items():
            timed = [one for one in of_key['tiles'] if 'us' in one]
            failed = [one for one in of_key['tiles'] if one.get('fault')]
            if timed:
                best = min(timed, key=lambda one: one['us'])
                text = ' '.join(map(str, map(int, best['tiles'])))
                lines.append(
                    f'{name.replace("-bfloat16", "")} | {best["us"]:.1f} | '
                    f'{of_key["floor_us"] / best["us"]:.0%} | '
                    f'{timed[0]["us"]:.1f} | {of_key["torch_us"]:.1f} | '
                    f'{best["registers"]}, {best["spilled"]} | {text}')
            elif of_key['tiles']:
                lines.append(f'- {name}: no tiles could be timed; the first: '
                             f'{of_key["tiles"][0]["failed"]}')
            if failed:
                lines.append(f'- {name}: {len(failed)} tiles are at fault; '
                             f'the first, {[*failed[0]["tiles"]]}: '
                             f'{failed[0]["failed"]}')
        return lines


def torch_call(key: Key, x, dy, weight, bias, shortcut):
    """Return a function for the same product in backend ``'torch'``."""
    ops, sizes = torch.ops.mmcyclemlp, (key.size_h, key.size_w)
    calls = {
        'y': lambda: ops.product_torch(x, weight, bias, shortcut, *sizes),
        'dx': lambda: ops.product_torch_backward_x(dy, weight, *sizes),
        'dweight': lambda: ops.product_torch_backward_weight(
            x, dy, *sizes, key.branches, key.branches == 1)[0]}
    return calls[key.direction]


@torch.no_grad()
def measure(step: Step) -> None:
    """Compile, time and prove two grids for each group of keys."""
    tuning = Tuning(step)
    grouped = groups(step.miniature)
    some = slice(2 if step.miniature else None)

    def first(number):
        return tuning.submit([(key, tiles) for key in grouped[number]
                              for tiles in first_grid(key)[some]])

    def time_and_prove(group, compiled):
        for key in group:
            tuning.time(key, [(tiles, needs) for one, tiles, needs
                              in compiled if one == key])
            if step.left() > 1:
                tuning.prove(key)

    pending = first(0)
    for number, group in enumerate(grouped):
        compiled = tuning.collect(pending)
        if number + 1 < len(grouped):
            # The next group compiles while this one is timed.
            pending = first(number + 1)
        time_and_prove(group, compiled)
        near = tuning.submit([
            (key, tiles) for key in group if tuning.best(key)
            for tiles in second_grid(key, tuning.best(key))[some]])
        time_and_prove(group, tuning.collect(near))
        if step.left() < 2:
            break
    if tuning.pool is not None:
        tuning.pool.shutdown(wait=False, cancel_futures=True)
