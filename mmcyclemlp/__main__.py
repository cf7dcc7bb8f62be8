"""Run a command by its name: ``python -m mmcyclemlp train CONFIG``."""

from __future__ import annotations

import ast
import difflib
import errno
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError

PROG = 'python -m mmcyclemlp'
_NOT_COMMANDS = ('__init__', 'cli')
# Libraries that only some commands need.
_OPTIONAL = ('PIL', 'cv2', 'matplotlib', 'mmcv', 'mmdet', 'mmengine',
             'mmpretrain', 'mmseg', 'numpy')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names.

    This is the one place that turns errors of the user into a line and an
    exit code.

    Args:
        argv: Name of the command and its arguments. None for those of the
            process.

    Raises:
        SystemExit: With one line for the user if there is an error.
    """
    name, *argv = (sys.argv[1:] if argv is None else argv) or ['--help']
    commands = {path.stem: path for path in sorted(
        Path(__file__).with_name('commands').glob('*.py'))
        if path.stem not in _NOT_COMMANDS}
    if name in ('-h', '--help'):
        print(f'usage: {PROG} COMMAND ...\n\ncommands '
              f'({PROG} COMMAND --help describes one):')
        width = max(map(len, commands))
        for command, path in commands.items():
            print(f'  {command:{width}}  {_summary(path)}')
        return
    if name not in commands:
        similar = difflib.get_close_matches(name, commands, n=1)
        sys.exit(f'error: there is no command {name}'
                 + (f'; did you mean {similar[0]}?' if similar else '')
                 + f' ({PROG} --help lists all)')
    try:
        importlib.import_module(f'.commands.{name}', __package__).main(argv)
    except UserError as error:
        sys.exit(f'error: {error}')
    except ModuleNotFoundError as error:
        package = (error.name or '').partition('.')[0]
        if package not in _OPTIONAL:
            raise
        sys.exit(f'error: {name} needs {package}, which is not installed: '
                 'see "Installing" in the README')
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        resume = ', then continue with --resume' * (name == 'train')
        sys.exit(f'error: {error}: free disk space{resume}')


def _summary(path):
    """Return the first line of a command's docstring, without an import."""
    docstring = ast.get_docstring(ast.parse(path.read_text('utf-8')))
    return docstring.partition('\n')[0]


if __name__ == '__main__':
    main()
