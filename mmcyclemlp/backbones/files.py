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
        allow (dict | None): Further harmless objects to build, by their
            full name. Default: None.
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

    def __setstate__(self, state):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __hash__(self):
        return id(self)


def _restricted_unpickler(source, allow, remedy=''):
    """An unpickler that builds ``allow`` and nothing else.

    Functions and classes of ours in it are made anew for each file: a
    pickle can set attributes on them.
    """
    placeholder = type('_Placeholder', (_Placeholder, ), {})

    class Unpickler(pickle.Unpickler):

        def find_class(self, module, name):
            full_name = f'{module}.{name}'
            if full_name in allow:
                return allow[full_name]
            if module == 'torch' and isinstance(
                    getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if _LEFT_OUT.fullmatch(full_name):
                return placeholder
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
    records = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        if any(one.filename.endswith('/constants.pkl') for one in records):
            raise CheckpointError(
                f'{source} is a TorchScript program, not a checkpoint: '
                'save its state_dict() and load that')
        if any(one.compress_type for one in records):
            raise ValueError('compressed, which torch.save does not do')

    def tensor(storage, offset, size, stride, *others):
        # Else files of the old format get memory that was never written.
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        held = storage._untyped_storage.nbytes() // storage.dtype.itemsize
        if math.prod(size) and not 0 <= last < held:
            raise ValueError(f'a tensor of {tuple(size)} in {held} elements')
        return torch._utils._rebuild_tensor_v2(
            storage, offset, size, stride, *others)

    def parameter(*args):
        return torch._utils._rebuild_parameter(*args)

    # Storages are resolved by torch.load itself.
    unpickler = _restricted_unpickler(source, {
        'collections.OrderedDict': OrderedDict,
        'torch.Size': torch.Size,
        'torch.device': torch.device,
        'torch._utils._rebuild_tensor_v2': tensor,
        'torch._utils._rebuild_parameter': parameter,
        **allow}, _IF_OWN)
    if records is not None:
        unpickler = _with_whole_storages(unpickler, records)
    restricted = types.ModuleType('restricted_pickle')
    restricted.Unpickler = unpickler
    restricted.load = lambda file, **kwargs: unpickler(file, **kwargs).load()
    with open(path, 'rb') as file:  # of a path torch asks the ending
        # Safe in spite of weights_only=False.
        return torch.load(file, map_location='cpu', weights_only=False,
                          pickle_module=restricted)


def _with_whole_storages(unpickler, records):
    """Refuse a storage whose record has not the size the pickle says.

    torch 2.1 believes the pickle, and reads on behind a shorter record.
    """
    def checked(load):
        def persistent_load(saved_id):
            _, kind, key, _, count = saved_id
            size = count * getattr(kind, 'dtype', torch.uint8).itemsize
            if [one.file_size for one in records
                    if one.filename.endswith(f'/data/{key}')] != [size]:
                raise ValueError(f'storage {key} is not of {size} bytes')
            return load(saved_id)

        return persistent_load

    class Unpickler(unpickler):

        def __setattr__(self, name, value):
            # torch.load sets it on the unpickler it has made.
            if name == 'persistent_load':
                value = checked(value)
            super().__setattr__(name, value)

    return Unpickler


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

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    """Stands for numpy.ndarray while a pickle is read."""

    def __setstate__(self, state):
        self.state = state


def _read_paddle(path, source, allow):
    array = type('ndarray', (_Array, ), {})
    builders = {
        'collections.OrderedDict': OrderedDict,
        'numpy.ndarray': array,
        'numpy.dtype': type('dtype', (_Dtype, ), {}),
        '_codecs.encode': lambda text, encoding: text.encode('latin1'),
        'builtins.tuple': lambda items: tuple(items),
        '__builtin__.tuple': lambda items: tuple(items),
    }
    for core in ('numpy.core', 'numpy._core'):
        builders[f'{core}.multiarray._reconstruct'] = lambda *args: array()
    unpickler = _restricted_unpickler(source, builders)
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
    """Write a file whole or not at all, and read it back.

    It is written under another name in the same folder, read, compared bit
    by bit, and renamed: what lay there before stays until then.

    Args:
        content (dict): What to write; for a ``.safetensors`` tensors only.
        target (str | PathLike): Path, ending as :data:`ENDINGS` say.

    Raises:
        CheckpointError: It cannot be written, or is read back otherwise.
    """
    target = os.fspath(target)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f'.{name}.{secrets.token_hex(4)}.part')
    try:
        with open(temporary, 'xb') as file:
            if target.endswith('.safetensors'):
                from safetensors.torch import save

                file.write(save(content, metadata={'format': 'pt'}))
            else:
                # In memory first: torch's errors hide that a disk is full.
                buffer = io.BytesIO()
                torch.save(content, buffer)
                file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if not _same(content, read_checkpoint(temporary)):
            raise CheckpointError('what was written is not what is read')
        os.replace(temporary, target)
    except ImportError as error:
        raise CheckpointError(
            f'{target} needs a package: pip install safetensors') from error
    except Exception as error:  # torch wraps a full disk in its own
        reason = getattr(error, 'strerror', None) or str(error).split('\n')[0]
        raise CheckpointError(
            f'{target} cannot be written: {reason}') from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


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
