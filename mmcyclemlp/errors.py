"""How a command ends in one line."""

import traceback
from pathlib import Path


class UserError(Exception):
    """Something given to a command is wrong; says what and the remedy."""

    def __str__(self):
        # torch puts the traceback of a data loader's worker before it.
        return super().__str__().rpartition('UserError: ')[2].rstrip()


def describe(error):
    """Say in one line what another's code raised, and where.

    Args:
        error (Exception): As it was caught.

    Returns:
        str: Such as ``AssertionError (models/necks/fpn.py, line 170)``.
    """
    text = ': '.join(filter(None, [
        type(error).__name__, ' '.join(f'{error}'.split())]))
    place = traceback.extract_tb(error.__traceback__)[-1]
    file = '/'.join(Path(place.filename).parts[-3:])
    return f'{text} ({file}, line {place.lineno})'


class Stopped(SystemExit):
    """A run was asked to end, and is saved; Python's exit code is 75."""

    def __init__(self):
        super().__init__(75)
