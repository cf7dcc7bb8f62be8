"""Draw what the backbone sees: stage maps, CycleFC's reach, receptive fields.

    python -m mmcyclemlp visualize_features maps b1 photo.jpg --weights B1.pth
    python -m mmcyclemlp visualize_features cyclefc
    python -m mmcyclemlp visualize_features erf b1 photos/ --weights B1.pth
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope

from ..analysis.receptive_field import (
    draw_cyclefc,
    draw_fields,
    effective_receptive_field,
)
from ..analysis.stage_maps import draw_stage_maps, stage_maps
from ..apis.drawing import to_picture
from ..apis.media import UnreadableError, find_inputs, read_image
from ..apis.pipeline import TestPipeline
from ..apis.predictors import build_backbone, find_device
from ..backbones import CycleNet
from ..engine.config import read_config
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'visualize_features',
        description='Draw what the backbone sees. Each kind of picture has '
        'its own --help.')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    maps = kinds.add_parser(
        'maps', help='what each stage makes of a picture',
        description='Draw the map of each stage for a picture: its three '
        'strongest principal components as colors, and how far each '
        'position is from the mean.')
    erf = kinds.add_parser(
        'erf', help='which pixels move the middle of each stage',
        description='Draw the effective receptive field of each stage: the '
        'gradient of its middle position by the pixels, over some pictures '
        'or noise.')
    reads = kinds.add_parser(
        'cyclefc', help='where CycleFC reads its channels',
        description='Draw at which offset CycleFC reads which channel, what '
        'that makes of a mixer, and of several in a row. Needs no weights.')
    for kind, size in ((maps, 512), (erf, 224)):
        kind.add_argument(
            'model', help='path or name of a config, or an arch: '
            f'{", ".join(CycleNet.arch_settings)}')
        if kind is maps:
            kind.add_argument('image', help='path or URL of a picture')
        else:
            kind.add_argument(
                'images', nargs='*', help='pictures: paths, folders, '
                'patterns, URLs (default: noise)')
            kind.add_argument(
                '--noise', type=int, default=8, metavar='N', help='how many '
                'images of noise, without pictures (default: %(default)s)')
        kind.add_argument(
            '--weights', metavar='FILE', help='official file, checkpoint or '
            'what else holds a backbone (default: random weights)')
        kind.add_argument(
            '--size', type=int, default=size, metavar='PIXELS', help=(
                'longer side of the picture' if kind is maps else 'side of '
                'the square that is cut from the middle')
            + ' (default: %(default)s)')
        kind.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: '
                          'a GPU if there is one)')
        cli.add_trust(kind)
        cli.add_cfg_options(kind)
        kind.add_argument('--raw', metavar='FILE.npz',
                          help='keep the numbers as well')
    reads.add_argument(
        '--kernel', type=int, nargs=2, default=[1, 3], metavar=('H', 'W'),
        help="kernel of the first CycleFC (default: 1 3, the network's)")
    reads.add_argument('--channels', type=int, default=12, metavar='N',
                       help='how many to draw (default: %(default)s)')
    reads.add_argument('--blocks', type=int, default=4, metavar='N',
                       help='mixers in a row (default: %(default)s)')
    for name, kind in kinds.choices.items():
        kind.add_argument('--out', default=f'{name}.png', metavar='FILE.png',
                          help='where to write (default: %(default)s)')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    figure, arrays = dict(maps=maps, erf=erf, cyclefc=cyclefc)[args.kind](args)
    write(args.out, lambda path: figure.savefig(path, dpi=100))
    if getattr(args, 'raw', None):
        write(args.raw, lambda path: np.savez_compressed(path, **arrays))


def maps(args):
    if args.size < 32:
        raise UserError(f'--size: {args.size} is less than 32 pixels')
    model, load, prepare = build(args)
    image = load(args.image)
    image = resize(image, args.size / max(image.shape[:2]))
    if min(image.shape[:2]) < 32:
        raise UserError(f'{args.image} is {image.shape[1]}x'
                        f'{image.shape[0]} at --size {args.size}, and the '
                        'last stage needs 32 pixels of either side')
    found = stage_maps(model, prepare(image))
    picture = to_picture(image)[..., ::-1]
    return (draw_stage_maps(picture, found, described(args)),
            {f'stage{place}': features.numpy()
             for place, features in enumerate(found, 1)})


def erf(args):
    if args.size < 32 or args.size % 32:
        raise UserError(f'--size: {args.size} is no multiple of 32 pixels, '
                        'the stride of the last stage')
    if args.noise < 1:
        raise UserError(f'--noise: {args.noise} is less than 1')
    model, load, prepare = build(args)
    if args.images:
        sources = [one.source for one in find_inputs(
            args.images, suffixes=load.suffixes) if not one.is_video]
        if not sources:
            raise UserError(f'{" ".join(args.images)}: there are videos, and '
                            'no pictures')
        images = [prepare(cut(load(source), args.size)) for source in sources]
        seen = f'{len(images)} pictures'
    else:
        images = torch.randn(
            args.noise, model.patch_embed.proj.in_channels, args.size,
            args.size, generator=torch.Generator().manual_seed(0))
        images = images.to(next(model.parameters()).device)
        seen = f'{args.noise} images of noise'
    fields = effective_receptive_field(model, images)
    title = f'{described(args)}, {args.size} x {args.size} pixels, {seen}'
    return (draw_fields(fields, title),
            {f'stage{place}': field.numpy()
             for place, field in enumerate(fields, 1)})


def cyclefc(args):
    height, width = args.kernel
    if min(args.kernel) < 1 or height % 2 == 0 or width % 2 == 0:
        raise UserError(f'--kernel: {height} {width} are not both odd')
    if args.channels < 1 or args.blocks < 1:
        raise UserError('--channels and --blocks are 1 or more')
    return draw_cyclefc((height, width), args.channels, args.blocks), {}


def build(args):
    """Give the network, what loads an image, and what makes its input."""
    device = find_device(args.device)
    model, mean, std = build_backbone(
        args.model, args.weights, args.cfg_options, args.trust_checkpoint)
    model.to(device)
    cfg = None if args.model in CycleNet.arch_settings else read_config(
        args.model, options=args.cfg_options)
    flip = cfg is None
    if cfg is not None:
        before = cfg.model.get('data_preprocessor') or cfg.get(
            'data_preprocessor') or {}
        flip = any(before.get(key) for key in (
            'bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'))

    def prepare(image):
        if flip and image.shape[2] == 3:
            image = image[..., ::-1]
        try:
            values = (image - np.array(mean)) / np.array(std)
        except ValueError as error:
            raise UserError(
                f'data_preprocessor of {args.model} has mean {mean} and std '
                f'{std}, and images have {image.shape[2]} channels'
            ) from error
        return torch.tensor(values, dtype=torch.float, device=device).permute(
            2, 0, 1)

    return model, Images(cfg, model.patch_embed.proj.in_channels), prepare


class Images:
    """Loads images as the test data of a config, or as pictures."""

    def __init__(self, cfg, channels):
        self.channels, self.pipeline = channels, None
        if cfg is not None and cfg.get('test_dataloader'):
            init_default_scope(cfg.get('default_scope') or 'mmengine')
            self.pipeline = TestPipeline(cfg)
        self.suffixes = self.pipeline.suffixes if self.pipeline else ()

    def __call__(self, source):
        """Load a file as (H, W, C), in mm's order of channels."""
        try:
            image = (self.pipeline.load(source, whole=False).image
                     if self.pipeline else read_image(source))
        except UnreadableError as error:
            raise UserError(f'{source}: {error}') from error
        image = image[..., None] if image.ndim == 2 else image
        if image.ndim != 3 or image.shape[2] != self.channels:
            raise UserError(
                f'{source} is loaded with the shape {image.shape}, and the '
                f'backbone takes images of {self.channels} channels (H, W, '
                f'{self.channels}): '
                + ('correct in_channels or the loading of test_dataloader'
                   if self.pipeline else 'give a config whose '
                   'test_dataloader loads such images'))
        return image if image.dtype == np.uint8 else image.astype(np.float32)


def described(args):
    weights = args.weights or 'random weights'
    return f'{Path(args.model).stem}, {weights.rpartition("/")[2]}'


def resize(picture, scale):
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    # One by one, as OpenCV does not shrink more than four channels at once.
    return np.dstack([cv2.resize(channel, size, interpolation=(
        cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
        for channel in np.moveaxis(picture, 2, 0)])


def cut(picture, side):
    """Cut a square from the middle, of the shorter side."""
    picture = resize(picture, side / min(picture.shape[:2]))
    top, left = ((own - side) // 2 for own in picture.shape[:2])
    return picture[top:top + side, left:left + side]


def write(path, save):
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save(path)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be written: '
                        f'{getattr(error, "strerror", None) or error}'
                        ) from error
    print(path)
