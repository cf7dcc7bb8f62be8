"""Files are read without running them, and written whole or not at all."""

import contextlib
import os
import pickle
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from helpers import hostile_files as hostile
from helpers import paddle_file
from helpers.child_process import run_apart

from mmcyclemlp.backbones.convert import convert_checkpoint
from mmcyclemlp.checkpoint_files import (
    check_target,
    read_checkpoint,
    read_file,
    write_checkpoint,
)
from mmcyclemlp.errors import CheckpointError


@pytest.fixture
def state():
    return {
        'square.weight': torch.randn(3, 3),
        'oblong.weight': torch.randn(2, 5),
        'point.weight': torch.randn(2, 2, 1, 1),
        'bias': torch.randn(3),
        'half': torch.randn(4).half(),
        'bf16.weight': torch.randn(2, 4).bfloat16(),
        'offset': torch.zeros(1, 6, 1, 1),
    }


def same(a, b):
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key])
        for key in a)


@pytest.mark.parametrize('core', paddle_file.CORES)
@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('layout', ['plain', 'pairs', 'pairs under model'])
def test_paddle_is_read_in_pytorchs_layout(layout, protocol, core, state,
                                           tmp_path):
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
    assert same(content, state)
    assert all(value.is_contiguous() for value in content.values())


def test_arrays_by_column_and_empty_ones(tmp_path):
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


@pytest.mark.parametrize('kind', ['PyTorch', 'old PyTorch', 'Paddle',
                                  'safetensors'])
@pytest.mark.parametrize('name', ['x.pth', 'x.pdparams', 'x.safetensors',
                                  'x'])
def test_the_content_says_what_it_is(kind, name, state, tmp_path):
    path = tmp_path / name
    if kind == 'safetensors':
        pytest.importorskip('safetensors.torch').save_file(state, path)
    elif kind == 'Paddle':
        path.write_bytes(paddle_file.dumps(paddle_file.pairs(state)))
    else:
        torch.save(state, path,
                   _use_new_zipfile_serialization=kind == 'PyTorch')
    file = read_file(path)
    assert file.kind == kind.replace('old ', '')
    assert same(file.content, state)


class Payload:
    """Unpickles as a call that leaves a canary behind."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Asked for by pickle of what is called in its turn."""


def opened(path):
    return Payload(open, str(path), 'w')


HOSTILE = {
    'alone': lambda bird: opened(bird),
    'beside the weights': lambda bird: {
        'a': np.ones(2, 'f4'), 'b': opened(bird)},
    'as a name': lambda bird: {'a': Payload(
        tuple, (opened(bird), np.ones(2, 'f4')))},
    'within an array': lambda bird: {
        'a': np.array([opened(bird)], dtype=object)},
    'system': lambda bird: Payload(os.system, f'touch {bird}'),
    # As paddle.save keeps a DenseTensor.
    'eval': lambda bird: {'a': Payload(eval, f'open({str(bird)!r}, "w")')},
    'getattr chain': lambda bird: Payload(
        Payload(getattr, Payload(__import__, 'os'), 'system'),
        f'touch {bird}'),
    'numpy': lambda bird: Payload(
        np.lib.format.open_memmap, str(bird), 'w+', 'f4', (1, )),
    'nested load': lambda bird: Payload(
        pickle.loads, pickle.dumps(opened(bird))),
}


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('place', HOSTILE)
def test_hostile_paddle_files_are_refused(place, protocol, tmp_path):
    bird, path = tmp_path / 'canary', tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps(HOSTILE[place](bird), protocol))
    with contextlib.suppress(CheckpointError):
        content = read_checkpoint(path)
        # A thing of numpy's may be left out, but not with a weight.
        assert place == 'numpy' and not isinstance(content, dict)
    assert not bird.exists()
    # They are no duds.
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes())
    assert bird.exists()


@pytest.mark.parametrize('place', ['eval', 'system', 'alone'])
def test_the_refusal_names_what_was_asked_for(place, tmp_path):
    path = tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps(HOSTILE[place](tmp_path / 'canary'), 4))
    with pytest.raises(CheckpointError, match=(
            r'x\.pdparams is refused: its pickle asks for '
            r'(builtins\.eval|posix\.system|_?io\.open)')):
        read_checkpoint(path)


