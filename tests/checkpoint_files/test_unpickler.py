"""The unpickler calls nothing that is not on its list, and always ends."""

import contextlib
import pickle

import pytest
import torch
from helpers import hostile_files as hostile
from helpers import paddle_file
from helpers.child_process import run_in_child
from torch.testing import assert_close

from mmcyclemlp.checkpoint_files import checked_key, read_checkpoint
from mmcyclemlp.errors import CheckpointError, RefusedError


def test_a_refusal_names_the_function(tmp_path):
    path = tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps(hostile.Call(eval, '1'), 4))
    with pytest.raises(RefusedError, match=(
            r'x\.pdparams is refused: its pickle asks for builtins\.eval, ')):
        read_checkpoint(path)


@pytest.mark.parametrize('name', [
    'collections OrderedDict', 'numpy dtype', 'numpy ndarray',
    'numpy.core.multiarray _reconstruct', '_codecs encode',
    'builtins tuple', 'torch._utils _rebuild_tensor_v2'])
def test_a_file_cannot_change_how_the_next_is_read(name, state, tmp_path):
    # Sets attributes on what it asks for: (None, {...}) is their state.
    module, attribute = name.split()
    spoil = (f'c{module}\n{attribute}\n(N}}'.encode()
             + b'U\x0c__defaults__(K\x01K\x02K\x03K\x04K\x05K\x06K\x07tstb.')
    (tmp_path / 'bad').write_bytes(b'\x80\x02' + spoil)
    (tmp_path / 'bad.pth').write_bytes(
        hostile.HEADER + pickle.dumps({}, 2) + b'\x80\x02' + spoil
        + pickle.dumps([], 2))
    (tmp_path / 'good').write_bytes(
        paddle_file.dumps(paddle_file.pairs(state), 2))
    torch.save(state, tmp_path / 'good.pth')
    for bad in ('bad', 'bad.pth'):
        with contextlib.suppress(CheckpointError):
            read_checkpoint(tmp_path / bad)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None, )
    for good in ('good', 'good.pth'):
        assert_close(dict(read_checkpoint(tmp_path / good)), state,
                     rtol=0, atol=0)


@pytest.mark.parametrize('name', hostile.BOMBS)
def test_bombs_are_refused_in_bounded_time_and_memory(name, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(hostile.BOMBS[name]())
    outcome = run_in_child(lambda: read_checkpoint(path) is None)
    if name in hostile.HARMLESS:
        assert outcome.value, outcome
        return
    assert outcome.error in ('CheckpointError', 'RefusedError'), outcome
    assert 'x.pth is ' in outcome.text and len(outcome.text) < 500


@pytest.mark.parametrize('key', [(1, ), 1 << 60, 1.5, frozenset()], ids=str)
def test_keys_that_may_hash_forever_are_refused(key):
    with pytest.raises(TypeError, match='a key of type'):
        checked_key(key)
    for key in ('a', b'a', 3, True, None):
        assert checked_key(key) is key
