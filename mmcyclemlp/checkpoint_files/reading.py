"""Reading a checkpoint: what a file is, its first bytes say, not its name."""

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


def _read_safetensors(path, source, allow):
    from safetensors.torch import load_file

    return load_file(path)


_READERS = {
    'PyTorch': read_pytorch,
    'safetensors': _read_safetensors,
    'Paddle': read_paddle,
}
