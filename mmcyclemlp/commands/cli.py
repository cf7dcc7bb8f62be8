"""Options that several commands have in common."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from ..errors import UserError

try:
    from mmengine.config import DictAction
except ImportError:  # an arch in place of a config needs no mmengine
    DictAction = argparse.Action


def new_parser(command: str, **kwargs: Any) -> argparse.ArgumentParser:
    """Make the parser of a command.

    Args:
        command: Name of the command.
        kwargs: Arguments of ``argparse.ArgumentParser``.
    """
    return argparse.ArgumentParser(
        prog=f'python -m mmcyclemlp {command}', **kwargs)


def add_size(parser: argparse.ArgumentParser, meaning: str,
             default: tuple | None = None) -> None:
    """Add the option that sets the height and width of images.

    Args:
        parser: Parser of the command.
        meaning: Text of ``--help``.
        default: Height and width.
    """
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        default=default, help=meaning)


def check_size(size: Sequence[int], least: int, step: int = 1) -> None:
    """Check the value of ``--size``.

    Raises:
        UserError: A side is less than ``least`` pixels, or no multiple of
            ``step``.
    """
    given = ' '.join(map(str, size))
    if min(size) < least:
        raise UserError(f'--size: {given} is less than {least} pixels')
    if any(side % step for side in size):
        raise UserError(f'--size: {given} is no multiple of {step} pixels, '
                        'the stride of the last stage')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option that selects the device."""
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: a '
                        'GPU if there is one)')


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Add the option that writes a result as JSON.

    Args:
        parser: Parser of the command.
        content: What is written.
    """
    parser.add_argument('--json', metavar='PATH',
                        help=f'write {content} to a JSON file')


def write_json(path: str, content: Any) -> None:
    """Write the file of ``--json``.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(content, file, indent=2)
    except OSError as error:
        raise UserError(f'--json: {path} cannot be written: '
                        f'{error.strerror}') from error


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes values of a config."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Options, metavar='KEY=VALUE',
        help='values that override the config, e.g. '
        'train_dataloader.batch_size=4')


class _Options(DictAction):
    """mm's action, with an error that names what it cannot read."""

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
        help='unpickle a checkpoint that is refused because it holds more '
        'than weights and what mm saves. This runs code in it, so use it '
        'only for your own files')


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the option that sets what happens on mistakes in the data."""
    parser.add_argument(
        '--check', choices=['error', 'warn', 'off'], default='error',
        help='what to do about mistakes that are found in the data before '
        'the run: error stops the command, warn logs them and continues, '
        'off does not check (default: error)')


def parse_run_args(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
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
