"""What mm keeps in checkpoints beside tensors, built without pickle's help.

A pickle may call each function here with what it likes and as often as it
likes; so they take plain values, and give what can do nothing of its own.
"""

import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
from mmengine.logging.history_buffer import HistoryBuffer

from ..checkpoint_files import checked_key


def allowed():
    """Functions by the names that mm's checkpoints ask for.

    Returns:
        dict: See :func:`~mmcyclemlp.checkpoint_files.read_checkpoint`.
    """
    history = 'mmengine.logging.history_buffer.HistoryBuffer'
    found = {
        history: _history,
        HistoryBuffer: _set_history,
        '_codecs.encode': _encode,
        # MultiStepLR keeps its milestones so.
        'collections.Counter': _counter,
        'collections.defaultdict': _default_dict,
        'numpy.ndarray': np.ndarray,
        np.ndarray: _set_array,
        'numpy.dtype': _Numbers,
        _Numbers: _Numbers.set_state,
    }
    for name in ('min', 'max', 'current', 'mean'):
        found[f'{history}.{name}'] = None  # protocol 4's way to getattr
    for builtins in ('builtins', '__builtin__'):
        found[f'{builtins}.getattr'] = _statistic
        found[f'{builtins}.set'] = _set
        found[f'{builtins}.bytes'] = _no_bytes
        for plain in (dict, list, int, float):
            found[f'{builtins}.{plain.__name__}'] = _Nothing
    for pathlib in ('pathlib', 'pathlib._local'):
        found[f'{pathlib}.PosixPath'] = found[f'{pathlib}.WindowsPath'] = _path
    for core in ('numpy.core', 'numpy._core'):
        found[f'{core}.multiarray._reconstruct'] = _empty_array
        found[f'{core}.multiarray.scalar'] = _scalar
    return found


class _Numbers:
    """Stands for numpy.dtype, whose own state can name memory as objects."""

    def __init__(self, name, *args):
        if not re.fullmatch('[biufcSU][0-9]{1,4}', name):
            raise UnpicklingError(f'refused an array of {name}')
        self.name = name

    def set_state(self, state):
        order, *parts = state[1:5]
        if order not in ('<', '>', '|', '=') or any(parts):
            raise UnpicklingError(
                f'refused an array of {self.name} as {parts}')
        self.name = order + self.name.lstrip('<>|=')

    def numpy(self):
        return np.dtype(self.name)


def _empty_array(*args):
    return np.empty(0)


def _set_array(array, state):
    _, shape, numbers, by_column, data = state
    if not isinstance(numbers, _Numbers) or not isinstance(data, bytes):
        raise UnpicklingError('refused an array of no numbers')
    dtype = numbers.numpy()
    if min(shape, default=0) < 0 or (
            math.prod(shape) * dtype.itemsize != len(data)):
        raise UnpicklingError(f'{len(data)} bytes for an array of {shape}')
    array.__setstate__((1, shape, dtype, by_column is True, data))


def _scalar(numbers, data):
    if not isinstance(numbers, _Numbers):
        raise UnpicklingError('refused a scalar that is no number')
    return np.frombuffer(data, numbers.numpy(), 1)[0]


def _encode(text, encoding):
    # As pickles keep bytes in protocol 2.
    if encoding not in ('latin1', 'latin-1'):
        raise UnpicklingError(f'refused encoding {encoding!r}')
    return str.encode(text, 'latin1')


def _no_bytes():
    return b''


def _history(*args):
    return HistoryBuffer()


def _set_history(history, state):
    """Without its statistics: they are methods, and there already."""
    logs, counts = state['_log_history'], state['_count_history']
    for array in (logs, counts):
        if not (isinstance(array, np.ndarray) and array.ndim == 1
                and array.dtype.kind in 'biuf'):
            raise UnpicklingError('refused a history of no numbers')
    if len(logs) != len(counts):
        raise UnpicklingError('refused a history of two lengths')
    history._log_history, history._count_history = logs, counts
    history.max_length = int(state['max_length'])


def _statistic(owner, name):
    # A history has those it was made with.
    if owner is not _history:
        raise UnpicklingError(f'refused attribute {name!r} of {owner!r}')


def _counter(counts=()):
    return Counter({checked_key(key): counts[key] for key in counts})


class _Nothing:
    """Stands for the type of a default."""


def _default_dict(default=None):
    return defaultdict(None)


def _set(items=()):
    return {checked_key(item) for item in items}


def _path(*parts):
    return Path(*map(str, parts))
