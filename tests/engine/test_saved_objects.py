"""Read the objects that mm saves beside tensors, and refuse others."""

import pickle
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmcyclemlp.checkpoint_files import read_checkpoint
from mmcyclemlp.engine.saved_objects import allowed
from mmcyclemlp.errors import CheckpointError

ARRAYS = [
    np.arange(6.).reshape(2, 3), np.asfortranarray(np.ones((2, 3), 'i4')),
    np.zeros((0, 3), 'f2'), np.array([True, False]), np.array(['a', 'bcd']),
    np.arange(3, dtype='>u2'), np.array(1 + 2j),
]


class Raw:
    """Pickles as a call, and a state."""

    def __init__(self, call, args, state=None):
        self.parts = call, args, state

    def __reduce__(self):
        return self.parts


def through(content, tmp_path, protocol=2):
    path = tmp_path / 'x.pth'
    torch.save(content, path, pickle_protocol=protocol)
    return read_checkpoint(path, allowed())


@pytest.mark.parametrize('protocol', [2, 4])
def test_reads_what_mm_saves(protocol, tmp_path):
    history = HistoryBuffer([1., 2., 4.], [1, 1, 2])
    content = dict(
        arrays=ARRAYS, number=np.float64(0.1), flag=np.bool_(True),
        milestones=Counter([8, 11, 8]), history=history,
        words={'a', 'b'}, path=Path('a/b'), rest=defaultdict(list, a=[1]))
    back = through(content, tmp_path, protocol)
    for ours, theirs in zip(back.pop('arrays'), content.pop('arrays')):
        theirs = pickle.loads(pickle.dumps(theirs))  # of native order
        assert type(ours) is np.ndarray and ours.dtype == theirs.dtype
        assert ours.flags.writeable and np.array_equal(ours, theirs)
    ours, theirs = back.pop('history'), content.pop('history')
    assert ours.mean() == theirs.mean() and ours.max_length == 1000000
    ours.update(3.)
    assert ours.statistics('max', 2) == 4. and len(theirs.data[0]) == 3
    assert back == content
    assert type(back['number']) is np.float64
    # And once more: what was read is saved again.
    assert through(back, tmp_path, protocol) == back


DTYPE = np.dtype([('a', 'f4')]).__reduce__()[2]


@pytest.mark.parametrize('thing, message', [
    (np.array([{}], object), 'refused an array of O8'),
    (np.zeros(2, [('a', 'f4')]), 'refused an array of V4'),
    (np.array(['2026-11-24'], 'M8[D]'), 'refused an array of M8'),
    # numpy would take the bytes for objects.
    (Raw(*np.ones(1).__reduce__()[:2], (
        1, (1, ), Raw(np.dtype, ('f8', False, True), DTYPE), False,
        bytes(8))), r'refused an array of f8 as \[None, \(.a'),
    (Raw(*np.ones(1).__reduce__()[:2], (
        1, (1 << 40, ), np.dtype('f8'), False, bytes(8))),
     '8 bytes for an array of'),
    (Raw(*np.ones(1).__reduce__()[:2], (
        1, (-1, -1), np.dtype('f8'), False, bytes(8))),
     '8 bytes for an array of'),
    (Raw(HistoryBuffer, (), {'_log_history': np.ones(2),
                             '_count_history': np.ones(3),
                             'max_length': 9}), 'two lengths'),
    (Raw(HistoryBuffer, (), {'_log_history': np.array(['a']),
                             '_count_history': np.ones(1),
                             'max_length': 9}), 'other values than numbers'),
    (Raw(getattr, ('', 'format')), 'refused attribute'),
    (Raw(Counter, ([(1, 2)], )), 'TypeError'),
    (Raw(set, ([(1, 2)], )), 'a key of type tuple'),
    # Objects with a state that nobody asked for.
    (Raw(Counter, (), {'update': None}), 'a state of a Counter'),
    (Raw(set, (), {'x': 1}), 'a state of a set'),
])
def test_refuses_anything_else(thing, message, tmp_path):
    torch.save({'a': thing}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / 'x.pth', allowed())


@pytest.mark.parametrize('name', [
    'mmengine.logging.history_buffer HistoryBuffer', 'numpy ndarray',
    'numpy dtype', 'collections Counter', 'builtins getattr',
    'numpy.core.multiarray scalar', '_codecs encode'])
def test_a_file_cannot_change_how_the_next_is_read(name, tmp_path):
    module, attribute = name.split()
    spoil = (f'c{module}\n{attribute}\n(N}}'.encode()
             + b'U\x04meanNU\x0c__defaults__Nstb.')
    data = (pickle.dumps(0x1950a86a20f9469cfc6c, 2) + pickle.dumps(1001, 2)
            + pickle.dumps({}, 2) + b'\x80\x02' + spoil.replace(b'}U', b'}(U')
            .replace(b'Nstb', b'Nutb') + pickle.dumps([], 2))
    (tmp_path / 'x.pth').write_bytes(data)
    with pytest.raises(CheckpointError, match='a state of a'):
        read_checkpoint(tmp_path / 'x.pth', allowed())
    assert HistoryBuffer([1.], [1]).mean() == 1
