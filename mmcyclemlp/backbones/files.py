"""Checkpoint files: read without running code, written whole or not at all.

What a file is, its first bytes say; its name is not asked. PyTorch's and
Paddle's files are pickles, which can call anything, so both are read through
an unpickler that builds tensors and plain containers and refuses the rest.
"""

import contextlib
import hashlib
import io
import logging
import math
import os
import pickle
import re
import secrets
import tarfile
import types
import zipfile
from collections import OrderedDict
from http.client import HTTPException
from typing import Any, NamedTuple

import torch

logger = logging.getLogger('mmcyclemlp')

ENDINGS = ('.pth', '.safetensors')


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, written, or made to fit the network."""

    def __str__(self):
        return one_line(super().__str__())


def one_line(text):
    """Text with all that is not printable escaped: keys are the file's."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in text)


class CheckpointFile(NamedTuple):
    """A file that was read.

    Attributes:
        content (Any): What it holds, tensors on the CPU in PyTorch's layout.
        kind (str): 'PyTorch', 'Paddle' or 'safetensors'.
        path (str): Where it lies, also if it came from a URL.
    """

    content: Any
    kind: str
    path: str


def read_checkpoint(source, allow=None, trusted=False):
    """Read a checkpoint to CPU memory without running any code from it.

    PyTorch's own ``weights_only`` refuses the ``argparse.Namespace`` of the
    official files and cannot be taught it before torch 2.5, so the file is
    read through an unpickler of its own, the same on every torch: tensors
    and plain containers are built, known by-products of training are left
    out, everything else is refused. Paddle's files need neither Paddle nor
    numpy; their 2-D weights are turned, as Paddle keeps a linear layer's as
    (in, out).

    Args:
        source (str | PathLike): Path or http(s) URL of a PyTorch file, a
            ``.safetensors`` or a ``.pdparams``.
        allow (dict | None): Further things to build: harmless functions,
            by the full name they are asked for, and by types what sets the
            state of their objects, ``set_state(thing, state)``.
            Default: None.
        trusted (bool): Whether the file is one's own, so that a PyTorch
            file may build, and so run, all it asks for. Default: False.

    Returns:
        dict: What the file holds.

    Raises:
        CheckpointError: No such file, not a checkpoint, or one whose
            pickle asks for more than tensors need; says what.
    """
    return read_file(source, allow, trusted).content


def read_file(source, allow=None, trusted=False):
    """As :func:`read_checkpoint`, but says too what kind of file it was.

    Returns:
        CheckpointFile: Content, kind and path.
    """
    source = os.fspath(source)
    path = os.path.expanduser(source)
    if source.startswith(('http://', 'https://')):
        path = _download(source)
        source = f'{source} (kept as {path})'
    if not os.path.isfile(path):
        raise CheckpointError(f'there is no checkpoint file {source}')
    try:
        kind = _kind(path)
        if kind is None:
            raise CheckpointError(
                f'{source} is damaged or not a checkpoint: it begins as no '
                'PyTorch, Paddle or safetensors file')
        if trusted and kind == 'PyTorch':
            content = _read_trusted(path)
        else:
            content = _READERS[kind](path, source, allow or {})
    except CheckpointError:
        raise
    except ImportError as error:
        raise CheckpointError(
            f'{source} needs a package: pip install safetensors') from error
    except PermissionError as error:
        raise CheckpointError(
            f'{source} cannot be read: {error.strerror}') from error
    except Exception as error:  # torch and pickle raise of any kind
        reason = ': '.join([type(error).__name__,
                            *str(error).split('\n')[:1]])
        raise CheckpointError(
            f'{source} is damaged or not a checkpoint: {reason}') from error
    return CheckpointFile(content, kind, path)


def _download(url):
    """Path of the file behind a URL, in torch.hub's cache."""
    path = os.path.join(torch.hub.get_dir(), 'checkpoints',
                        os.path.basename(url.partition('?')[0]))
    if not os.path.exists(path):
        logger.info('downloading %s to %s', url, path)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(url, path, progress=False)
        except (OSError, ValueError, HTTPException) as error:
            raise CheckpointError(
                f'{url} could not be downloaded ({error}). Get it by other '
                f'means and save it as {path}, or give its path in place of '
                'the URL') from error
    return path


