"""PyTorch's files: zip archives, and the format from before 1.6."""

import math
import os
import tarfile
import types
import zipfile
from collections import OrderedDict

import torch

from ..errors import CheckpointError
from .unpickler import checked_key, ordered_dict, restricted_unpickler

# How one's own file is read, as the tools and init_cfg spell it.
_IF_OWN = ('. If the file is your own, --trust-checkpoint (in init_cfg: '
           'trusted=True) reads it all the same')


def read_trusted(path):
    with open(path, 'rb') as file:
        return torch.load(file, map_location='cpu', weights_only=False)


def read_pytorch(path, source, allow):
    unpickler = restricted_unpickler(path, source, {
        'collections.OrderedDict': ordered_dict,
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
