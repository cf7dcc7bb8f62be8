"""Count parameters and multiply-adds, by stage and by op.

    python -m mmcyclemlp get_flops CONFIG --size 800 1280
    python -m mmcyclemlp get_flops b1

Counted are convolutions and matrix products of one image, in the paper's
formulas or as executed; norms, activations and resizing are left out.
"""

import json
import logging

from mmengine.config import Config, ConfigDict

from ..apis.complexity import count
from ..backbones import CycleNet
from ..engine.config import read_config
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'get_flops',
        description='Count the parameters and multiply-adds of a detector, '
        'a segmentor, a classifier or the backbone alone. Counted are '
        'convolutions and matrix products for one image; norms, activations '
        'and resizing are left out. Nothing is computed, so any size takes '
        'seconds.')
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {", ".join(CycleNet.arch_settings)}')
    parser.add_argument(
        '--size', type=int, nargs='+', metavar='PIXELS', help='height and '
        'width of the image, or one number for a square (default: 224 for a '
        'classifier or backbone, 800 1280 for a detector, 512 for a '
        'segmentor)')
    parser.add_argument(
        '--executed', action='store_true', help='count what the blocks here '
        "execute, which is less, in place of the paper's formulas")
    parser.add_argument(
        '--json', action='store_true', help='print JSON in place of tables')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    size = args.size
    if size is not None:
        if len(size) > 2 or min(size) < 1:
            raise UserError('--size takes one or two numbers of pixels, got '
                            f'{" ".join(map(str, size))}')
        size = (size[0], size[-1])
    if args.config in CycleNet.arch_settings:
        cfg = Config(dict(model=dict(backbone=ConfigDict(
            type='CycleNet', arch=args.config))))
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
    else:
        cfg = read_config(args.config, options=args.cfg_options)
    counts = count(cfg, size, args.executed)
    if args.json:
        print(json.dumps(dict(
            parameters=counts.parameters, macs=counts.macs)))
    else:
        show(counts)


def show(counts):
    parameters, macs = counts.total()
    rows = [('part', 'parameters', 'multiply-adds', '')]
    for part in {**counts.parameters, **counts.macs}:
        run = sum(counts.macs.get(part, {}).values())
        rows.append((part, mega(counts.parameters.get(part, 0)), giga(run),
                     share(run, macs)))
    rows += [('total', mega(parameters), giga(macs), '')]
    table(rows)
    print()
    table([('op', 'multiply-adds', ''),
           *((op, giga(own), share(own, macs))
             for op, own in counts.by_op().most_common())])


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
