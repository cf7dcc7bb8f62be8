"""Report what was measured: the machine and tables."""

from __future__ import annotations

import datetime
import math
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..version import __version__
from .calls import OFFICIAL
from .cases import Case

# Bytes/s and operations/s in half (dense) and in single precision, from
# NVIDIA's data sheets.
PEAKS = {'H100 80GB HBM3': (3.35e12, 989e12, 67e12),
         'H200': (4.8e12, 989e12, 67e12)}
_LINE = '| {:32} | {:>13} | {:>18} | {:>6} | {:>10} | {:>9} |'.format


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
    versions = {one.metadata['Name']: one.version
                for one in metadata.distributions()}
    known = dict(
        date=datetime.datetime.now().astimezone().isoformat('T', 'minutes'),
        cpu=found[1] if found else platform.processor(),
        threads=torch.get_num_threads(),
        # Above 0 at the start, other programs use the same cores.
        load=f'{os.getloadavg()[0]:.1f}',
        python=platform.python_version(), torch=torch.__version__,
        mmcyclemlp=__version__)
    known.update((name, versions.get(name))
                 for name in ('triton', 'torchvision', 'timm'))
    if device.type == 'cuda':
        known.update(gpu=torch.cuda.get_device_name(device),
                     cuda=torch.version.cuda)
    return known


def floor(case: Case, gpu: str | None) -> float | None:
    """Return the least seconds of a layer, or None if the GPU is unknown."""
    if case.traffic is None or gpu is None:
        return None
    for known, (bandwidth, half, single) in PEAKS.items():
        if known in gpu:
            nbytes, operations = case.traffic
            rate = single if case.dtype == 'fp32' else half
            return max(nbytes / bandwidth, operations / rate)
    return None


def table(question: str, cases: list[Case], gpu: str | None
          ) -> Iterator[str]:
    """Yield the lines of a table, and the reasons for missing times."""
    head = _LINE(question, 'ms', 'min .. max', 'rounds', 'x official',
                 'of floor' if cases[0].traffic else 'peak MiB')
    yield from (head, re.sub('[^|]', '-', head))
    reasons: dict[str, None] = {}
    for case in cases:
        late = all(row.status == 'no time' for row in case.rows)
        least = floor(case, gpu)
        yield _LINE(case.label, 'no time' if late else '', '', '', '',
                    f'{short(least * 1e6)} us' if least else '')
        official = next((row.median for row in case.rows
                         if row.contender == OFFICIAL), None)
        for row in case.rows * (not late):
            label, seconds = f'  {row.contender.label}', row.median
            if seconds is None:
                yield _LINE(label, row.status, '', '', '', '')
            else:
                low, high = min(row.samples), max(row.samples)
                peak = short(row.peak_bytes / 2**20) if row.peak_bytes else ''
                yield _LINE(
                    label, short(1e3 * seconds),
                    f'{short(1e3 * low)} .. {short(1e3 * high)}',
                    len(row.samples),
                    short(official / seconds) if official else '',
                    f'{least / seconds:.0%}' if least else peak)
            if row.reason:
                reasons[f'- {row.contender.label}: {row.status}: '
                        f'{row.reason}'] = None
    yield from reasons


def at_fault(cases: list[Case]) -> bool:
    """Return whether one of our contenders is wrong or failed.

    One that is compiled may fail, since a compiler may be missing.
    """
    return any(
        row.status == 'wrong' or (
            row.status == 'failed' and row.contender.checked
            and not row.contender.compiles)
        for case in cases for row in case.rows)