# PyTorch's files from before 1.6 begin with this number.
_TORCH_MAGIC = b'l\xfc\x9cF\xf9 j\xa8P\x19'


def _kind(path):
    """'PyTorch', 'Paddle', 'safetensors' or None."""
    with open(path, 'rb') as file:
        head = file.read(32)
    if head.startswith(b'PK') or _TORCH_MAGIC in head:
        return 'PyTorch'
    # The length of a JSON object, and its first brace.
    length = int.from_bytes(head[:8], 'little')
    if head[8:9] == b'{' and length <= os.path.getsize(path) - 8:
        return 'safetensors'
    if head.startswith(b'\x80') and len(head) > 2:  # a pickle
        return 'Paddle'
    return None


# What training scripts leave beside the tensors. None of it is needed, so
# a placeholder takes its place and nothing of theirs is called.
_LEFT_OUT = re.compile(
    r'argparse\.Namespace'
    r'|mmengine\.logging\.history_buffer\.HistoryBuffer'
    r'|numpy(\.core|\._core)?\.\w+(\.\w+)?'
    r'|_codecs\.encode'
    r'|collections\.(Counter|defaultdict)'
    r'|(__builtin__|builtins)\.(getattr|set|slice)'
    r'|pathlib\.\w+')


class _Placeholder:
    """Stands for an object that was not unpickled."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __hash__(self):
        return id(self)


# What pickle writes in protocols 2 to 4, less what only numbers and texts
# need that are too large for a checkpoint.
_OPCODES = {ord(getattr(pickle, name)) for name in [
    'PROTO', 'FRAME', 'STOP', 'MARK', 'POP', 'POP_MARK', 'NONE', 'NEWTRUE',
    'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT',
    'SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINBYTES', 'BINBYTES',
    'SHORT_BINUNICODE', 'BINUNICODE', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1',
    'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT',
    'SETITEM', 'SETITEMS', 'EMPTY_SET', 'ADDITEMS', 'FROZENSET', 'BINGET',
    'LONG_BINGET', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GLOBAL',
    'STACK_GLOBAL', 'REDUCE', 'NEWOBJ', 'BUILD', 'BINPERSID']}
# CycleNet-B5 with its optimiser's state takes 200,000 reads and 5 levels.
_READS, _DEPTH, _ITEMS = 2_000_000, 32, 10_000_000


class _Unpickler(pickle._Unpickler):
    """Calls what ``find_class`` gives, in bounded time and memory.

    In Python, as that of C sets attributes on classes, makes room for what
    is not there, and hashes for ever.
    """

    # How the state of an object of a type is set: in no other way.
    setters = {}
    size = 0  # of the file

    def __init__(self, file, **kwargs):
        super().__init__(file, **kwargs)
        reads = iter(range(_READS))

        def read(number):
            next(reads)
            data = file.read(min(number, self.size))
            if len(data) < number:
                raise EOFError('the pickle is cut short')
            return data

        self._file_read = read
        self._file_readline = lambda: file.readline(1000)

    def load(self):
        try:
            content = super().load()
        except StopIteration:
            raise ValueError('the pickle is long beyond reason') from None
        _check_extent(content)
        return content

    def load_frame(self):
        self.read(8)  # a hint, and one of unlimited size

    def load_call(self):
        args = self.stack.pop()
        if not isinstance(args, tuple):
            raise TypeError('a call of no tuple')
        self.stack[-1] = self.stack[-1](*args)

    def load_state(self):
        state = self.stack.pop()
        owner = type(self.stack[-1])
        if owner not in self.setters:
            raise TypeError(f'a state for a {owner.__name__}')
        self.setters[owner](self.stack[-1], state)

    def set_items(self, items):
        target = self.stack[-1]
        if isinstance(target, _Placeholder):
            return
        if not isinstance(target, dict):
            raise TypeError(f'keys of a {type(target).__name__}')
        for key, value in zip(items[::2], items[1::2]):
            target[checked_key(key)] = value

    def add_items(self, items):
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(checked_key, items))
        elif isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, _Placeholder):
            raise TypeError(f'items of a {type(target).__name__}')

    def load_frozenset(self):
        items = self.pop_mark()
        self.append(frozenset(map(checked_key, items)))

    def refuse(self):
        raise ValueError('the pickle has what no checkpoint needs')

    dispatch = {
        **dict.fromkeys(range(256), refuse),
        **{code: load for code, load in pickle._Unpickler.dispatch.items()
           if code in _OPCODES},
        ord(pickle.FRAME): load_frame,
        ord(pickle.REDUCE): load_call,
        ord(pickle.NEWOBJ): load_call,
        ord(pickle.BUILD): load_state,
        ord(pickle.SETITEM): lambda self: self.set_items(
            [self.stack.pop(), self.stack.pop()][::-1]),
        ord(pickle.SETITEMS): lambda self: self.set_items(self.pop_mark()),
        ord(pickle.APPEND): lambda self: self.add_items([self.stack.pop()]),
        ord(pickle.APPENDS): lambda self: self.add_items(self.pop_mark()),
        ord(pickle.ADDITEMS): lambda self: self.add_items(self.pop_mark()),
        ord(pickle.FROZENSET): load_frozenset,
    }


def checked_key(key):
    """The key of a dict or set, if it is of a kind that hashes at once.

    A tuple of a tuple of ... twice takes for ever.

    Raises:
        TypeError: It is not.
    """
    if isinstance(key, int) and abs(key) < 1 << 60 or key is None or (
            isinstance(key, (str, bytes, _Placeholder))):
        return key
    raise TypeError(f'a key of type {type(key).__name__}')


_CONTAINERS = (dict, list, tuple)


def _check_extent(content):
    """Refuse what is deep, within itself, or repeated beyond reason."""
    known = {}

    def measure(value, room):
        depth, items = known.get(id(value), (_DEPTH, 0))
        if not items and room:
            parts = dict.values(value) if isinstance(value, dict) else value
            depth, items = 1, 1 + len(parts)
            for part in parts:
                if isinstance(part, _CONTAINERS):
                    inner, more = measure(part, room - 1)
                    depth, items = max(depth, inner + 1), items + more
            known[id(value)] = depth, items
        if depth > room or items > _ITEMS:
            raise ValueError('the pickle is nested beyond reason')
        return depth, items

    if isinstance(content, _CONTAINERS):
        measure(content, _DEPTH)


def _restricted_unpickler(path, source, allow, remedy=''):
    """An unpickler that builds ``allow`` and nothing else."""

    class Unpickler(_Unpickler):
        size = os.path.getsize(path)
        setters = {
            _Placeholder: lambda thing, state: None,
            **{key: value for key, value in allow.items()
               if isinstance(key, type)}}

        def find_class(self, module, name):
            full_name = f'{module}.{name}'
            if full_name in allow:
                return allow[full_name]
            if module == 'torch' and isinstance(
                    getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if _LEFT_OUT.fullmatch(full_name):
                return _Placeholder
            raise CheckpointError(
                f'{source} is refused: its pickle asks for '
                f'{full_name[:99]}, which weights do not need and which '
                'could run code. Get the weights from a source you trust, '
                f'or as .safetensors{remedy}')

    return Unpickler


# How one's own file is read, as the tools and init_cfg spell it.
_IF_OWN = ('. If the file is your own, --trust-checkpoint (in init_cfg: '
           'trusted=True) reads it all the same')


def _read_trusted(path):
    with open(path, 'rb') as file:
        return torch.load(file, map_location='cpu', weights_only=False)


def _read_torch(path, source, allow):
    unpickler = _restricted_unpickler(path, source, {
        'collections.OrderedDict': _ordered_dict,
        OrderedDict: _set_versions,
        'torch.Size': _size,
        'torch.device': torch.device,
        'torch._utils._rebuild_tensor_v2': _tensor,
        'torch._utils._rebuild_parameter': _parameter,
        **allow}, _IF_OWN)
    storages = {}  # bytes by key
    if zipfile.is_zipfile(path):
        sizes = _verified_sizes(path, source)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(
            f'{source} is a tar archive, as PyTorch 0.1 wrote: load it there '
            'and save it again')
    else:
        sizes = None

    def checked(load):
        """Take a storage only at the size the file has for it.

        torch believes the pickle: 2.1 reads on behind a shorter record, and
        in the old format makes room for whatever is said.
        """
        def persistent_load(saved_id):
            what, kind, key, _, count = saved_id[:5]
            size = count * kind.dtype.itemsize
            if what not in ('storage', b'storage') or storages.setdefault(
                    checked_key(key), size) != size:
                raise ValueError(f'storage {key} is not what it was')
            if sizes is not None and sizes.get(f'data/{key}') != size or (
                    not 0 <= size <= unpickler.size):
                raise ValueError(f'storage {key} is not of {size} bytes')
            return load(saved_id)

        return persistent_load

    class Unpickler(unpickler):

        def __setattr__(self, name, value):
            # torch.load sets it on the unpickler it has made.
            if name == 'persistent_load':
                value = checked(value)
            super().__setattr__(name, value)

    def load(file, **kwargs):
        # What stands before and behind the pickle in the old format.
        content = Unpickler(file, **kwargs).load()
        if isinstance(content, list) and set(
                map(checked_key, content)) != set(storages):
            raise ValueError('some storages are not in the file')
        return content

    restricted = types.ModuleType('restricted_pickle')
    restricted.Unpickler, restricted.load = Unpickler, load
    with open(path, 'rb') as file:  # of a path torch asks the ending
        # Safe in spite of weights_only=False.
        content = torch.load(file, map_location='cpu', weights_only=False,
                             pickle_module=restricted)
        if sizes is None and file.read(1):
            raise ValueError('there is more behind its end')
    return content


def _verified_sizes(path, source):
    """Sizes of the records by name, once they are held to their checksums.

    torch reads them without looking at these.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        sizes = {one.filename.partition('/')[2]: one.file_size
                 for one in records}
        if 'constants.pkl' in sizes:
            raise CheckpointError(
                f'{source} is a TorchScript program, not a checkpoint: '
                'save its state_dict() and load that')
        if any(one.compress_type for one in records):
            raise ValueError('compressed, which torch.save does not do')
        # Of what is marked as a folder torch gives memory nobody wrote.
        if len(sizes) < len(records) or archive.comment or (
                sum(sizes.values()) > os.path.getsize(path)) or any(
                one.is_dir() or one.external_attr & 0x10 for one in records):
            raise ValueError('records that torch.save does not write')
        # All are 0 where torch was told not to compute them.
        if any(one.CRC for one in records):
            for one in records:
                with archive.open(one) as record:
                    while record.read(1 << 20):
                        pass
    return sizes


