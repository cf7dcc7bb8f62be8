"""Writing a checkpoint: whole, or not at all."""

import contextlib
import hashlib
import io
import os
import secrets

import torch

from ..errors import CheckpointError
from .reading import read_checkpoint

ENDINGS = ('.pth', '.safetensors')


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
