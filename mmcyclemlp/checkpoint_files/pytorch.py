"""Read PyTorch's files: zip archives, and the format from before 1.6."""

from __future__ import annotations

import math
import os
import tarfile
import types
import zipfile
from collections import OrderedDict
from typing import Any

import torch

from ..errors import CheckpointError
from .unpickler import checked_key, ordered_dict, restricted_unpickler

# How a user reads a file that is refused but trusted.
_IF_TRUSTED = ('. If the file is your own, --trust-checkpoint (in init_cfg: '
               'trusted=True) reads it all the same')


def read_trusted(path: str) -> Any:
    """Read a file with everything that its pickle calls."""
    with open(path, 'rb') as file:
        return torch.load(file, map_location='cpu', weights_only=False)


def read_pytorch(path: str, source: str, allow: dict) -> Any:
    """Read a file with ``torch.load`` and a restricted unpickler.

    Args:
        path (str): Path of the file.
        source (str): Name of the file in messages.
        allow (dict): See :func:`read_checkpoint`.

    Returns:
        Any: Content of the file.

    Raises:
        CheckpointError: The file is refused.
        Exception: The file is damaged.
    """
    sizes = None
    if zipfile.is_zipfile(path):
        sizes = _verified_sizes(path, source)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(
            f'{source} is a tar archive, as PyTorch 0.1 wrote: load it with '
            'that version and save it again')
    restricted = _restricted_pickle(restricted_unpickler(path, source, {
        'collections.OrderedDict': ordered_dict,
        OrderedDict: _set_versions,
        'torch.Size': _size,
        'torch.device': torch.device,
        'torch._utils._rebuild_tensor_v2': _tensor,
        'torch._utils._rebuild_parameter': _parameter,
        **allow}, _IF_TRUSTED), sizes)
    # Given a path, torch.load would look at its ending.
    with open(path, 'rb') as file:
        # weights_only=False is safe here: the pickle module is restricted.
        content = torch.load(file, map_location='cpu', weights_only=False,
                             pickle_module=restricted)
        if sizes is None and file.read(1):
            raise ValueError('there are more bytes after the last storage')
    return content


def _restricted_pickle(restricted, sizes):
    """Return a module that ``torch.load`` uses in place of ``pickle``.

    torch trusts the sizes in the pickle: torch 2.1 reads past the end of a
    shorter record, and in the old format torch allocates whatever the pickle
    states. So each storage is loaded only if the file has its size.

    Args:
        restricted (type): The unpickler.
        sizes (dict | None): Sizes of the records of a zip archive by name.
    """
    storages = {}  # sizes in bytes by key

    def check(saved_id):
        what, kind, key, _, count = saved_id[:5]
        size = count * kind.dtype.itemsize
        if what not in ('storage', b'storage') or storages.setdefault(
                checked_key(key), size) != size:
            raise ValueError(f'storage {key} has two sizes')
        if sizes is not None and sizes.get(f'data/{key}') != size or (
                not 0 <= size <= restricted.size):
            raise ValueError(f'storage {key} is not of {size} bytes')

    class Unpickler(restricted):

        def __setattr__(self, name, value):
            # torch.load sets persistent_load on the unpickler it creates.
            if name == 'persistent_load':
                load_storage = value

                def value(saved_id):
                    check(saved_id)
                    return load_storage(saved_id)

            super().__setattr__(name, value)

    def load(file, **kwargs):
        # The old format has further pickles; the last one lists storages.
        content = Unpickler(file, **kwargs).load()
        if isinstance(content, list) and set(
                map(checked_key, content)) != set(storages):
            raise ValueError('some storages are not in the file')
        return content

    module = types.ModuleType('restricted_pickle')
    module.Unpickler, module.load = Unpickler, load
    return module


def _verified_sizes(path, source):
    """Return the sizes of the records by name, after their checksums match.

    torch does not verify the checksums.
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
        # torch returns uninitialized memory for a record marked as a folder.
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
    """Set what Module.state_dict() adds to tensors: versions of modules."""
    metadata = state.get('_metadata') if isinstance(state, dict) else None
    if isinstance(metadata, dict):
        state_dict._metadata = OrderedDict(
            (key, {'version': value.get('version')})
            for key, value in metadata.items()
            if isinstance(value, dict)
            and isinstance(value.get('version'), int))


def _size(numbers=()):
    if len(numbers) > 64 or not all(
            isinstance(n, int) and 0 <= n < 1 << 63 for n in numbers):
        raise ValueError('a shape that no tensor has')
    return torch.Size(numbers)


def _tensor(storage, offset, size, stride, requires_grad, *others):
    size, stride = _size(size), _size(stride)
    if len(size) != len(stride):
        raise ValueError(f'a tensor of {tuple(size)} by {tuple(stride)}')
    # In the old format torch would return uninitialized memory.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    available = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    count = math.prod(size)
    if count and not (count <= available and 0 <= offset <= last < available):
        raise ValueError(f'a tensor of {tuple(size)} in {available} elements')
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, requires_grad is True, OrderedDict())


def _parameter(data, requires_grad, *others):
    return torch.nn.Parameter(data, requires_grad is True)
