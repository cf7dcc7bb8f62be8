"""Build the objects that mm saves in checkpoints beside tensors.

A pickle may call each function here with any arguments and any number of
times. So the functions accept only plain values, and return objects that
cannot run code.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
from mmengine.logging.history_buffer import HistoryBuffer

from ..checkpoint_files import checked_key


def allowed() -> dict:
    """Return the functions that a checkpoint of mm may call.

    Returns:
        dict: Functions by name; see
        :func:`~mmcyclemlp.checkpoint_files.read_checkpoint`.
    """
    history = 'mmengine.logging.history_buffer.HistoryBuffer'
    found = {
        history: _history,
        HistoryBuffer: _set_history,
        '_codecs.encode': _encode,
        # The milestones of MultiStepLR.
        'collections.Counter': _counter,
        'collections.defaultdict': _default_dict,
        'numpy.ndarray': np.ndarray,
        np.ndarray: _set_array,
        'numpy.dtype': _Numbers,
        _Numbers: _Numbers.set_state,
    }
    for name in ('min', 'max', 'current', 'mean'):
        # The arguments of getattr in protocol 4.
        found[f'{history}.{name}'] = None
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
    """Replacement of numpy.dtype, whose state could declare objects."""

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
        raise UnpicklingError('refused an array of other values than numbers')
    dtype = numbers.numpy()
    if min(shape, default=0) < 0 or (
            math.prod(shape) * dtype.itemsize != len(data)):
        raise UnpicklingError(f'{len(data)} bytes for an array of {shape}')
    array.__setstate__((1, shape, dtype, by_column is True, data))


def _scalar(numbers, data):
    if not isinstance(numbers, _Numbers):
        raise UnpicklingError('refused a scalar that is not a number')
    return np.frombuffer(data, numbers.numpy(), 1)[0]


def _encode(text, encoding):
    # Protocol 2 saves bytes as text.
    if encoding not in ('latin1', 'latin-1'):
        raise UnpicklingError(f'refused encoding {encoding!r}')
    return str.encode(text, 'latin1')


def _no_bytes():
    return b''


def _history(*args):
    return HistoryBuffer()


def _set_history(history, state):
    """Set the numbers only: a history already has its methods."""
    logs, counts = state['_log_history'], state['_count_history']
    for array in (logs, counts):
        if not (isinstance(array, np.ndarray) and array.ndim == 1
                and array.dtype.kind in 'biuf'):
            raise UnpicklingError(
                'refused a history of other values than numbers')
    if len(logs) != len(counts):
        raise UnpicklingError('refused a history of two lengths')
    history._log_history, history._count_history = logs, counts
    history.max_length = int(state['max_length'])


def _statistic(owner, name):
    # The name is ignored, since a history already has its methods.
    if owner is not _history:
        raise UnpicklingError(f'refused attribute {name!r} of {owner!r}')


def _counter(counts=()):
    return Counter({checked_key(key): counts[key] for key in counts})


class _Nothing:
    """Replacement of the type of a default."""


def _default_dict(default=None):
    return defaultdict(None)


def _set(items=()):
    return {checked_key(item) for item in items}


def _path(*parts):
    return Path(*map(str, parts))
