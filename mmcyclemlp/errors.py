"""Errors that a user can cause: each is one line with the remedy."""

import traceback
from pathlib import Path


class UserError(Exception):
    """Base of all errors that a mistake in the user's input can cause.

    The message names the value that is wrong and the remedy. Commands print
    it as one line and end with exit code 1.
    """

    def __str__(self):
        text, name = super().__str__(), type(self).__name__
        if not text.startswith(f'Caught {name} in '):
            return text
        # torch raises the error of a worker again, after its traceback.
        return text.rpartition(f'{name}: ')[2].rstrip()


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or written, or does not fit the network."""

    def __str__(self):
        return one_line(super().__str__())


class RefusedError(CheckpointError):
    """A pickle asks for more than tensors and plain containers."""


class NotCycleNetError(CheckpointError):
    """A checkpoint has tensors, but no CycleNet."""


class MismatchError(CheckpointError):
    """Tensors do not fit the network. The message does not name the file."""


class BackendUnavailable(UserError, RuntimeError):
    """The requested backend cannot run here. The message says why."""


class ExportError(UserError, ValueError):
    """A network cannot be exported. The message says why."""


class Stopped(SystemExit):
    """A run was asked to stop and is saved. The exit code is 75."""

    def __init__(self):
        super().__init__(75)


def one_line(text: str) -> str:
    """Escape what is not printable, such as in the keys of a file."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type."""
    return str(error).strip().split('\n')[0] or type(error).__name__


def describe(error: Exception) -> str:
    """Describe in one line an exception that other code raised, and where.

    Args:
        error: The exception, as it was caught.

    Returns:
        Such as ``AssertionError (models/necks/fpn.py, line 170)``.
    """
    text = ': '.join(filter(None, [
        type(error).__name__, ' '.join(f'{error}'.split())]))
    place = traceback.extract_tb(error.__traceback__)[-1]
    file = '/'.join(Path(place.filename).parts[-3:])
    return f'{text} ({file}, line {place.lineno})'
