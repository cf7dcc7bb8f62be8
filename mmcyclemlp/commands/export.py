"""Export a network to ONNX, torch.export or TorchScript.

    python -m mmcyclemlp export CONFIG CHECKPOINT --out model.onnx
    python -m mmcyclemlp export b1 CycleMLP_B1.pth --out maps.onnx
    python -m mmcyclemlp export CONFIG CHECKPOINT --part neck --out neck.pt

The file takes images of any number and size. It is compared with the network
before it is saved. An arch such as b1 needs torch alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch

from ..apis.exportable_parts import PARTS, Normalized, build_part
from ..apis.models import ARCHS, is_arch, normalization_of, read_model_config
from ..errors import UserError
from ..export import FORMATS, TOLERANCE, check_output, write
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'export',
        description='Export a network for programs without mm. It takes '
        'normalized images (batch, channels, height, width) of any number '
        'and size. The command prints the names and shapes of the outputs. '
        'It runs the exported network at sizes other than the traced one, '
        'and saves it only if the outputs differ by at most '
        f'{TOLERANCE:.0e} of the largest value.')
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {ARCHS}')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint of the whole model; for '
        'the backbone or a classifier any file of weights, such as '
        'CycleMLP_B1.pth')
    parser.add_argument(
        '--out', metavar='FILE', required=True, help='file to write; its '
        'suffix sets the format: '
        + ', '.join(f'{ending} ({name})' for ending, name in FORMATS.items()))
    parser.add_argument(
        '--part', choices=PARTS, help='backbone: its feature maps; neck: the '
        'feature maps of the neck; whole: the logits of a classifier, the '
        'logits of a segmentor at the size of the image, or the outputs of '
        'the head of a detector like RetinaNet (default: whole, or backbone '
        'for an arch)')
    parser.add_argument(
        '--normalize', action='store_true', help='export the normalization '
        'too, so that the network takes values of 0 to 255')
    cli.add_size(
        parser, 'height and width to trace at, 64 or more each; the network '
        'takes other sizes too (default: 256 320)', (256, 320))
    parser.add_argument(
        '--no-check', action='store_true',
        help='do not run what was exported')
    parser.add_argument(
        '--random-weights', action='store_true', help='export without a '
        'checkpoint, to measure speed')
    cli.add_trust(parser)
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    ending = check_output(args.out, not args.no_check)
    if (args.checkpoint is None) != args.random_weights:
        raise UserError('give a checkpoint, or --random-weights to measure '
                        'the speed only')
    cli.check_size(args.size, 64)
    cfg = read_model_config(args.config, args.cfg_options)
    part = args.part or ('backbone' if is_arch(args.config) else 'whole')
    if is_arch(args.config):
        cfg['model']['backbone'].setdefault('fork_feat', part != 'whole')
    module = build_part(cfg, args.checkpoint, part, args.trust_checkpoint)
    channels = cfg['model']['backbone'].get('in_channels', 3)
    shapes = module.outputs(torch.zeros(1, channels, *args.size))
    mean, std, _, order = normalization_of(cfg)
    values = 'not normalized' if mean is None else f'(x - {mean}) / {std}'
    if args.normalize:
        if mean is None:
            raise UserError('--normalize: the config has no data_preprocessor'
                            ' with mean and std')
        module = Normalized(module, mean, std)
        values = '0 to 255'
    differences = write(
        module, args.out, list(shapes), args.size, channels,
        255 if args.normalize else 1, not args.no_check)
    print(f'{args.out}: {FORMATS[ending]}, '
          f'{os.path.getsize(args.out) / 1e6:.1f} MB\n'
          f'image {(1, channels, *args.size)}: {order}, {values}')
    for name, shape in shapes.items():
        print(f'{name} {shape}')
    for size, error in differences:
        print(f'off by {error:.1e} at {"x".join(map(str, size))} (batch, '
              'height, width)')
