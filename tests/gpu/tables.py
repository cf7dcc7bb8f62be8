"""Print compact tables of many contenders."""

from __future__ import annotations

import textwrap

from mmcyclemlp.benchmark.calls import MODES, OFFICIAL, Contender
from mmcyclemlp.benchmark.cases import Case, Row
from mmcyclemlp.benchmark.report import floor, short

# Words that a table has instead of a time.
WORDS = {'no time': '', 'left out': '-', 'out of memory': 'memory',
         'failed': 'failed', 'wrong': 'WRONG', 'measured': ''}


def fit(lines: list[list[str]]) -> list[str]:
    """Align cells in columns: the first to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ['  '.join([line[0].ljust(widths[0]), *map(
        str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]


def notes(cases: list[Case], name) -> list[str]:
    """Return lines on what failed and why, and what was not measured.

    Args:
        cases: The cases of a table.
        name: ``(case, row)``, returns the name of a row in the table.
    """
    found: dict[str, list[str]] = {}
    for case in cases:
        for row in case.rows:
            mode = row.contender.mode
            what = f'{row.status}, {mode}'
            if row.reason and row.status != 'no time':
                what += f': {row.reason}'[:120]
            if row.status != 'measured':
                found.setdefault(what, []).append(name(case, row))
    return ['- ' + textwrap.shorten(
        f'{what} ({", ".join(dict.fromkeys(whose))})', 250)
        for what, whose in found.items()]


def layer_table(cases: list[Case], columns: dict[str, Contender],
                gpu: str | None) -> list[str]:
    """Return the microseconds for a layer, with a line for each map.

    Args:
        cases: The cases of one layer, either forward or with gradients.
        columns: The contenders by the title of their column.
        gpu: Name of the GPU, for the lower bound of the time.
    """
    if not cases:
        return []
    shown = [case for case in cases if any(row.samples for row in case.rows)]
    late = [_map(case) for case in cases if _is_late(case)]
    timed = {row.contender for case in shown for row in case.rows
             if row.samples}
    columns = {title: contender for title, contender in columns.items()
               if contender in timed}
    what = (f'{cases[0].question} '
            f'{"fwd+bwd" if cases[0].settings["backward"] else "forward"}')
    lines = [[f'{what}, us', 'floor', *columns]]
    for case in shown:
        rows = {row.contender: row for row in case.rows}
        least = floor(case, gpu)
        lines.append([
            _map(case), short(1e6 * least) if least else '-', *(
                _cell(rows.get(contender), 1e6)
                for contender in columns.values())])
    text = fit(lines) if shown else []
    text += notes(shown, lambda case, row: row.contender.name)
    if late:
        text.append('- ' + textwrap.shorten(
            f'no time for {len(late)} maps of the {what}: '
            f'{", ".join(late)}', 200))
    return text


def _map(case):
    n, height, width, c = case.settings['shape']
    return f'{n}x{c}x{height}x{width}'


def _cell(row: Row | None, scale: float, official: float | None = None
          ) -> str:
    """Return the median, and the speed-up over the official code."""
    if row is None:
        return ''
    if not row.samples:
        return WORDS[row.status]
    text = short(scale * row.median)
    if official:
        text += f' {official / row.median:.2f}x'
    if row.peak_bytes is not None:
        text += f' {row.peak_bytes / 2**20:.0f}M'
    return text


def net_table(cases: list[Case]) -> list[str]:
    """Return the milliseconds of networks, with a column for each mode.

    A time is followed by the speed-up over the official code and, for a
    training step, by the memory in MiB.

    Args:
        cases: One for each arch, at one size and batch. The peers are
            compared with the official code of the first.
    """
    rows = [(case, row) for case in cases for row in case.rows]
    modes = [mode for mode in MODES if any(
        row.samples and row.contender.mode == mode for _, row in rows)]
    if not modes:
        return []
    official = {
        case.label: next((row.median for row in case.rows
                          if row.contender == OFFICIAL), None)
        for case in cases}

    def name(case, row):
        if row.contender.kind == 'peer':
            return row.contender.name
        return f'{case.settings["name"]} {row.contender.name}'

    lines: dict[str, dict[str, str]] = {}
    for case, row in rows:
        cell = _cell(row, 1e3, official[case.label])
        lines.setdefault(name(case, row), {})[row.contender.mode] = cell
    settings = cases[0].settings
    height, width = settings['size']
    head = (f'{cases[0].question} {height}x{width} batch '
            f'{settings["batch"]}, ms')
    return fit([[head, *modes], *(
        [who, *(cells.get(mode, '') for mode in modes)]
        for who, cells in lines.items() if any(cells.values()))]) + notes(
            cases, name)


def _is_late(case):
    return not any(row.samples for row in case.rows) and any(
        row.status == 'no time' for row in case.rows)


def left_out(cases: list[Case]) -> list[str]:
    """Name the cases for which there was no time to measure anything."""
    late = [case.label for case in cases if _is_late(case)]
    return ['- ' + textwrap.shorten(f'no time: {", ".join(late)}', 400)
            ] * bool(late)
