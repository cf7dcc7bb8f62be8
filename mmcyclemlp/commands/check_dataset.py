"""Check all data of a config: annotations, images and label maps.

    python -m mmcyclemlp check_dataset CONFIG --json findings.json

The exit code is 1 if there is an error, and 0 if there are only remarks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..data_checks import DataCheck, Look
from ..engine.config import read_config
from ..engine.config_checks import check_config
from ..errors import UserError
from . import cli

SPLITS = ('train', 'val', 'test')
SHOWN = 5


def parse_args(argv):
    parser = cli.new_parser(
        'check_dataset',
        description='Check all data of a config: annotations, images and '
        'label maps. The exit code is 1 if there is an error.')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS, help='which data to check '
        '(default: all splits of the config, but test only if it differs '
        'from val)')
    parser.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1),
        metavar='N', help='number of worker processes that open files; 0 '
        'opens them in the main process (default: %(default)s)')
    cli.add_json(parser, 'all findings')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    cfg = read_config(args.config, options=args.cfg_options)
    check_config(cfg, 'check')
    splits = args.splits or present(cfg)
    for split in splits:
        if cfg.get(f'{split}_dataloader') is None:
            raise UserError(f'--splits: {args.config} has no '
                            f'{split}_dataloader')
    if args.workers < 0:
        raise UserError(f'--workers: {args.workers} is less than 0')
    check = DataCheck(cfg, splits, Look(workers=args.workers, bar=True))
    findings = check.run()
    show(findings, splits, check.numbers)
    if args.json:
        cli.write_json(args.json, as_json(findings, check.numbers))
    if any(finding.error for finding in findings):
        sys.exit(1)


def present(cfg):
    """Return the splits of a config, without a test that equals val."""
    splits = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    if cfg.get('val_dataloader') and cfg.get('test_dataloader') and (
            cfg.test_dataloader.dataset == cfg.val_dataloader.dataset):
        splits.remove('test')
    return splits


def show(findings, splits, numbers):
    """Print the findings by split."""
    for split in splits:
        listed, opened = numbers.get(split, (0, 0))
        print(f'\n{split}: {listed} images, {opened} opened')
        for finding in findings:
            if finding.split == split:
                print(f'  {level(finding)}: {finding.kind} '
                      f'({max(1, len(finding.names))})\n    '
                      f'{finding.message}')
                for name in finding.names[:SHOWN]:
                    print(f'      {name}')
                if len(finding.names) > SHOWN:
                    print(f'      and {len(finding.names) - SHOWN} more')
    errors = sum(finding.error for finding in findings)
    print(f'\n{errors} errors, {len(findings) - errors} remarks')


def level(finding):
    return 'error' if finding.error else 'remark'


def as_json(findings, numbers):
    """Return the findings as plain values."""
    return dict(
        images={split: dict(listed=listed, opened=opened)
                for split, (listed, opened) in numbers.items()},
        findings=[dict(split=finding.split, level=level(finding),
                       kind=finding.kind, message=finding.message,
                       names=[str(name) for name in finding.names])
                  for finding in findings])
