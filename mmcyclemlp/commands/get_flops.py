"""Count parameters and multiply-adds, by stage and by op.

    python -m mmcyclemlp get_flops CONFIG --size 800 1280
    python -m mmcyclemlp get_flops b1

An arch such as b1 needs torch alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..apis.complexity import Counts, count
from ..apis.models import ARCHS, read_model_config
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'get_flops',
        description='Count the parameters and multiply-adds of a detector, '
        'a segmentor, a classifier or the backbone alone. Convolutions and '
        'matrix products for one image are counted; norms, activations and '
        'resizing are not. Nothing is computed, so any size takes seconds.')
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {ARCHS}')
    cli.add_size(
        parser, 'height and width of the image (default: 224 224 for a '
        'classifier or backbone, 800 1280 for a detector, 512 512 for a '
        'segmentor)')
    parser.add_argument(
        '--executed', action='store_true', help='count what the blocks of '
        "this package execute, which is less than the paper's formulas")
    cli.add_json(parser, 'the counts')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    if args.size is not None:
        cli.check_size(args.size, 1)
    cfg = read_model_config(args.config, args.cfg_options)
    counts = count(cfg, args.size, args.executed)
    show(counts)
    if args.json:
        cli.write_json(args.json, dict(parameters=counts.parameters,
                                       macs=counts.macs))


def show(counts: Counts) -> None:
    """Print the counts by part and by op."""
    parameters, macs = counts.total()
    rows = [('part', 'parameters', 'multiply-adds', '')]
    for part in {**counts.parameters, **counts.macs}:
        executed = sum(counts.macs.get(part, {}).values())
        rows.append((part, mega(counts.parameters.get(part, 0)),
                     giga(executed), share(executed, macs)))
    rows += [('total', mega(parameters), giga(macs), '')]
    table(rows)
    print()
    table([('op', 'multiply-adds', ''),
           *((op, giga(number), share(number, macs))
             for op, number in counts.by_op().most_common())])


def mega(number):
    return f'{number / 1e6:.2f} M'


def giga(number):
    return f'{number / 1e9:.2f} G'


def share(number, whole):
    return f'{100 * number / max(1, whole):.1f} %'


def table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *rest in rows:
        print(f'{first:{widths[0]}}' + ''.join(
            f'  {cell:>{width}}' for cell, width in zip(rest, widths[1:])))
