"""Export a network to ONNX, torch.export or TorchScript.

    python tools/export.py CONFIG CHECKPOINT model.onnx
    python tools/export.py b1 CycleMLP_B1.pth maps.onnx

For images of any number and size; held to the network in the end.
"""

import argparse
import logging
import os

from mmengine.config import Config, ConfigDict, DictAction

from mmcyclemlp import CycleNet
from mmcyclemlp.engine import command
from mmcyclemlp.engine.errors import UserError
from mmcyclemlp.engine.export import (
    FORMATS,
    PARTS,
    Exportable,
    build_model,
    check,
    export,
)
from mmcyclemlp.engine.launch import read_config

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def parse_args():
    parser = argparse.ArgumentParser(
        description='Export a network for programs without mm, for images of '
        'any number and size. The input is "image", (B, 3, H, W), RGB less '
        'mean over standard deviation; --normalize has this done within. '
        'What was written is run at sizes it was not traced at and held to '
        'the network, to 1e-4.')
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {", ".join(CycleNet.arch_settings)}')
    parser.add_argument(
        'checkpoint', help='checkpoint of the whole model; for the backbone '
        'or a classifier any file of weights, such as CycleMLP_B1.pth')
    parser.add_argument(
        'out', help='file to write; its ending says as what: '
        + ', '.join(f'{ending} ({name})' for ending, name in FORMATS.items()))
    parser.add_argument(
        '--part', choices=PARTS, help='the maps of the backbone, or those of '
        'the neck behind it, or the whole: the logits of a segmentor or '
        'classifier, what the head of a one-stage detector gives (default: '
        'whole; of an arch: backbone)')
    parser.add_argument(
        '--normalize', action='store_true',
        help='take RGB of 0 to 255 as input')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(256, 320), metavar='PIXELS',
        help='height and width to trace at, 64 or more each; others work as '
        'well (default: 256 320)')
    parser.add_argument(
        '--no-check', action='store_true', help='do not run what was written')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what a '
        'checkpoint of your own asks for, where it is refused')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='values that win over the config')
    return parser.parse_args()


def main():
    args = parse_args()
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    ending, folder = os.path.splitext(args.out)[1], os.path.dirname(args.out)
    if ending not in FORMATS:
        raise UserError(f'{args.out}: the ending says what to write, and it '
                        f'is one of {", ".join(FORMATS)}')
    if not os.path.isdir(folder or '.'):
        raise UserError(f'{args.out}: there is no folder {folder}')
    if os.path.isdir(args.out):
        raise UserError(f'{args.out} is a folder')
    if min(args.size) < 64:
        raise UserError('--size takes 64 pixels or more, got '
                        f'{" ".join(map(str, args.size))}')
    part, normalize = args.part or 'whole', (MEAN, STD)
    if args.config in CycleNet.arch_settings:
        part = args.part or 'backbone'
        cfg = Config(dict(model=dict(backbone=ConfigDict(
            type='CycleNet', arch=args.config,
            fork_feat=part != 'whole'))))
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
    else:
        cfg = read_config(args.config, options=args.cfg_options)
        own = cfg.model.get('data_preprocessor') or cfg.get(
            'data_preprocessor') or {}
        normalize = own.get('mean', MEAN), own.get('std', STD)
    module = Exportable(
        build_model(cfg, args.checkpoint, part, args.trust_checkpoint),
        part, normalize if args.normalize else None)
    export(module, args.out, args.size)
    print(f'{args.out}: {FORMATS[ending]}, '
          f'{os.path.getsize(args.out) / 1e6:.1f} MB')
    if args.no_check:
        return
    height, width = args.size
    sizes = [(1, height + 33, width - 17), (3, height // 2 + 9, width + 64)]
    for size, error in zip(sizes, check(module, args.out, sizes)):
        print(f'  {"x".join(map(str, size))} (batch, height, width): off by '
              f'{error:.1e}')


if __name__ == '__main__':
    command.run(main)