@pytest.mark.parametrize('name', [
    'collections OrderedDict', 'numpy dtype', 'numpy ndarray',
    'numpy.core.multiarray _reconstruct', '_codecs encode',
    'builtins tuple', 'torch._utils _rebuild_tensor_v2'])
def test_a_file_cannot_spoil_the_next(name, state, tmp_path):
    # Sets attributes on what it asks for: (None, {...}) is their state.
    module, attribute = name.split()
    spoil = (f'c{module}\n{attribute}\n(N}}'.encode()
             + b'U\x0c__defaults__(K\x01K\x02K\x03K\x04K\x05K\x06K\x07tstb.')
    (tmp_path / 'bad').write_bytes(b'\x80\x02' + spoil)
    (tmp_path / 'bad.pth').write_bytes(
        pickle.dumps(0x1950a86a20f9469cfc6c, 2) + pickle.dumps(1001, 2)
        + pickle.dumps({}, 2) + b'\x80\x02' + spoil + pickle.dumps([], 2))
    (tmp_path / 'good').write_bytes(
        paddle_file.dumps(paddle_file.pairs(state), 2))
    torch.save(state, tmp_path / 'good.pth')
    for bad in ('bad', 'bad.pth'):
        with contextlib.suppress(CheckpointError):
            read_checkpoint(tmp_path / bad)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None, )
    for good in ('good', 'good.pth'):
        assert same(read_checkpoint(tmp_path / good), state)


def test_a_view_past_its_storage_is_refused(tmp_path):
    # In the old format torch grows the storage by memory of anyone's.
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(
        wrap_storage=storage, dtype=torch.float32, _internal=True)
    content = {'a': Payload(torch._utils._rebuild_tensor_v2, typed, 0,
                            (1000, ), (1, ), False, {})}
    for zipped in (True, False):
        torch.save(content, tmp_path / 'x.pth',
                   _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r'\(1000,\) in 4 elements'):
            read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('way, message', [
    ('short record', 'storage 0 is not of 4000 bytes'),
    ('compressed', 'compressed, which torch.save does not do')])
def test_a_record_that_is_not_what_the_pickle_says(way, message, tmp_path):
    # torch 2.1 reads on behind a short one.
    torch.save({'a': torch.zeros(1000)}, tmp_path / 'good.pth')
    compression = zipfile.ZIP_DEFLATED if way == 'compressed' else 0
    with zipfile.ZipFile(tmp_path / 'good.pth') as good, zipfile.ZipFile(
            tmp_path / 'x.pth', 'w', compression) as bad:
        for name in good.namelist():
            short = way == 'short record' and name.endswith('data/0')
            bad.writestr(name, good.read(name)[:4 if short else None])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('cut', [0, 1, 2, 9, 100, -40, -1])
def test_truncated_paddle_files(cut, state, tmp_path):
    path = tmp_path / 'x.pdparams'
    path.write_bytes(paddle_file.dumps(paddle_file.plain(state))[:cut])
    with pytest.raises(CheckpointError, match='x.pdparams is damaged or not'):
        read_checkpoint(path)


class Raw:
    """An array with a state of one's own."""

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
    ({'linear_0.w_0_moment1_0': np.ones(2, 'f4')}, 'a Paddle optimiser'),
    ({'linear_0.w_0_velocity_0': np.ones(2, 'f4')}, 'a Paddle optimiser'),
    ({'a': np.ones(2, 'f4'), 'LR_Scheduler': {'last_lr': 0.1}},
     'a Paddle optimiser.*take the .pdparams'),
    ({'a@@.0': np.ones(2, 'f4'), 'UnpackBigParamInfor@@': {}},
     'cut parameters.*protocol=4'),
])
def test_paddle_files_that_are_named_and_refused(content, message, tmp_path):
    (tmp_path / 'x.pdopt').write_bytes(pickle.dumps(content, 4))
    with pytest.raises(CheckpointError, match='x.pdopt holds.*' + message):
        read_checkpoint(tmp_path / 'x.pdopt')


