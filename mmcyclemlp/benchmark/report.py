"""What is said: of the machine, in tables, in JSON."""

from __future__ import annotations

import datetime
import importlib
import json
import math
import os
import platform
import re
from pathlib import Path

import torch

from .bench import FEWEST_ROUNDS
from .cases import Case
from .contenders import OFFICIAL

# Bytes/s and operations/s in half (dense) and in single precision, by
# NVIDIA's data sheets.
PEAKS = {'H100 80GB HBM3': (3.35e12, 989e12, 67e12),
         'H200': (4.8e12, 989e12, 67e12)}


def short(number) -> str:
    """Three digits that count."""
    if not number:
        return '0'
    return f'{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}'


def machine(device) -> dict:
    """What was measured on, and with."""
    info = Path('/proc/cpuinfo')
    found = info.exists() and re.search('model name.*: (.*)',
                                        info.read_text())
    known = dict(
        date=datetime.datetime.now().astimezone().isoformat('T', 'minutes'),
        cpu=found[1] if found else platform.processor(),
        threads=torch.get_num_threads(),
        # Above 0 at the start, others take turns on the same cores.
        load=f'{os.getloadavg()[0]:.1f}',
        python=platform.python_version(), torch=torch.__version__)
    for name in ('triton', 'torchvision', 'timm', 'mmcyclemlp'):
        try:
            known[name] = importlib.import_module(name).__version__
        except (ImportError, RuntimeError):
            known[name] = None
    if device.type == 'cuda':
        known |= dict(gpu=torch.cuda.get_device_name(device),
                      cuda=torch.version.cuda)
    return known


def floor(case: Case, gpu: str | None) -> float | None:
    """Seconds that the case takes at least, on a GPU whose peaks we know.

    Args:
        case: One of a layer.
        gpu: Name of the GPU, by CUDA. None on a CPU.
    """
    if case.traffic is None or gpu is None:
        return None
    for known, (bandwidth, half, single) in PEAKS.items():
        if known in gpu:
            nbytes, operations = case.traffic
            rate = single if case.dtype == 'fp32' else half
            return max(nbytes / bandwidth, operations / rate)
    return None


def figures(row, case, official, least) -> list[str]:
    """What a table says of a contender that was measured."""
    seconds, samples = row.median, [1e3 * s for s in row.samples]
    relative = official / seconds if official else 0
    if case.question == 'scaling':
        pixels = math.prod(row.contender.size)
        relative = seconds * 1e9 / pixels / case.settings['batch']
    line = [short(seconds * 1e3),
            f'{short(min(samples))} .. {short(max(samples))}',
            short(relative) if relative else '']
    if case.traffic:
        nbytes, operations = case.traffic
        line += [short(nbytes / seconds / 1e9),
                 short(operations / seconds / 1e12),
                 f'{least / seconds:.0%}' if least else '']
    elif row.peak_bytes is not None:
        line.append(short(row.peak_bytes / 2**20))
    return line


def aligned(lines: list[list[str]]) -> list[str]:
    """The lines of a table of cells, the first of which is its head."""
    columns = list(zip(*(
        line + [''] * (len(lines[0]) - len(line)) for line in lines)))
    widths = [max(map(len, column)) for column in columns]
    text = ['| ' + ' | '.join([line[0].ljust(widths[0]), *map(
        str.rjust, line[1:], widths[1:])]) + ' |' for line in zip(*columns)]
    text.insert(1, '| ' + ' | '.join('-' * width for width in widths) + ' |')
    return text


def table(question: str, cases: list[Case], gpu: str | None) -> list[str]:
    """The lines of a table, and under it what is missing and why."""
    more = {'train': ['peak MiB']} | dict.fromkeys(
        ('op', 'mixer'), ['GB/s', 'TFLOP/s', 'of floor'])
    relative = 'ms/Mpixel' if question == 'scaling' else 'x official'
    lines = [[question, 'ms', 'min .. max', relative,
              *more.get(question, [])]]
    notes, late = {}, []
    for case in cases:
        if all(row.status in ('no time', 'left out') for row in case.rows):
            late.append(case.label)
            continue
        lines.append([case.label])
        least = floor(case, gpu)
        if case.traffic:
            nbytes, operations = case.traffic
            lines[-1] += ['', '', '', f'{short(nbytes / 1e6)} MB',
                          f'{short(operations / 1e9)} GFLOP',
                          f'{short(least * 1e6)} us' if least else '']
        official = next((row.median for row in case.rows
                         if row.contender == OFFICIAL), None)
        for row in case.rows:
            note = f'{row.status}: {row.reason}'
            if row.samples:
                few = len(row.samples) < FEWEST_ROUNDS
                note = f'rounds: only {len(row.samples)}' if few else ''
            lines.append([f'  {row.contender.label}', *(
                figures(row, case, official, least) if row.samples
                else [row.status])])
            if note:
                whose, where = notes.setdefault(note, ({}, {}))
                whose[row.contender.label] = where[case.label] = None
    text = aligned(lines)
    for note, (whose, where) in notes.items():
        where = ', '.join(where) if len(where) < 4 else f'{len(where)} cases'
        text.append(f'- {", ".join(whose)}: {note} ({where})')
    if late:
        text.append(f'- left out for lack of time: {", ".join(late)}')
    return text


def save(path: Path, known: dict, cases: list[Case]) -> None:
    """Write the machine and every sample of the cases as JSON."""
    path.write_text(json.dumps(
        dict(machine=known, cases=[case.known() for case in cases]),
        indent=1))


def at_fault(cases: list[Case]) -> bool:
    """Whether a contender of ours is wrong, or failed."""
    # A compiler may be missing, and no peer is in our hands.
    return any(
        row.status == 'wrong' or (
            row.status == 'failed' and row.contender.held
            and not row.contender.compiles)
        for case in cases for row in case.rows)
