"""Look at all data of a config: annotations, images and label maps.

    python -m mmcyclemlp check_dataset CONFIG --report findings.json

The exit code is 1 if anything is wrong, 0 if not; remarks are no errors.
"""

import json
import os
import sys

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
        description='Look at all data of a config: annotations, images and '
        'label maps.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS, help='which data to look at '
        '(default: all that the config has; test only if it is not val)')
    parser.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1),
        metavar='N', help='processes that open files (default: %(default)s; '
        '0 for none beside this one)')
    parser.add_argument(
        '--report', metavar='FILE.json', help='keep all findings')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv=None):
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
    if args.report:
        write(args.report, findings, check.numbers)
    if any(finding.error for finding in findings):
        sys.exit(1)


def present(cfg):
    splits = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    if cfg.get('val_dataloader') and cfg.get('test_dataloader') and (
            cfg.test_dataloader.dataset == cfg.val_dataloader.dataset):
        splits.remove('test')
    return splits


def show(findings, splits, numbers):
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


def write(path, findings, numbers):
    content = dict(
        images={split: dict(listed=listed, opened=opened)
                for split, (listed, opened) in numbers.items()},
        findings=[dict(split=finding.split, level=level(finding),
                       kind=finding.kind, message=finding.message,
                       names=[str(name) for name in finding.names])
                  for finding in findings])
    try:
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(content, file, indent=2)
    except OSError as error:
        raise UserError(f'--report: {path} cannot be written: '
                        f'{error.strerror}') from error
