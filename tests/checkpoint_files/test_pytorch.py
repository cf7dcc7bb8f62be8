"""PyTorch's files of both formats are read, and verified before."""

import pickle
import zipfile

import pytest
import torch
from helpers import hostile_files as hostile
from torch.testing import assert_close

from mmcyclemlp.checkpoint_files import read_checkpoint
from mmcyclemlp.errors import CheckpointError


def test_a_view_larger_than_its_storage_is_refused(tmp_path):
    # In the old format torch grows the storage by uninitialized memory.
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(
        wrap_storage=storage, dtype=torch.float32, _internal=True)
    content = {'a': hostile.Call(torch._utils._rebuild_tensor_v2, typed, 0,
                                 (1000, ), (1, ), False, {})}
    for zipped in (True, False):
        torch.save(content, tmp_path / 'x.pth',
                   _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r'\(1000,\) in 4 elements'):
            read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('way, message', [
    ('short record', 'storage 0 is not of 4000 bytes'),
    ('compressed', 'compressed, which torch.save does not do')])
def test_a_record_that_differs_from_the_pickle(way, message, tmp_path):
    # torch 2.1 reads past the end of a short record.
    torch.save({'a': torch.zeros(1000)}, tmp_path / 'good.pth')
    compression = zipfile.ZIP_DEFLATED if way == 'compressed' else 0
    with zipfile.ZipFile(tmp_path / 'good.pth') as good, zipfile.ZipFile(
            tmp_path / 'x.pth', 'w', compression) as bad:
        for name in good.namelist():
            short = way == 'short record' and name.endswith('data/0')
            bad.writestr(name, good.read(name)[:4 if short else None])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.full((1000, ), 3.)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b'\0\0\x40\x40') + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=(
            'x.pth is damaged or not a checkpoint: BadZipFile: Bad CRC-32')):
        read_checkpoint(path)


@pytest.mark.skipif(not hasattr(torch.serialization, 'set_crc32_options'),
                    reason='this torch always writes checksums')
def test_a_file_without_checksums(state, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_close(read_checkpoint(tmp_path / 'x.pth'), state, rtol=0, atol=0)


def test_storages_that_the_old_format_lacks(tmp_path):
    # torch would return uninitialized memory.
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.ones(3)}, path,
               _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(b'\x80\x02]')
    path.write_bytes(data[:at] + pickle.dumps([], 2))
    with pytest.raises(CheckpointError, match='are not in the file'):
        read_checkpoint(path)


def test_a_record_that_is_marked_as_a_folder(tmp_path):
    # torch would return uninitialized memory.
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    start = data.rindex(b'PK\x01\x02', 0, data.rindex(b'/data/0'))
    data[start + 38] |= 0x10
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='torch.save does not write'):
        read_checkpoint(path)


def test_bytes_after_a_file_of_the_old_format(state, tmp_path):
    # So inserted bytes are found, after which all numbers are wrong.
    path = tmp_path / 'x.pth'
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(CheckpointError, match='more bytes after the last'):
        read_checkpoint(path)


def test_a_tar_is_not_extracted(tmp_path):
    data = hostile.HOSTILE['tar that begins as a pickle']('true', {}, tmp_path)
    (tmp_path / 'x.pth').write_bytes(data)
    with pytest.raises(CheckpointError, match='x.pth is a tar archive'):
        read_checkpoint(tmp_path / 'x.pth')


def test_torchscript_is_refused(tmp_path):
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    scripted.save(str(tmp_path / 'x.pth'))
    with pytest.raises(CheckpointError, match='TorchScript'):
        read_checkpoint(tmp_path / 'x.pth')


def test_a_state_dict_keeps_the_versions_of_modules(tmp_path):
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    torch.save(norm.state_dict(), tmp_path / 'x.pth')
    state = read_checkpoint(tmp_path / 'x.pth')
    assert state._metadata['0'] == norm.state_dict()._metadata['0']
    assert vars(state) == {'_metadata': state._metadata}
