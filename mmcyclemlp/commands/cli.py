"""Options that several commands have in common."""

import argparse
import os
from collections.abc import Sequence
from typing import Optional

try:
    from mmengine.config import DictAction
except ImportError:  # an arch in place of a config needs no mmengine
    DictAction = argparse.Action


def new_parser(command: str, **kwargs) -> argparse.ArgumentParser:
    """Make the parser of a command.

    Args:
        command: Name of the command.
        kwargs: As of ``argparse.ArgumentParser``.
    """
    return argparse.ArgumentParser(
        prog=f'python -m mmcyclemlp {command}', **kwargs)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes values of a config."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Options, metavar='KEY=VALUE',
        help='values that override the config, e.g. '
        'train_dataloader.batch_size=4')


class _Options(DictAction):
    """mm's action, with an error that says what it cannot read."""

    def __call__(self, parser, namespace, values, option_string=None):
        if DictAction is argparse.Action:
            parser.error(f'{option_string} needs mmengine, which is not '
                         'installed')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError, ValueError):
            parser.error(
                f'{option_string}: {" ".join(values)} is not KEY=VALUE. A '
                'value is a number, a text, [1,2] or (1,2). Set the keys of '
                'a dict one by one: model.neck.num_outs=5')


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets a checkpoint run code."""
    parser.add_argument(
        '--trust-checkpoint', action='store_true',
        help='unpickle a checkpoint of your own that is refused because it '
        'has more than weights and what mm saves; code in it is run')


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what the check of the data may stop."""
    parser.add_argument(
        '--check', choices=['error', 'warn', 'off'], default='error',
        help='what to do about mistakes that are found in the data before '
        'the run: error stops the command, warn logs them and continues, '
        'off does not check (default: error)')


def parse_run_args(
    parser: argparse.ArgumentParser,
    argv: Optional[Sequence[str]] = None,
) -> argparse.Namespace:
    """Add the options of train and test, and parse the command line.

    Returns:
        All options. ``LOCAL_RANK`` is set in the environment.
    """
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints '
        '(default: work_dirs/<name of the config>)')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='how several processes were started')
    add_trust(parser)
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
