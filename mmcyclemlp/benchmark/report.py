"""Report what was measured: the machine, tables, JSON."""

from __future__ import annotations

import datetime
import importlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .cases import Case, Row
from .contenders import OFFICIAL

# Bytes/s and operations/s in half (dense) and in single precision, from
# NVIDIA's data sheets.
PEAKS = {'H100 80GB HBM3': (3.35e12, 989e12, 67e12),
         'H200': (4.8e12, 989e12, 67e12)}


def short(number: float | None) -> str:
    """Format a number with three significant digits."""
    if not number:
        return '0'
    return f'{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}'


def machine(device: torch.device) -> dict[str, Any]:
    """Return the hardware, the versions and the load of this machine."""
    info = Path('/proc/cpuinfo')
    found = info.exists() and re.search('model name.*: (.*)',
                                        info.read_text())
    known = dict(
        date=datetime.datetime.now().astimezone().isoformat('T', 'minutes'),
        cpu=found[1] if found else platform.processor(),
        threads=torch.get_num_threads(),
        # Above 0 at the start, other programs use the same cores.
        load=f'{os.getloadavg()[0]:.1f}',
        python=platform.python_version(), torch=torch.__version__)
    for name in ('triton', 'torchvision', 'timm', 'mmcyclemlp'):
        try:
            known[name] = importlib.import_module(name).__version__
        except (ImportError, RuntimeError):
            known[name] = None
    if device.type == 'cuda':
        known.update(gpu=torch.cuda.get_device_name(device),
                     cuda=torch.version.cuda)
    return known


def floor(case: Case, gpu: str | None) -> float | None:
    """Return the least seconds of a layer, or None if the GPU is unknown.

    Args:
        case: A case of a layer or a network.
        gpu: Name of the GPU in CUDA. None on a CPU.
    """
    if case.traffic is None or gpu is None:
        return None
    for known, (bandwidth, half, single) in PEAKS.items():
        if known in gpu:
            nbytes, operations = case.traffic
            rate = single if case.dtype == 'fp32' else half
            return max(nbytes / bandwidth, operations / rate)
    return None


def cells(row: Row, case: Case, official: float | None, least: float | None
          ) -> list[str]:
    """Return the cells of a contender in the table."""
    label, seconds = f'  {row.contender.label}', row.median
    if seconds is None:
        return [label, row.status]
    line = [label, short(seconds * 1e3), ' .. '.join(
        short(1e3 * s) for s in (min(row.samples), max(row.samples))),
        str(len(row.samples)), short(official / seconds) if official else '']
    if case.traffic:
        nbytes, operations = case.traffic
        return [*line, short(nbytes / seconds / 1e9),
                short(operations / seconds / 1e12),
                f'{least / seconds:.0%}' if least else '']
    return [*line, short(row.peak_bytes / 2**20) if row.peak_bytes else '']


def table(question: str, cases: list[Case], gpu: str | None
          ) -> Iterator[str]:
    """Yield the lines of a table, and the reasons for missing times."""
    layer = cases[0].traffic is not None
    lines = [[question, 'ms', 'min .. max', 'rounds', 'x official', *(
        ['GB/s', 'TFLOP/s', 'of floor'] if layer else ['peak MiB'])]]
    reasons: dict[str, None] = {}
    for case in cases:
        least = floor(case, gpu)
        lines.append([case.label])
        if all(row.status == 'no time' for row in case.rows):
            lines[-1].append('no time')
            continue
        if layer:
            nbytes, operations = case.traffic
            lines[-1] += [''] * 4 + [
                f'{short(nbytes / 1e6)} MB',
                f'{short(operations / 1e9)} GFLOP',
                f'{short(least * 1e6)} us' if least else '']
        official = next((row.median for row in case.rows
                         if row.contender == OFFICIAL), None)
        for row in case.rows:
            lines.append(cells(row, case, official, least))
            if row.reason:
                reasons[f'- {row.contender.label}: {row.status}: '
                        f'{row.reason}'] = None
    lines = [line + [''] * (len(lines[0]) - len(line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ['-' * width for width in widths])
    for first, *rest in lines:
        yield '| ' + ' | '.join([first.ljust(widths[0]), *map(
            str.rjust, rest, widths[1:])]) + ' |'
    yield from reasons


def save(path: Path, known: dict[str, Any], cases: list[Case]) -> None:
    """Write the machine and every sample of the cases as JSON."""
    path.write_text(json.dumps(
        dict(machine=known, cases=[case.known() for case in cases]),
        indent=1))


def at_fault(cases: list[Case]) -> bool:
    """Return whether one of our contenders is wrong or failed.

    One that is compiled may fail, since a compiler may be missing.
    """
    return any(
        row.status == 'wrong' or (
            row.status == 'failed' and row.contender.checked
            and not row.contender.compiles)
        for case in cases for row in case.rows)
