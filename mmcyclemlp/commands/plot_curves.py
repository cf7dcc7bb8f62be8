"""Plot the loss, learning rate and metrics of several runs.

    python -m mmcyclemlp plot_curves work_dirs/mine work_dirs/other

A run that was resumed is one curve, and validations stand at the iteration
after which they were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from . import cli

_NO_CURVES = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory'}
_METRICS = ('_mAP', 'mIoU', 'accuracy/top1')


class Run(NamedTuple):
    """Curves of a run: key -> (iteration, value) pairs."""

    training: dict[str, list[tuple[int, float]]]
    validation: dict[str, list[tuple[int, float]]]


def read_run(work_dir: str | Path) -> Run:
    """Read the records that mmengine keeps in a work dir.

    mmengine creates a folder at each start. Where a run was resumed, its
    records replace those that an earlier start made after that iteration.

    Args:
        work_dir: A work dir, or one of its time-stamped folders.

    Raises:
        UserError: There are no records of training, or a line is damaged.
    """
    # By iteration.
    training: dict[int, dict] = {}
    validation: dict[int, dict] = {}
    for path in sorted({*Path(work_dir).glob('*/vis_data/scalars.json'),
                        *Path(work_dir).glob('vis_data/scalars.json')}):
        last = 0
        for record in _records(path):
            if 'iter' not in record:  # a validation
                validation[_iteration(record['step'], training)] = record
                continue
            if last == 0:  # the first record of this start
                for former in (training, validation):
                    for step in [s for s in former if s >= record['iter']]:
                        del former[step]
            last = record['iter']
            training[last] = record
    if not training:
        raise UserError(
            f'{work_dir} has no records of training. Give a work dir in '
            'which mmengine wrote */vis_data/scalars.json')
    return Run(_by_key(training), _by_key(validation))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record['step']
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) > 1:
                return  # the run was killed while it wrote
            raise UserError(f'line {number} of {path} is not a record: '
                            f'{line[:60]!r}. Delete the line') from error
        yield record


def _iteration(step: int, training: dict[int, dict]) -> int:
    """Return the iteration of a validation. Its step may be an epoch."""
    if not any('epoch' in record for record in training.values()):
        return step
    return max((iteration for iteration, record in training.items()
                if record.get('epoch', 0) <= step), default=0)


def _by_key(records: dict[int, dict]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, record in sorted(records.items()):
        for key, value in record.items():
            if key not in _NO_CURVES and isinstance(value, (int, float)):
                curves.setdefault(key, []).append((step, value))
    return curves


def find_keys(wanted: Sequence[str] | None, runs: Sequence[Run]) -> list[str]:
    """Return full keys. ``mIoU`` may stand for ``val/mIoU``.

    Args:
        wanted: Keys or their ends. None for loss, lr and the main metrics.
        runs: At least one of them has each key.

    Raises:
        UserError: A key is unknown, or stands for several.
    """
    keys = list(dict.fromkeys(
        key for run in runs for key in (*run.training, *run.validation)))
    if wanted is None:
        return [key for key in ('loss', 'lr') if key in keys] + [
            key for key in keys if key.endswith(_METRICS)]
    found = []
    for key in wanted:
        own = [key] if key in keys else [
            full for full in keys if full.endswith((f'/{key}', f'.{key}'))]
        if len(own) != 1:
            raise UserError(
                f'--keys: {len(own) or "no"} keys match {key}. Give one of '
                f'{", ".join(sorted(own or keys))}')
        found += own
    return found


def draw_curves(runs: dict[str, Run], keys: Sequence[str]):
    """Draw a panel for each key with a curve for each run.

    Args:
        runs: By the name that the legend has.
        keys: Full names of keys.

    Returns:
        matplotlib.figure.Figure: Iterations are on the horizontal axes.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4 * columns, 2.9 * rows + 0.3),
                    layout='constrained')
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, key in zip(panels, keys):
        for place, (name, run) in enumerate(runs.items()):
            points = run.validation.get(key) or run.training.get(key) or []
            axis.plot([step for step, _ in points],
                      [value for _, value in points], f'C{place % 10}',
                      marker='o' if key in run.validation else None,
                      markersize=3, label=name)
        axis.set_title(key, fontsize=9)
        axis.set_xlabel('iteration', fontsize=8)
        axis.grid(alpha=0.3)
    for axis in panels[len(keys):]:
        axis.axis('off')
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8,
                  loc='outside upper center', ncols=min(4, len(runs)))
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.new_parser(
        'plot_curves', description='Plot curves of one or several runs, a '
        'panel for each key. A run that was resumed is one curve.')
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='work dir of a run')
    parser.add_argument(
        '--keys', nargs='+', metavar='KEY', help='keys to plot, such as loss '
        'bbox_mAP (default: loss, lr and the main metrics)')
    parser.add_argument(
        '--names', nargs='+', metavar='NAME', help='names of the runs '
        '(default: the names of their work dirs)')
    parser.add_argument(
        '--out', default='curves.png', metavar='FILE',
        help='picture to write, by its ending (default: %(default)s)')
    args = parser.parse_args(argv)
    names = args.names or [
        Path(path).resolve().name for path in args.work_dirs]
    if len(names) != len(args.work_dirs):
        raise UserError(f'--names: {len(names)} names for '
                        f'{len(args.work_dirs)} runs')
    if len(set(names)) != len(names):
        raise UserError(f'{" ".join(names)}: several runs have one name. Give '
                        'each its own with --names')
    for path in args.work_dirs:
        if not Path(path).is_dir():
            raise UserError(f'there is no folder {path}')
    runs = dict(zip(names, map(read_run, args.work_dirs)))
    figure = draw_curves(runs, find_keys(args.keys, list(runs.values())))
    try:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.out, dpi=100)
    except (OSError, ValueError) as error:
        raise UserError(
            f'--out: {args.out} cannot be written: '
            f'{getattr(error, "strerror", None) or error}') from error
    print(args.out)