def _set_versions(state_dict, state):
    """What Module.state_dict() knows beside tensors: versions of modules."""
    metadata = state.get('_metadata') if isinstance(state, dict) else None
    if isinstance(metadata, dict):
        state_dict._metadata = OrderedDict(
            (key, {'version': value.get('version')})
            for key, value in metadata.items()
            if isinstance(value, dict)
            and isinstance(value.get('version'), int))


def _ordered_dict(items=()):
    return OrderedDict((checked_key(key), value) for key, value in items)


def _size(numbers=()):
    if len(numbers) > 64 or not all(
            isinstance(n, int) and 0 <= n < 1 << 63 for n in numbers):
        raise ValueError('a shape of no tensor')
    return torch.Size(numbers)


def _tensor(storage, offset, size, stride, requires_grad, *others):
    size, stride = _size(size), _size(stride)
    if len(size) != len(stride):
        raise ValueError(f'a tensor of {tuple(size)} by {tuple(stride)}')
    # Else files of the old format get memory that was never written.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    held = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    count = math.prod(size)
    if count and not (count <= held and 0 <= offset <= last < held):
        raise ValueError(f'a tensor of {tuple(size)} in {held} elements')
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, requires_grad is True, OrderedDict())


def _parameter(data, requires_grad, *others):
    return torch.nn.Parameter(data, requires_grad is True)


