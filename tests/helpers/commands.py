"""Run commands in the process of the tests, as a new one takes seconds."""

from mmcyclemlp.__main__ import main


def run_command(name, *args):
    """Run a command; return 0, or the code or message of its exit."""
    try:
        main([name, *map(str, args)])
    except SystemExit as done:
        return done.code or 0
    return 0


def error_of(name, *args):
    """Run a command that must end with a one-line error; return the line."""
    error = run_command(name, *args)
    assert isinstance(error, str) and error.startswith('error: ')
    assert '\n' not in error, error
    return error
