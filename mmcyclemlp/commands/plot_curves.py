"""Plot how training went: loss, learning rate, mAP or mIoU of several runs.

    python -m mmcyclemlp plot_curves work_dirs/mine --smooth 0.9
"""

from pathlib import Path

from ..analysis.curves import (
    RecordsError,
    draw_curves,
    find_key,
    read_run,
    usual_keys,
)
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'plot_curves',
        description='Plot curves of one run or several on one picture, a '
        'panel for each key. A run that was resumed is one curve.')
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR',
        help='folder that tools/train.py wrote into')
    parser.add_argument(
        '--keys', nargs='+', metavar='KEY', help='what to plot, such as loss '
        'lr bbox_mAP mIoU (default: these, as far as they are recorded)')
    parser.add_argument(
        '--names', nargs='+', metavar='NAME', help='what to call the runs '
        '(default: the names of their folders)')
    parser.add_argument(
        '--smooth', type=float, default=0., metavar='WEIGHT', help='draw a '
        'running mean where what came before has this weight, 0 to below 1 '
        '(default: %(default)s); validations and learning rates are left as '
        'they are')
    parser.add_argument(
        '--out', default='curves.png', metavar='FILE.png',
        help='where to write (default: %(default)s)')
    parser.add_argument('--list', action='store_true',
                        help='print the keys that are recorded, and end')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if not 0 <= args.smooth < 1:
        raise UserError(f'--smooth: {args.smooth} is not within 0 and 1')
    names = args.names or [None] * len(args.work_dirs)
    if len(names) != len(args.work_dirs):
        raise UserError(f'--names: {len(names)} names for '
                        f'{len(args.work_dirs)} runs')
    for path in args.work_dirs:
        if not Path(path).exists():
            raise UserError(f'there is no folder {path}')
    try:
        runs = [read_run(path, name)
                for path, name in zip(args.work_dirs, names)]
        keys = [find_key(key, runs) for key in args.keys or usual_keys(runs)]
    except RecordsError as error:
        raise UserError(error) from error
    if args.list:
        print('\n'.join(sorted({
            key for run in runs for key in [*run.training,
                                            *run.validation]})))
        return
    try:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        draw_curves(runs, keys, args.smooth).savefig(args.out, dpi=100)
    except (OSError, ValueError) as error:
        raise UserError(
            f'{args.out} cannot be written: '
            f'{getattr(error, "strerror", None) or error}') from error
    print(args.out)
