"""Commands run in the tests' own process, where a fresh one takes seconds."""

import runpy
import sys
from unittest import mock


def run_command(path, *args):
    """Run a command; give what it ends with: 0 or its error."""
    with mock.patch.object(sys, 'argv', [str(path), *map(str, args)]):
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as done:
            return done.code
    return 0


def complaint(path, *args):
    """Run a command that has to end in one line, and give that."""
    error = run_command(path, *args)
    assert isinstance(error, str) and error.startswith('error: ')
    assert '\n' not in error, error
    return error
