"""Read checkpoint files without running code, and write them atomically.

PyTorch's and Paddle's files are pickles. Both are read through an unpickler
that builds tensors and plain containers and refuses everything else.
"""

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
    'ENDINGS', 'CheckpointFile', 'check_target', 'checked_key',
    'read_checkpoint', 'read_file', 'sha256', 'write_checkpoint',
    'write_whole'
]
