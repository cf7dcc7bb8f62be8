"""Convert weights of CycleMLP between the layouts of several libraries.

    python -m mmcyclemlp convert_checkpoint CycleMLP_B1.pth b1.safetensors
    python -m mmcyclemlp convert_checkpoint cyclemlp_b1.pdparams b1.pth
    python -m mmcyclemlp convert_checkpoint work_dirs/mine/epoch_12.pth b1.pth

This command needs torch alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ..backbones.convert import LAYOUTS, convert_checkpoint
from ..errors import CheckpointError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'convert_checkpoint',
        description='Convert weights of CycleMLP, and report what the file '
        'holds. No code in the file is run, every key is accounted for, and '
        'a file is written only if all keys fit.')
    parser.add_argument(
        'checkpoint', help='file to read, a path or URL: an official .pth, a '
        '.pdparams of Paddle, a .safetensors, or a checkpoint of a '
        'classifier, detector or segmentor of mm, whose backbone is used. '
        'The content of the file decides, not its name')
    parser.add_argument(
        'out', help='file to write, a .pth or a .safetensors')
    parser.add_argument(
        '--to', choices=LAYOUTS, default='official',
        help='official (the default): the keys of the official code, with '
        'its offset buffers, in a .pth under "model"; init_cfg, '
        'load_pretrained and the official code read it. mm: the same keys '
        'after "backbone.", without offsets, in a .pth under "state_dict"; '
        'load_from of a whole mm model reads it')
    parser.add_argument(
        '--arch', metavar='NAME|JSON',
        help='the arch that the file must have, e.g. b1, or your own sizes, '
        'e.g. \'{"embed_dims": [32, 64], "depths": [1, 1], "mlp_ratios": '
        '[4, 4]}\' (default: the named arch that the tensors fit)')
    parser.add_argument(
        '--prefix', metavar='NAME', help='the network to convert if there '
        'are several, e.g. teacher.backbone')
    parser.add_argument(
        '--entry', metavar='KEY', help='the weights to convert if the file '
        'has several, e.g. ema_state_dict or model_ema (default: '
        'state_dict, else model, else the file itself)')
    parser.add_argument(
        '--drop-head', action='store_true', help='drop the head of a '
        'classifier, to train it on other classes')
    parser.add_argument(
        '--force', action='store_true', help='replace out if it exists')
    cli.add_trust(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    arch = args.arch
    if arch is not None and arch.lstrip().startswith('{'):
        try:
            arch = json.loads(arch)
        except ValueError as error:
            raise CheckpointError(
                f'--arch: {arch} is not JSON: {error}') from error
    report = convert_checkpoint(
        args.checkpoint, args.out, args.to, arch, args.prefix, args.entry,
        args.drop_head, args.force, args.trust_checkpoint)
    sys.stdout.reconfigure(errors='backslashreplace')
    try:
        print(report, flush=True)
    except OSError as error:
        sys.exit(f'error: {args.out} is written, but the report cannot be '
                 f'printed: {error.strerror}')
