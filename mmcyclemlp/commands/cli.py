"""What the commands that run a config have in common."""

import argparse
import errno
import os
import sys

from mmengine.config import DictAction

from ..backbones.checkpoint import CheckpointError
from ..ops import BackendUnavailable
from .errors import UserError


def add_cfg_options(parser):
    """Add the option that changes a config.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Options, metavar='KEY=VALUE',
        help='values that win over the config, e.g. '
        'train_dataloader.batch_size=4')


class _Options(DictAction):
    """mm's action, that says what it cannot read."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError, ValueError):
            parser.error(
                f'{option_string}: {" ".join(values)} is not KEY=VALUE, where '
                'a value is a number, a text, [1,2] or (1,2); what is in a '
                'dict is set one by one: model.neck.num_outs=5')


def add_trust(parser):
    """Add the option that lets a checkpoint run code.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--trust-checkpoint', action='store_true',
        help='run what a checkpoint of your own asks for, where it is '
        'refused because it holds more than weights and what mm keeps')


def add_check(parser):
    """Add the option that says what the check of the data may stop.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--check', choices=['error', 'warn', 'off'], default='error',
        help='what to do about mistakes that are found in the data before '
        'the run: error ends the command, warn logs them and goes on, off '
        'does not look (default: error)')


def parse_args(parser):
    """Add the options that every run has, and parse the command line.

    Args:
        parser (ArgumentParser): With the options of the command itself.

    Returns:
        Namespace: All of them. ``LOCAL_RANK`` is set in the environment.
    """
    parser.add_argument(
        '--work-dir', help='where logs and checkpoints go '
        '(default: work_dirs/<name of the config>)')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='how several processes were started')
    add_trust(parser)
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def run(main):
    """Call a command; mistakes of the user end it in one line."""
    try:
        main()
    except (UserError, CheckpointError, BackendUnavailable) as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f'error: {error}: make room, and go on with --resume')