def _read_safetensors(path, source, allow):
    from safetensors.torch import load_file

    return load_file(path)


# Types of arrays. numpy has no bfloat16: Paddle keeps its bits as u2.
_DTYPES = {
    'f2': torch.float16, 'f4': torch.float32, 'f8': torch.float64,
    'i1': torch.int8, 'i2': torch.int16, 'i4': torch.int32,
    'i8': torch.int64, 'u1': torch.uint8, 'u2': torch.bfloat16,
    'b1': torch.bool,
}
_OPTIMISER = re.compile(
    r'LR_Scheduler|master_weights|.*_(moment\d?|velocity|beta\d_pow_acc)_\d+')


class _Dtype:
    """Stands for numpy.dtype while a pickle is read."""

    order = '<'

    def __init__(self, name, *args):
        self.name = name

    def set_state(self, state):
        self.order = state[1]


class _Array:
    """Stands for numpy.ndarray while a pickle is read."""

    def set_state(self, state):
        self.state = state


def _read_paddle(path, source, allow):
    builders = {
        'collections.OrderedDict': _ordered_dict,
        'numpy.ndarray': _Array,
        _Array: _Array.set_state,
        'numpy.dtype': _Dtype,
        _Dtype: _Dtype.set_state,
        '_codecs.encode': lambda text, encoding: text.encode('latin1'),
        '__builtin__.bytes': lambda: b'',
        'builtins.tuple': lambda items: tuple(items),
        '__builtin__.tuple': lambda items: tuple(items),
    }
    for core in ('numpy.core', 'numpy._core'):
        builders[f'{core}.multiarray._reconstruct'] = lambda *args: _Array()
    unpickler = _restricted_unpickler(path, source, builders)
    with open(path, 'rb') as file:
        # latin1, as files of Python 2 keep bytes as text.
        content = unpickler(file, encoding='latin1').load()
    if isinstance(content, dict) and any(
            _OPTIMISER.fullmatch(str(key)) for key in content):
        raise CheckpointError(
            f'{source} holds the state of a Paddle optimiser and no '
            'weights: take the .pdparams that lies beside it')
    return _with_tensors(content, source)


