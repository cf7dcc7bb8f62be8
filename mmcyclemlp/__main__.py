"""Run a command by its name: python -m mmcyclemlp train CONFIG."""

import ast
import difflib
import runpy
import sys

from .carried import carried

PROG = 'python -m mmcyclemlp'


def summary(path):
    """First line of what a command says of itself."""
    docstring = ast.get_docstring(ast.parse(path.read_text('utf-8')))
    return docstring.partition('\n')[0]


def main():
    """Hand the command line to the command that it names."""
    commands = {path.stem: path
                for path in sorted(carried('tools').glob('*.py'))}
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(f'usage: {PROG} COMMAND ...\n\ncommands '
              f'({PROG} COMMAND --help says more):')
        width = max(map(len, commands))
        for command, path in commands.items():
            print(f'  {command:{width}}  {summary(path)}')
        return
    if name not in commands:
        alike = difflib.get_close_matches(name, commands, n=1)
        sys.exit(f'error: there is no command {name}'
                 + (f'; {alike[0]} is alike' if alike else '')
                 + f' ({PROG} --help lists all)')
    sys.argv = sys.argv[1:]
    runpy.run_path(str(commands[name]), run_name='__main__')


if __name__ == '__main__':
    main()
