"""Checkpoint files: read without running code, written whole or not at all.

PyTorch's and Paddle's files are pickles, so both are read through an
unpickler that builds tensors and plain containers and refuses the rest.
"""

from ..errors import CheckpointError, one_line
from .reading import CheckpointFile, read_checkpoint, read_file
from .unpickler import checked_key
from .writing import (
    ENDINGS,
    check_target,
    sha256,
    write_checkpoint,
    write_whole,
)

__all__ = [
    'ENDINGS', 'CheckpointError', 'CheckpointFile', 'check_target',
    'checked_key', 'one_line', 'read_checkpoint', 'read_file', 'sha256',
    'write_checkpoint', 'write_whole'
]