def _with_tensors(content, source, nested=1):
    """Arrays, and (name, array) pairs, as tensors; a level of nesting."""
    if not isinstance(content, dict):
        return content
    if 'UnpackBigParamInfor@@' in content:
        raise CheckpointError(
            f'{source} holds UnpackBigParamInfor@@, so Paddle has cut '
            'parameters of over 1 GiB in pieces; no CycleNet has any. Save '
            'it again by paddle.save(..., protocol=4)')
    result = {}
    for key, value in content.items():
        if (isinstance(value, tuple) and len(value) == 2
                and isinstance(value[1], _Array)):
            value = value[1]
        if isinstance(value, _Array):
            try:
                value = _to_tensor(value)
            except Exception as error:  # whatever a hostile state brings
                raise CheckpointError(
                    f'{source} is damaged: {key}: {error}') from error
        elif isinstance(value, _Placeholder) and '.' in str(key):
            raise CheckpointError(
                f'{source}: {key} is no array as pickle protocols 2 to 4 '
                'keep it: save it again by paddle.save(..., protocol=4)')
        elif isinstance(value, dict) and nested:
            value = _with_tensors(value, source, nested - 1)
        result[key] = value
    return result


def _to_tensor(array):
    _, shape, dtype, by_column, data = array.state
    name = dtype.name
    name = name.decode() if isinstance(name, bytes) else name
    if name not in _DTYPES or dtype.order not in ('<', '=', '|'):
        raise ValueError(f'an array of type {dtype.order}{name}, which is '
                         'no number of a network')
    if isinstance(data, str):
        data = data.encode('latin1')
    dtype, count = _DTYPES[name], math.prod(shape)
    if len(data) != count * dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f'{len(data)} bytes for an array of {shape}')
    if count == 0:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        tensor = torch.frombuffer(bytearray(data), dtype=dtype)
    if by_column:
        tensor = tensor.reshape(shape[::-1]).permute(
            *range(len(shape))[::-1])
    tensor = tensor.reshape(shape)
    # By rank, never by shape: mlp_c and proj are square.
    return tensor.t().contiguous() if tensor.dim() == 2 else tensor


