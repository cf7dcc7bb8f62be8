"""Draw feature maps, the reach of CycleFC, and effective receptive fields.

    python -m mmcyclemlp visualize_features maps b1 B1.pth --image photo.jpg
    python -m mmcyclemlp visualize_features erf b1 B1.pth --images photos/
    python -m mmcyclemlp visualize_features cyclefc

With an arch such as b1 this needs torch, matplotlib and Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..analysis.receptive_field import (
    draw_cyclefc,
    draw_fields,
    effective_receptive_field,
)
from ..analysis.stage_maps import draw_stage_maps, stage_maps
from ..apis.media import UnreadableError, find_inputs, read_image
from ..apis.models import (
    ARCHS,
    build_backbone,
    find_device,
    is_arch,
    normalization_of,
    read_model_config,
)
from ..apis.pictures import crop_middle, fit, to_picture
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'visualize_features',
        description='Draw what the backbone computes. Each kind of picture '
        'has its own --help.')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    maps = kinds.add_parser(
        'maps', help='the feature map of each stage',
        description='Draw the feature map of each stage for a picture: its '
        'three strongest principal components as colors, and the distance '
        'of each position from the mean.')
    erf = kinds.add_parser(
        'erf', help='the effective receptive field of each stage',
        description='Draw the effective receptive field of each stage: the '
        'gradient of its middle position with respect to the pixels, '
        'averaged over pictures or noise.')
    reads = kinds.add_parser(
        'cyclefc', help='where CycleFC reads its channels',
        description='Draw at which offset CycleFC reads each channel, and '
        'the reach of one mixer and of several mixers in a row. Needs no '
        'weights.')
    add_network(maps, 512, 'largest height and width of the picture, which '
                'keeps its aspect ratio (default: 512 512)')
    maps.add_argument('--image', required=True, metavar='PATH',
                      help='path or URL of a picture')
    add_network(erf, 224, 'height and width that are cropped from the middle '
                'of each picture, multiples of 32 (default: 224 224)')
    erf.add_argument('--images', nargs='+', metavar='PATH', help='pictures: '
                     'paths, folders, patterns, URLs (default: noise)')
    erf.add_argument('--noise', type=int, default=8, metavar='N',
                     help='number of noise images if there are no --images '
                     '(default: %(default)s)')
    reads.add_argument(
        '--kernel', type=int, nargs=2, default=[1, 3], metavar=('H', 'W'),
        help="kernel of the first CycleFC (default: 1 3, the network's)")
    reads.add_argument('--channels', type=int, default=12, metavar='N',
                       help='number of channels (default: %(default)s)')
    reads.add_argument('--blocks', type=int, default=4, metavar='N',
                       help='mixers in a row (default: %(default)s)')
    for name, kind in kinds.choices.items():
        kind.add_argument('--out', default=f'{name}.png', metavar='FILE',
                          help='picture to write (default: %(default)s)')
    return parser.parse_args(argv)


def add_network(parser, side, size):
    """Add the options of the network and its images."""
    parser.add_argument(
        'config', help='path or name of a config, or an arch of the backbone '
        f'alone: {ARCHS}')
    parser.add_argument(
        'checkpoint', nargs='?', help='any file of weights with a backbone, '
        'such as CycleMLP_B1.pth (default: random weights)')
    cli.add_size(parser, size, (side, side))
    cli.add_device(parser)
    cli.add_trust(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--raw', metavar='FILE.npz',
                        help='write the numbers to a file too')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    figure, arrays = dict(maps=maps, erf=erf, cyclefc=cyclefc)[args.kind](args)
    write(args.out, lambda path: figure.savefig(path, dpi=100))
    if getattr(args, 'raw', None):
        write(args.raw, lambda path: np.savez_compressed(path, **arrays))


def maps(args):
    """Draw the feature maps; return the figure and its numbers."""
    cli.check_size(args.size, 32)
    network = Network(args)
    image = fit(network.load(args.image), args.size)
    height, width = image.shape[:2]
    if min(height, width) < 32:
        raise UserError(f'{args.image} is {width}x{height} pixels at --size '
                        f'{" ".join(map(str, args.size))}, and the last stage '
                        'needs 32 in both directions')
    found = stage_maps(network.model, network.prepare(image))
    picture = to_picture(image)[..., ::-1]
    return (draw_stage_maps(picture, found, network.title),
            {f'stage{place}': features.numpy()
             for place, features in enumerate(found, 1)})


def erf(args):
    """Draw the effective receptive fields; return the figure and numbers."""
    cli.check_size(args.size, 32, 32)
    if args.noise < 1:
        raise UserError(f'--noise: {args.noise} is less than 1')
    network = Network(args)
    height, width = args.size
    if args.images:
        sources = [one.source for one in find_inputs(
            args.images, suffixes=network.suffixes) if not one.is_video]
        if not sources:
            raise UserError(f'--images: {" ".join(args.images)} has videos '
                            'and no pictures')
        images = [network.prepare(crop_middle(network.load(source), args.size))
                  for source in sources]
        kind = f'{len(images)} pictures'
    else:
        images = torch.randn(
            args.noise, network.channels, height, width,
            generator=torch.Generator().manual_seed(0)).to(network.device)
        kind = f'{args.noise} images of noise'
    fields = effective_receptive_field(network.model, images)
    title = f'{network.title}, {height} x {width} pixels, {kind}'
    return (draw_fields(fields, title),
            {f'stage{place}': field.numpy()
             for place, field in enumerate(fields, 1)})


def cyclefc(args):
    """Draw what CycleFC reads; return the figure."""
    height, width = args.kernel
    if min(args.kernel) < 1 or height % 2 == 0 or width % 2 == 0:
        raise UserError(f'--kernel: {height} {width} are not both odd')
    for option in ('channels', 'blocks'):
        if getattr(args, option) < 1:
            raise UserError(
                f'--{option}: {getattr(args, option)} is less than 1')
    return draw_cyclefc((height, width), args.channels, args.blocks), {}


class Network:
    """A backbone, and how its images are loaded and normalized.

    Args:
        args (Namespace): Options of the command.
    """

    def __init__(self, args):
        self.device = find_device(args.device)
        cfg = read_model_config(args.config, args.cfg_options)
        self.model = build_backbone(
            cfg, args.checkpoint, args.trust_checkpoint).to(self.device)
        self.channels = self.model.in_channels
        self.normalization = normalization_of(cfg)
        self.title = (f'{Path(args.config).stem}, '
                      f'{Path(args.checkpoint or "random weights").name}')
        self.pipeline, self.suffixes = None, ()
        if not is_arch(args.config) and cfg.get('test_dataloader'):
            from mmengine.registry import init_default_scope

            from ..apis.image_pipeline import TestPipeline

            init_default_scope(cfg.get('default_scope') or 'mmengine')
            self.pipeline = TestPipeline(cfg)
            self.suffixes = self.pipeline.suffixes

    def load(self, source):
        """Load a file as (H, W, C), in mm's order of channels."""
        try:
            image = (self.pipeline.load(source, whole=False).image
                     if self.pipeline else read_image(source))
        except UnreadableError as error:
            raise UserError(f'{source}: {error}') from error
        image = image[..., None] if image.ndim == 2 else image
        if image.ndim != 3 or image.shape[2] != self.channels:
            remedy = ('set in_channels, or change the loading in '
                      'test_dataloader' if self.pipeline else 'give a config '
                      'whose test_dataloader loads such images')
            raise UserError(
                f'{source} is loaded with the shape {image.shape}, and the '
                f'backbone takes images of {self.channels} channels (H, W, '
                f'{self.channels}): {remedy}')
        return image if image.dtype == np.uint8 else image.astype(np.float32)

    def prepare(self, image):
        """Normalize an image (H, W, C) to a tensor (C, H, W)."""
        mean, std, swap, _ = self.normalization
        if swap and image.shape[2] == 3:
            image = image[..., ::-1]
        if mean is not None:
            try:
                image = (image - np.array(mean)) / np.array(std)
            except ValueError as error:
                raise UserError(
                    f'data_preprocessor has mean {mean} and std {std}, and '
                    f'images have {image.shape[2]} channels') from error
        return torch.tensor(
            np.ascontiguousarray(image), dtype=torch.float,
            device=self.device).permute(2, 0, 1)


def write(path, save):
    """Write a file with a function, and print its path."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'{path} cannot be written: {reason}') from error
    print(path)
