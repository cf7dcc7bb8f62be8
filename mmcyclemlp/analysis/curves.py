"""Training curves from the records that mmengine keeps in a work dir."""

import json
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D


class Run(NamedTuple):
    """The records of a run, those of all its starts joined.

    Attributes:
        name (str): Of the work dir.
        training (dict[str, list]): By key, (iteration, value).
        validation (dict[str, list]): The same, of validations.
    """

    name: str
    training: dict
    validation: dict


class RecordsError(ValueError):
    """A work dir has no records of training, or damaged ones."""


def read_run(work_dir, name=None):
    """Read the records of a work dir.

    mmengine begins a folder at each start. Where a run was taken up again
    from before its last record, what was recorded after that step is
    replaced. Validations count epochs in a run by epochs; they are put at
    the iteration where the epoch ended.

    Args:
        work_dir (str | PathLike): A work dir, or one of its time-stamped
            folders, or a ``scalars.json``.
        name (str | None): How to call the run. None for the name of the
            work dir. Default: None.

    Returns:
        Run: With at least one record of training.

    Raises:
        RecordsError: There are none, or a line cannot be read.
    """
    work_dir = Path(work_dir)
    paths = [work_dir] if work_dir.is_file() else sorted(
        {*work_dir.glob('*/vis_data/scalars.json'),
         *work_dir.glob('vis_data/scalars.json')})
    training, validation = {}, {}
    for path in paths:
        _join(_read(path), training, validation)
    if not training:
        raise RecordsError(
            f'{work_dir} has no records of training (*/vis_data/scalars.json'
            ', which mmengine writes into a work dir)')
    return Run(name or work_dir.resolve().name, _by_key(training),
               _by_key(validation))


def _read(path):
    """The records of a file; a last line that was cut off is left out."""
    records = []
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record['step']
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and number > 1:
                break  # the run was killed
            raise RecordsError(
                f'line {number} of {path} is no record: {line[:60]!r}'
            ) from error
        records.append(record)
    return records


def _join(records, training, validation):
    """Add the records of a start to those of former ones, by iteration."""
    last = 0
    for record in records:
        if 'iter' in record:  # validations have none
            if last == 0:
                for former in (training, validation):
                    for step in [s for s in former if s >= record['iter']]:
                        del former[step]
            last = record['iter']
            training[last] = record
        else:
            validation[_iteration(record['step'], training)] = record


def _iteration(step, training):
    """Iteration after which a validation was."""
    if not any('epoch' in record for record in training.values()):
        return step
    ended = [iteration for iteration, record in training.items()
             if record.get('epoch', 0) <= step]
    return max(ended, default=0)


_NO_CURVES = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory'}


def _by_key(records):
    curves = {}
    for step, record in sorted(records.items()):
        for key, value in record.items():
            if key not in _NO_CURVES and isinstance(value, (int, float)):
                curves.setdefault(key, []).append((step, value))
    return curves


def usual_keys(runs):
    """Loss, learning rate, and the main figures of validations.

    Args:
        runs (list[Run]): The runs.

    Returns:
        list[str]: Those that at least one run has.
    """
    keys = dict.fromkeys(
        key for run in runs for key in [*run.training, *run.validation])
    return [key for key in ('loss', 'lr') if key in keys] + [
        key for key in keys
        if key.endswith(('_mAP', 'mIoU', 'accuracy/top1'))]


def find_key(key, runs):
    """The full name of a key that may be given by its end.

    Args:
        key (str): Such as 'bbox_mAP', for 'coco/bbox_mAP'.
        runs (list[Run]): The runs.

    Returns:
        str: As it is in the records.

    Raises:
        RecordsError: No run has it, or it may mean several.
    """
    keys = sorted({own for run in runs
                   for own in [*run.training, *run.validation]})
    found = [own for own in keys if own == key] or [
        own for own in keys if own.endswith((f'/{key}', f'.{key}'))]
    if len(found) != 1:
        said = f'means {len(found)} of them' if found else 'is none of them'
        raise RecordsError(f'{key} {said}: the records have '
                           f'{", ".join(found or keys)}')
    return found[0]


def smoothed(values, weight):
    """Running mean that gives each value less weight the older it is.

    Args:
        values (list[float]): In order.
        weight (float): Of what came before, 0 (none) to below 1.

    Returns:
        list[float]: As many; the first is the first value.
    """
    mean = total = 0.
    result = []
    for value in values:
        mean = weight * mean + (1 - weight) * value
        total = weight * total + (1 - weight)
        result.append(mean / total)
    return result


def draw_curves(runs, keys, smooth=0.):
    """Draw a panel for each key with a curve for each run.

    Args:
        runs (list[Run]): The runs.
        keys (list[str]): Full names of keys.
        smooth (float): Weight of former values, see :func:`smoothed`; the
            values themselves are drawn faintly. Validations and learning
            rates are not smoothed. Default: 0.

    Returns:
        Figure: Iterations along the horizontal axes.
    """
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4 * columns, 2.9 * rows + 0.3),
                    layout='constrained')
    axes = list(figure.subplots(
        rows, columns, squeeze=False, sharex=True).flat)
    for axis in axes[len(keys):]:
        axis.axis('off')
    for axis, key in zip(axes, keys):
        for place, run in enumerate(runs):
            _draw(axis, run, key, smooth, f'C{place % 10}')
        axis.set_title(key, fontsize=9)
        axis.set_xlabel('iteration', fontsize=8)
        axis.tick_params(labelsize=8, labelbottom=True)
        axis.grid(alpha=0.3)
    handles = [Line2D([], [], color=f'C{place % 10}')
               for place in range(len(runs))]
    figure.legend(handles, [run.name for run in runs], fontsize=8,
                  loc='outside upper center', ncols=min(4, len(runs)))
    return figure


def _draw(axis, run, key, smooth, colour):
    points = run.validation.get(key)
    if points:
        axis.plot(*zip(*points), color=colour, marker='o', markersize=3)
        return
    points = run.training.get(key)
    if not points:
        return
    steps, values = zip(*points)
    if smooth and not key.endswith('lr'):
        axis.plot(steps, values, color=colour, alpha=0.25)
        values = smoothed(values, smooth)
    axis.plot(steps, values, color=colour)
