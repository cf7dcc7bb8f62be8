"""Read a checkpoint; its first bytes, not its name, tell its format."""

from __future__ import annotations

import logging
import os
from http.client import HTTPException
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError
from .paddle import read_paddle
from .pytorch import read_pytorch, read_trusted

logger = logging.getLogger('mmcyclemlp')


class CheckpointFile(NamedTuple):
    """A file that was read.

    Attributes:
        content (Any): Its content, with tensors on the CPU in PyTorch's
            layout.
        kind (str): 'PyTorch', 'Paddle' or 'safetensors'.
        path (str): Its path; for a URL the path of the downloaded file.
    """

    content: Any
    kind: str
    path: str


def read_checkpoint(source: str | os.PathLike, allow: dict | None = None,
                    trusted: bool = False) -> Any:
    """Read a checkpoint to CPU memory without running any code from it.

    An unpickler of this package builds tensors and plain containers, skips
    known by-products of training and refuses everything else. PyTorch's
    ``weights_only`` would refuse the ``argparse.Namespace`` of the official
    files, which it can be told to skip only since torch 2.5. Paddle's files
    are read without Paddle and NumPy; their 2-D weights are transposed.

    Args:
        source (str | PathLike): Path or http(s) URL of a PyTorch file, a
            ``.safetensors`` or a ``.pdparams``.
        allow (dict | None): What a pickle may build in addition. A key is
            the full name of a function or class, and its value the harmless
            function that is called instead; or a key is a type, and its
            value ``set_state(obj, state)`` sets the state of its objects.
            Default: None.
        trusted (bool): Whether to let a PyTorch file build, and so run, all
            that it asks for. Default: False.

    Returns:
        Any: Content of the file, as a rule a dict.

    Raises:
        CheckpointError: There is no such file, it is not a checkpoint, or
            its pickle asks for more than tensors need.
    """
    return read_file(source, allow, trusted).content


def read_file(source: str | os.PathLike, allow: dict | None = None,
              trusted: bool = False) -> CheckpointFile:
    """Read a checkpoint, as :func:`read_checkpoint`, and tell its format.

    Args:
        source (str | PathLike): See :func:`read_checkpoint`.
        allow (dict | None): See :func:`read_checkpoint`. Default: None.
        trusted (bool): See :func:`read_checkpoint`. Default: False.

    Returns:
        CheckpointFile: Content, kind and path.

    Raises:
        CheckpointError: See :func:`read_checkpoint`.
    """
    source = os.fspath(source)
    path = os.path.expanduser(source)
    if source.startswith(('http://', 'https://')):
        path = _download(source)
        source = f'{source} (saved as {path})'
    if not os.path.isfile(path):
        raise CheckpointError(f'there is no checkpoint file {source}')
    try:
        kind = _kind(path)
        if kind is None:
            raise CheckpointError(
                f'{source} is damaged or not a checkpoint: it does not begin '
                'as a file of PyTorch, Paddle or safetensors')
        if trusted and kind == 'PyTorch':
            content = read_trusted(path)
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
    except Exception as error:  # torch and pickle raise any
        reason = ': '.join([type(error).__name__,
                            *str(error).split('\n')[:1]])
        raise CheckpointError(
            f'{source} is damaged or not a checkpoint: {reason}') from error
    return CheckpointFile(content, kind, path)


def _download(url):
    """Return the path of the file of a URL, in torch.hub's cache."""
    path = os.path.join(torch.hub.get_dir(), 'checkpoints',
                        os.path.basename(url.partition('?')[0]))
    if not os.path.exists(path):
        logger.info('downloading %s to %s', url, path)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(url, path, progress=False)
        except (OSError, ValueError, HTTPException) as error:
            raise CheckpointError(
                f'{url} cannot be downloaded ({error}). Download it '
                f'elsewhere and save it as {path}, or give its path instead '
                'of the URL') from error
    return path


# PyTorch's files from before 1.6 begin with this number.
_TORCH_MAGIC = b'l\xfc\x9cF\xf9 j\xa8P\x19'


def _kind(path):
    """Return 'PyTorch', 'Paddle', 'safetensors' or None."""
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


def _read_safetensors(path, source, allow):
    from safetensors.torch import load_file

    return load_file(path)


_READERS = {
    'PyTorch': read_pytorch,
    'safetensors': _read_safetensors,
    'Paddle': read_paddle,
}