_READERS = {
    'PyTorch': _read_torch,
    'safetensors': _read_safetensors,
    'Paddle': _read_paddle,
}


def check_target(target, source, force=False):
    """Whether a file may be written, asked before the work is done.

    Args:
        target (str | PathLike): Path of the file to write.
        source (str | PathLike): Path of the file that was read.
        force (bool): Whether another file there may be replaced.

    Raises:
        CheckpointError: It may not; says why.
    """
    target = os.fspath(target)
    source = os.path.expanduser(os.fspath(source))
    if not target.endswith(ENDINGS):
        raise CheckpointError(
            f'{target}: the ending says what to write, and it is one of '
            f'{", ".join(ENDINGS)}')
    folder = os.path.dirname(target) or '.'
    if not os.path.isdir(folder):
        raise CheckpointError(f'{target}: there is no folder {folder}')
    if os.path.isdir(target):
        raise CheckpointError(f'{target} is a folder')
    if os.path.lexists(target):
        both = os.path.exists(source) and os.path.exists(target)
        if both and os.path.samefile(source, target):
            raise CheckpointError(
                f'{target} is the file to read: give another name')
        if not force:
            raise CheckpointError(
                f'{target} exists: give another name, or --force to '
                'replace it')


def write_checkpoint(content, target):
    """Write a checkpoint whole or not at all, and read it back.

    Args:
        content (dict): What to write; for a ``.safetensors`` tensors only.
        target (str | PathLike): Path, ending as :data:`ENDINGS` say.

    Raises:
        CheckpointError: It cannot be written, or is read back otherwise.
    """
    target = os.fspath(target)

    def check(path):
        if not _same(content, read_checkpoint(path)):
            raise CheckpointError('what was written is not what is read')

    try:
        if target.endswith('.safetensors'):
            from safetensors.torch import save

            data = save(content, metadata={'format': 'pt'})
        else:
            # In memory first: torch's errors hide that a disk is full.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            data = buffer.getbuffer()
        write_whole(data, target, check)
    except ImportError as error:
        raise CheckpointError(
            f'{target} needs a package: pip install safetensors') from error
    except Exception as error:  # torch wraps a full disk in its own
        reason = getattr(error, 'strerror', None) or str(error).split('\n')[0]
        raise CheckpointError(
            f'{target} cannot be written: {reason}') from error


def write_whole(data, target, check):
    """Write a file whole or not at all.

    It is written under another name in the same folder, brought to the disk,
    checked, and renamed: what lay there before stays until then.

    Args:
        data (bytes | memoryview): What to write.
        target (str | PathLike): Path of the file.
        check (Callable): Is given the path of the file before it is renamed,
            and raises if it is not as it must be.

    Raises:
        OSError: It cannot be written.
    """
    folder, name = os.path.split(os.fspath(target))
    temporary = os.path.join(folder, f'.{name}.{secrets.token_hex(4)}.part')
    try:
        with open(temporary, 'xb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)
    entry = os.open(folder or '.', os.O_RDONLY)  # the name, too
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def _same(a, b):
    """Whether keys, types and values are the same, bit by bit."""
    if isinstance(a, dict):
        return (isinstance(b, dict) and a.keys() == b.keys()
                and all(_same(a[key], b[key]) for key in a))
    if isinstance(a, torch.Tensor):
        return (isinstance(b, torch.Tensor) and a.dtype == b.dtype
                and a.shape == b.shape
                and torch.equal(a.reshape(-1).view(torch.uint8),
                                b.reshape(-1).view(torch.uint8)))
    return a == b


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
