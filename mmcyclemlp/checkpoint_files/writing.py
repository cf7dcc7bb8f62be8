"""Write a checkpoint completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
from typing import Callable

import torch

from ..errors import CheckpointError
from .reading import read_checkpoint

ENDINGS = ('.pth', '.safetensors')


def check_target(target: str | os.PathLike, source: str | os.PathLike,
                 force: bool = False) -> None:
    """Check whether a file may be written, before the work is done.

    Args:
        target (str | PathLike): Path of the file to write.
        source (str | PathLike): Path of the file to read.
        force (bool): Whether an existing file other than ``source`` may be
            replaced. Default: False.

    Raises:
        CheckpointError: The file may not be written.
    """
    target = os.fspath(target)
    source = os.path.expanduser(os.fspath(source))
    if not target.endswith(ENDINGS):
        raise CheckpointError(
            f'{target}: the ending selects the format and must be one of '
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


def write_checkpoint(content: dict, target: str | os.PathLike) -> None:
    """Write a checkpoint completely or not at all, and read it back.

    Args:
        content (dict): Content to write; for a ``.safetensors`` tensors only.
        target (str | PathLike): Path with one of :data:`ENDINGS`.

    Raises:
        CheckpointError: The file cannot be written, or reading it returns
            other content.
    """
    target = os.fspath(target)

    def check(path):
        if not _same(content, read_checkpoint(path)):
            raise CheckpointError('reading it back returns other content')

    try:
        if target.endswith('.safetensors'):
            from safetensors.torch import save

            data = save(content, metadata={'format': 'pt'})
        else:
            # In memory first, as torch's errors do not tell that a disk is
            # full.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            data = buffer.getbuffer()
        write_whole(data, target, check)
    except ImportError as error:
        raise CheckpointError(
            f'{target} needs a package: pip install safetensors') from error
    except Exception as error:  # safetensors and torch have their own
        reason = getattr(error, 'strerror', None) or str(error).split('\n')[0]
        raise CheckpointError(
            f'{target} cannot be written: {reason}') from error


def write_whole(data: bytes | memoryview, target: str | os.PathLike,
                check: Callable[[str], object]) -> None:
    """Write a file completely or not at all.

    The file is written under another name in the same folder, synced to the
    disk, checked and renamed. An existing file stays until then.

    Args:
        data (bytes | memoryview): Content of the file.
        target (str | PathLike): Path of the file.
        check (Callable): ``check(path)`` is called before the file is
            renamed, and raises if the file is wrong.

    Raises:
        OSError: The file cannot be written.
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
    entry = os.open(folder or '.', os.O_RDONLY)  # sync the new name, too
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def _same(a, b):
    """Return whether keys, types and values are the same, bit by bit."""
    if isinstance(a, dict):
        return (isinstance(b, dict) and a.keys() == b.keys()
                and all(_same(a[key], b[key]) for key in a))
    if isinstance(a, torch.Tensor):
        return (isinstance(b, torch.Tensor) and a.dtype == b.dtype
                and a.shape == b.shape
                and torch.equal(a.reshape(-1).view(torch.uint8),
                                b.reshape(-1).view(torch.uint8)))
    return a == b


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