def test_neither_of_them(tmp_path):
    (tmp_path / 'x.pth').write_text('<html>Not Found</html>')
    with pytest.raises(CheckpointError, match=(
            'x.pth is damaged or not a checkpoint: it begins as no')):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_what_is_written_is_read(name, state, tmp_path):
    pytest.importorskip('safetensors')
    write_checkpoint(state, tmp_path / name)
    assert same(read_checkpoint(tmp_path / name), state)
    assert os.listdir(tmp_path) == [name]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'source.pth'
    path.write_bytes(b'source')
    return path


def test_targets_that_are_refused(source, tmp_path, monkeypatch):
    (tmp_path / 'there.pth').write_bytes(b'there')
    (tmp_path / 'folder.pth').mkdir()
    (tmp_path / 'link.pth').symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for target, message in [
            ('x.onnx', 'x.onnx: the ending.*one of .pth, .safetensors'),
            ('gone/x.pth', 'x.pth: there is no folder gone'),
            ('source.pth/x.pth', 'there is no folder source.pth'),
            ('folder.pth', 'folder.pth is a folder'),
            ('there.pth', 'there.pth exists.*--force')]:
        with pytest.raises(CheckpointError, match=message):
            check_target(target, source)
    check_target('there.pth', source, force=True)
    for target in ('source.pth', 'link.pth', './folder.pth/../source.pth'):
        with pytest.raises(CheckpointError, match='is the file to read'):
            check_target(target, source, force=True)


def fail(*args):
    raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('where', ['os.fsync', 'os.replace'])
