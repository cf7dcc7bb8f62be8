"""Export a network to ONNX, torch.export or TorchScript.

    python -m mmcyclemlp export CONFIG CHECKPOINT --out model.onnx
    python -m mmcyclemlp export b1 CycleMLP_B1.pth --out maps.onnx
    python -m mmcyclemlp export CONFIG CHECKPOINT --part neck --out neck.pt

For images of any number and size; held to the network before it is kept.
"""

import logging
import os

import torch
from mmengine.config import Config, ConfigDict

from ..apis.model_parts import PARTS, Normalized, build_part
from ..backbones import CycleNet
from ..engine.config import read_config
from ..errors import ExportError, UserError
from ..export import FORMATS, TOLERANCE, check_target, write
from . import cli

# What the released weights were trained with.
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375], to_rgb=True)


def parse_args(argv):
    parser = cli.new_parser(
        'export',
        description='Export a network for programs without mm, for images of '
        'any number and size. It takes normalised images (batch, channels, '
        'height, width); what it gives, the command prints. What was '
        'exported is run at sizes it was not traced at, and is kept if it '
        f'is off by no more than {TOLERANCE:.0e} of the largest value.')
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {", ".join(CycleNet.arch_settings)}')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint of the whole model; for '
        'the backbone or a classifier any file of weights, such as '
        'CycleMLP_B1.pth')
    parser.add_argument(
        '--out', metavar='FILE', required=True, help='file to write; its '
        'ending says as what: '
        + ', '.join(f'{ending} ({name})' for ending, name in FORMATS.items()))
    parser.add_argument(
        '--part', choices=PARTS, help='backbone: its maps; neck: the maps '
        'of the neck behind it; whole: the logits of a classifier, those of '
        'a segmentor at the size of the image, or what the head of a '
        'detector like RetinaNet gives (default: whole; of an arch: '
        'backbone)')
    parser.add_argument(
        '--normalize', action='store_true', help='have images normalised '
        'within, and take values of 0 to 255')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(256, 320), metavar='PIXELS',
        help='height and width to trace at, 64 or more each; others work as '
        'well (default: 256 320)')
    parser.add_argument(
        '--no-check', action='store_true',
        help='do not run what was exported')
    parser.add_argument(
        '--random-weights', action='store_true', help='export without a '
        'checkpoint, to measure speed')
    cli.add_trust(parser)
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        export(args)
    except ExportError as error:
        raise UserError(error) from error


def export(args):
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    ending = check_target(args.out, not args.no_check)
    if (args.checkpoint is None) != args.random_weights:
        raise UserError('give a checkpoint, or --random-weights to measure '
                        'speed only')
    if min(args.size) < 64:
        raise UserError('--size takes 64 pixels or more, got '
                        f'{" ".join(map(str, args.size))}')
    if args.config in CycleNet.arch_settings:
        part = args.part or 'backbone'
        cfg = Config(dict(
            model=dict(backbone=ConfigDict(
                type='CycleNet', arch=args.config,
                fork_feat=part != 'whole')),
            data_preprocessor=PREPROCESSOR))
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
    else:
        part = args.part or 'whole'
        cfg = read_config(args.config, options=args.cfg_options)
    module = build_part(cfg, args.checkpoint, part, args.trust_checkpoint)
    channels = cfg.model.backbone.get('in_channels', 3)
    shapes = module.outputs(torch.zeros(1, channels, *args.size))
    own = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    values = 'as it is'
    if 'mean' in own:
        values = f'less {list(own.mean)} over {list(own.std)}'
    if args.normalize:
        if 'mean' not in own:
            raise UserError('--normalize: the config has no data_preprocessor'
                            ' with mean and std')
        module = Normalized(module, own.mean, own.std)
        values = 'from 0 to 255'
    differences = write(
        module, args.out, list(shapes), args.size, channels,
        255 if args.normalize else 1, not args.no_check)
    order = 'RGB' if own.get('bgr_to_rgb', own.get('to_rgb')) else 'BGR'
    print(f'{args.out}: {FORMATS[ending]}, '
          f'{os.path.getsize(args.out) / 1e6:.1f} MB\n'
          f'image {(1, channels, *args.size)}: {order}, {values}')
    for name, shape in shapes.items():
        print(f'{name} {shape}')
    for size, error in differences:
        print(f'off by {error:.1e} at {"x".join(map(str, size))} (batch, '
              'height, width)')
