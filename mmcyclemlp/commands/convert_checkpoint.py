"""Convert weights of CycleMLP between the programs that read them.

    python -m mmcyclemlp convert_checkpoint CycleMLP_B1.pth b1.safetensors
    python -m mmcyclemlp convert_checkpoint cyclemlp_b1.pdparams b1.pth
    python -m mmcyclemlp convert_checkpoint work_dirs/mine/epoch_12.pth b1.pth
"""

import json
import sys

from ..backbones.convert import LAYOUTS, convert_checkpoint
from ..errors import CheckpointError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'convert_checkpoint',
        description='Convert weights of CycleMLP, and report what is in '
        'them. No code in a file is run, every key is accounted for, and '
        'unless all is well nothing is written.')
    parser.add_argument(
        'source', metavar='SRC',
        help='what to read, a path or URL: an official .pth, a .pdparams of '
        'Paddle, a .safetensors, or a checkpoint of a classifier, detector '
        'or segmentor of mm, whose backbone is taken. Told apart by what '
        'they hold, not by their names')
    parser.add_argument(
        'target', metavar='DST',
        help='what to write, a .pth or a .safetensors by its ending')
    parser.add_argument(
        '--to', choices=LAYOUTS, default='official',
        help='official (the default): the keys of the official code, with '
        'its offset buffers, in a .pth under "model"; init_cfg, '
        'load_pretrained and the official code read it. mm: the same keys '
        'behind "backbone.", without offsets, in a .pth under "state_dict"; '
        'a whole mm model reads it by load_from')
    parser.add_argument(
        '--arch', metavar='NAME|JSON',
        help='what the arch must be, e.g. b1, or your own sizes, e.g. '
        '\'{"embed_dims": [32, 64], "depths": [1, 1], "mlp_ratios": [4, 4]}'
        '\' (default: a named one, found from the tensors)')
    parser.add_argument(
        '--prefix', metavar='NAME', help='which network to take, where '
        'there are several, e.g. teacher.backbone')
    parser.add_argument(
        '--entry', metavar='KEY', help='which weights to take, where the '
        'file has several, e.g. ema_state_dict or model_ema (default: '
        'state_dict, else model, else the file itself)')
    parser.add_argument(
        '--drop-head', action='store_true', help='leave out the head of a '
        'classifier, to train it on other classes')
    parser.add_argument(
        '--force', action='store_true', help='replace DST if it exists')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='read a PyTorch '
        'file of your own that is refused; code in it is run')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    arch = args.arch
    if arch is not None and arch.lstrip().startswith('{'):
        try:
            arch = json.loads(arch)
        except ValueError as error:
            raise CheckpointError(
                f'--arch {arch} is no JSON: {error}') from error
    report = convert_checkpoint(
        args.source, args.target, args.to, arch, args.prefix, args.entry,
        args.drop_head, args.force, args.trust_checkpoint)
    sys.stdout.reconfigure(errors='backslashreplace')
    try:
        print(report, flush=True)
    except OSError as error:
        sys.exit(f'error: {args.target} is written, but the report cannot '
                 f'be printed: {error.strerror}')