@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_failure_leaves_what_was_there(where, name, state, tmp_path,
                                         monkeypatch):
    pytest.importorskip('safetensors')
    (tmp_path / name).write_bytes(b'before')
    monkeypatch.setattr(where, fail)
    with pytest.raises(CheckpointError, match=(
            f'{name} cannot be written: No space left on device')):
        write_checkpoint(state, tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b'before'


@pytest.mark.parametrize('change', [
    lambda state: state.pop('bias'),
    lambda state: state['bias'].neg_(),
    lambda state: state['offset'].neg_(),  # -0 for 0
    lambda state: state.update(half=state['half'].float()),
    lambda state: state.update(bias=state['bias'][None]),
])
def test_what_is_read_back_otherwise_is_not_written(change, state, tmp_path,
                                                    monkeypatch):
    def read(path):
        content = read_checkpoint(path)
        change(content)
        return content

    monkeypatch.setattr(
        sys.modules['mmcyclemlp.checkpoint_files.writing'],
        'read_checkpoint', read)
    with pytest.raises(CheckpointError, match='not what is read'):
        write_checkpoint(state, tmp_path / 'x.pth')
    assert not os.listdir(tmp_path)


def test_a_disk_that_fills_up(run_python, tmp_path):
    pytest.importorskip('safetensors')
    code = """
import resource, sys, torch
from mmcyclemlp.checkpoint_files import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_checkpoint({'a': torch.ones(100000)}, sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""
    for name in ('x.pth', 'x.safetensors'):
        done = run_python('-c', code, tmp_path / name)
        assert 'CheckpointError' in done.stdout
        assert f'{name} cannot be written' in done.stdout
        assert len(done.stdout.splitlines()) == 1
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not os.path.isdir('/sys/kernel'), reason='needs Linux')
def test_a_folder_one_may_not_write_to(state):
    with pytest.raises(CheckpointError, match='/sys/x.pth cannot be written'):
        write_checkpoint(state, '/sys/x.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_a_trusted_file_is_read_whatever_it_asks_for(zipped, state, tmp_path):
    bird = tmp_path / 'canary'
    torch.save({**state, 'more': opened(bird)}, tmp_path / 'x.pth',
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=(
            r'asks for _?io\.open, .* your own, --trust-checkpoint \(in '
            r'init_cfg: trusted=True\) reads it all the same$')):
        read_checkpoint(tmp_path / 'x.pth')
    assert not bird.exists()
    content = read_checkpoint(tmp_path / 'x.pth', trusted=True)
    assert bird.exists()
    content.pop('more').close()
    assert same(content, state)


def test_trust_is_for_pytorchs_files(tmp_path):
    bird, path = tmp_path / 'canary', tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps(opened(bird), 4))
    with pytest.raises(CheckpointError, match=r'as \.safetensors$'):
        read_checkpoint(path, trusted=True)
    assert not bird.exists()


def open_trustingly(path):
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes())


@pytest.mark.parametrize('name', hostile.HOSTILE)
def test_hostile_files_are_refused(name, tmp_path):
    bird, path = tmp_path / 'canary', tmp_path / 'x.pth'
    path.write_bytes(hostile.HOSTILE[name](
        f'touch {bird}', hostile.small_checkpoint(), tmp_path))
    renamed = tmp_path / 'x.safetensors'
    renamed.write_bytes(path.read_bytes())
    for file in (path, renamed):
        if name in hostile.READ:
            read_checkpoint(file)
        else:
            with pytest.raises(CheckpointError) as error:
                read_checkpoint(file)
            assert len(str(error.value).splitlines()) == 1
        with pytest.raises(CheckpointError):
            convert_checkpoint(file, tmp_path / 'y.pth')
    time.sleep(0.05)
    assert not bird.exists() and not (tmp_path / 'y.pth').exists()
    if name not in hostile.SLEEPERS:  # the others are no duds
        # Apart: what is run here may spoil classes that others need.
        run_apart(open_trustingly, path, seconds=60, memory=4 << 30)
        for _ in range(50):
            if bird.exists():
                break
            time.sleep(0.1)  # it runs in another process
        assert bird.exists()


@pytest.mark.parametrize('name', hostile.BOMBS)
def test_files_that_never_end(name, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(hostile.BOMBS[name]())
    outcome = run_apart(lambda: read_checkpoint(path) is None)
    if name in hostile.HARMLESS:
        assert outcome.value, outcome
        return
    assert outcome.error == 'CheckpointError', outcome
    assert 'x.pth is ' in outcome.text and len(outcome.text) < 500


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.full((1000, ), 3.)}, path)
    flipped(path, path.read_bytes().index(b'\0\0\x40\x40') + 100)
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
    assert same(read_checkpoint(tmp_path / 'x.pth'), state)


def test_storages_that_the_old_format_does_not_hold(tmp_path):
    # Their memory would be what was there before.
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.ones(3)}, path,
               _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(b'\x80\x02]')
    path.write_bytes(data[:at] + pickle.dumps([], 2))
    with pytest.raises(CheckpointError, match='are not in the file'):
        read_checkpoint(path)


def test_a_record_that_is_marked_as_a_folder(tmp_path):
    # torch succeeds, with memory that was never written.
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.ones(1000)}, path)
    place = path.read_bytes().rindex(b'/data/0')
    start = path.read_bytes().rindex(b'PK\x01\x02', 0, place)
    data = bytearray(path.read_bytes())
    data[start + 38] |= 0x10
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='torch.save does not write'):
        read_checkpoint(path)


def test_what_lies_behind_a_file_of_the_old_format(state, tmp_path):
    # Bytes were put in before: each read on from the wrong place.
    path = tmp_path / 'x.pth'
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(path), state)
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(CheckpointError, match='more behind its end'):
        read_checkpoint(path)


def test_a_tar_is_not_unpacked(tmp_path):
    data = hostile.HOSTILE['tar that begins as a pickle']('true', {}, tmp_path)
    (tmp_path / 'x.pth').write_bytes(data)
    with pytest.raises(CheckpointError, match='x.pth is a tar archive'):
        read_checkpoint(tmp_path / 'x.pth')


def test_what_a_state_dict_knows_of_its_modules(tmp_path):
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    torch.save(norm.state_dict(), tmp_path / 'x.pth')
    state = read_checkpoint(tmp_path / 'x.pth')
    assert state._metadata['0'] == norm.state_dict()._metadata['0']
    assert vars(state) == {'_metadata': state._metadata}
