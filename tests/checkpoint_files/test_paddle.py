"""Paddle's files are read without Paddle and without NumPy."""

import pickle

import numpy as np
import pytest
import torch
from helpers import paddle_file
from torch.testing import assert_close

from mmcyclemlp.checkpoint_files import read_checkpoint, read_file
from mmcyclemlp.errors import CheckpointError


@pytest.mark.parametrize('core', paddle_file.CORES)
@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('layout', ['plain', 'pairs', 'pairs under model'])
def test_weights_are_read_in_the_layout_of_pytorch(layout, protocol, core,
                                                   state, tmp_path):
    if layout == 'plain':
        content = paddle_file.plain(state)
    else:
        content = paddle_file.pairs(state)
        if layout == 'pairs under model':
            content = {'model': content, 'epoch': 3, 'best': np.float32(1)}
    data = paddle_file.dumps(content, protocol, core)
    assert f'{core}.multiarray'.encode() in data
    (tmp_path / 'x.pdparams').write_bytes(data)
    file = read_file(tmp_path / 'x.pdparams')
    assert file.kind == 'Paddle'
    content = file.content
    if layout == 'pairs under model':
        assert content['epoch'] == 3
        content = content['model']
    content.pop('StructuredToParameterName@@', None)
    assert_close(content, state, rtol=0, atol=0)
    assert all(value.is_contiguous() for value in content.values())


def test_arrays_in_fortran_order_and_empty_ones(tmp_path):
    array = np.asfortranarray(np.arange(24, dtype='f4').reshape(2, 3, 4))
    empty = np.zeros((0, 3), 'f4')
    (tmp_path / 'x').write_bytes(pickle.dumps({'a': array, 'b': empty}, 4))
    content = read_checkpoint(tmp_path / 'x')
    assert torch.equal(content['a'], torch.from_numpy(array.copy('C')))
    assert content['b'].shape == (3, 0)


def test_a_file_of_python_2(tmp_path):
    # Its str is bytes; these are the bytes of {'a': array([1., 2.])}.
    data = (b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\n"
            b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
            b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
            b"\x00\x00\x80?\x00\x00\x00@tbs.")
    (tmp_path / 'x.pdparams').write_bytes(data)
    content = read_checkpoint(tmp_path / 'x.pdparams')
    assert content['a'].tolist() == [1., 2.]


class Raw:
    """An array with any state."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        make, arguments = np.ones(1).__reduce__()[:2]
        return make, arguments, self.state


F4 = np.dtype('f4')


@pytest.mark.parametrize('value, message', [
    (np.array([None]), r'type \|O'),
    (np.array(['a']), 'type <U1'),
    (np.ones(2, '>f4'), 'type >f4'),
    (np.ones(2, 'c8'), 'type <c8'),
    (Raw(1, (3, ), F4, False, bytes(8)), '8 bytes for an array of'),
    (Raw(1, (2, -1, -1), F4, False, bytes(8)), 'for an array of'),
    (Raw(1, (2, ), F4, False, [1., 2.]), 'bytes|list'),
    (Raw(1, 'ab', F4, False, bytes(8)), ''),
    (Raw(1), ''),
])
def test_a_damaged_array_is_named(value, message, tmp_path):
    path = tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps({'model': {'network.0.key': value}}, 4))
    with pytest.raises(CheckpointError, match=(
            rf'x\.pdparams is damaged: network\.0\.key: .*{message}')):
        read_checkpoint(path)


@pytest.mark.parametrize('content, message', [
    ({'linear_0.w_0_moment1_0': np.ones(2, 'f4')}, 'a Paddle optimizer'),
    ({'linear_0.w_0_velocity_0': np.ones(2, 'f4')}, 'a Paddle optimizer'),
    ({'a': np.ones(2, 'f4'), 'LR_Scheduler': {'last_lr': 0.1}},
     'a Paddle optimizer.*give the .pdparams'),
    ({'a@@.0': np.ones(2, 'f4'), 'UnpackBigParamInfor@@': {}},
     'split parameters.*protocol=4'),
])
def test_files_without_whole_weights_are_refused(content, message, tmp_path):
    (tmp_path / 'x.pdopt').write_bytes(pickle.dumps(content, 4))
    with pytest.raises(CheckpointError, match='x.pdopt holds.*' + message):
        read_checkpoint(tmp_path / 'x.pdopt')
