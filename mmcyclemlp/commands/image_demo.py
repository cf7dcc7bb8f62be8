"""Draw predictions for images and videos.

    python -m mmcyclemlp image_demo CONFIG CHECKPOINT photo.jpg film.mp4

Writes pictures, and the predictions as JSON, to --out-dir.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

from ..apis.image_pipeline import TestPipeline
from ..apis.media import UnreadableError, find_inputs, open_video
from ..apis.predictors import build_predictor
from ..engine.config import read_config
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'image_demo',
        description='Draw the predictions of a detector (mmdet), a segmentor '
        '(mmseg) or a classifier (mmpretrain) into pictures and videos: '
        'boxes, masks or a colored map, with the names of the classes. For '
        'each input the command writes pictures/NAME.jpg (or .mp4) and '
        'predictions/NAME.json (for a video .jsonl, one line per frame) to '
        '--out-dir, and for a segmentor labels/NAME.png. The exit code is 1 '
        'if an input cannot be read.')
    parser.add_argument('config', help='path or name of the config that the '
                        'checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the whole model, '
                        'such as work_dirs/mine/epoch_12.pth; for a '
                        'classifier also a released file')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT', help='a picture, a video, a '
        "folder (searched recursively), a pattern ('*.jpg') or an http(s) "
        'URL')
    parser.add_argument(
        '--out-dir', default='outputs', metavar='DIR',
        help='folder to write to (default: %(default)s)')
    cli.add_device(parser)
    parser.add_argument(
        '--score-thr', type=float, default=0.3, metavar='SCORE',
        help='drop detections with a lower score (default: %(default)s)')
    parser.add_argument(
        '--palette', help='colors: random; for a detector coco, voc or citys; '
        'for a segmentor ade, cityscapes, voc ... (default: those of its '
        'training data)')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='names of the classes '
        "(default: the checkpoint's, or else the config's)")
    parser.add_argument(
        '--opacity', type=float, default=0.6, help='opacity of what is '
        'drawn, 0 to 1 (default: %(default)s)')
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N', help='number of '
        'pictures of one size, or frames, in a batch (default: %(default)s)')
    cli.add_trust(parser)
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    if args.batch_size < 1:
        raise UserError(f'--batch-size: {args.batch_size} is less than 1')
    for name in ('score_thr', 'opacity'):
        if not 0 <= getattr(args, name) <= 1:
            raise UserError(f'--{name.replace("_", "-")}: '
                            f'{getattr(args, name)} is not between 0 and 1')
    cfg = read_config(args.config, options=args.cfg_options)
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise UserError(f'there is no checkpoint file {args.checkpoint}')
    # Before the model is built, which takes longer.
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    inputs = find_inputs(args.inputs, args.out_dir, TestPipeline(cfg).suffixes)
    out = Output(args.out_dir)
    predictor = build_predictor(
        cfg, args.checkpoint, args.device, args.classes, args.palette,
        args.opacity, args.trust_checkpoint)

    def predict(images):
        return predictor(images, args.score_thr)

    failed = run(inputs, predictor.load, predict, args.batch_size, out)
    print(f'{len(inputs) - len(failed)} of {len(inputs)} done: {out.folder}')
    if failed:
        sys.exit('\n'.join(f'error: {error}' for error in failed))


def run(inputs, load, predict, batch_size, out):
    """Predict for all inputs; return why some failed."""
    failed = []
    pictures = [one for one in inputs if not one.is_video]
    if pictures:
        bar = ProgressBar(len(pictures), file=sys.stderr)
        for batch in batches(loaded(pictures, load, failed), batch_size):
            with collecting(failed, *(one for one, _ in batch)):
                for (one, image), prediction in zip(
                        batch, predict([image for _, image in batch])):
                    out.write(one, image, prediction)
            for _ in batch:
                bar.update()
        print(file=sys.stderr)
    for one in inputs:
        if one.is_video:
            with collecting(failed, one):
                run_video(one, predict, batch_size, out)
    return failed


@contextlib.contextmanager
def collecting(failed, *inputs):
    """Add to a list why inputs cannot be read."""
    try:
        yield
    except UnreadableError as error:
        failed += [f'{one.source}: {error}' for one in inputs]


def loaded(inputs, load, failed):
    for one in inputs:
        image = None
        with collecting(failed, one):
            image = load(one.source)
        if image is not None:
            yield one, image


def batches(images, size):
    """Yield lists of up to ``size`` consecutive images of one shape."""
    batch = []
    for pair in images:
        if len(batch) == size or (
                batch and shape(batch[0][1]) != shape(pair[1])):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def shape(image):
    """Return the shape of a loaded image or a frame."""
    return getattr(image, 'image', image).shape


def run_video(one, predict, batch_size, out):
    with open_video(one.source) as video:
        print(one.source, file=sys.stderr)
        bar = ProgressBar(video.length, file=sys.stderr)
        with out.video(one, video.fps) as write:
            for batch in batches(enumerate(video.frames), batch_size):
                for (number, frame), prediction in zip(
                        batch, predict([frame for _, frame in batch])):
                    write(number, frame, prediction)
                    bar.update()
        print(file=sys.stderr)


class Output:
    """The folder that results are written to."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with self._writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / '.probe'
            probe.touch()
            probe.unlink()

    def write(self, one, image, prediction):
        """Write the prediction for a picture."""
        self._image(f'pictures/{one.name}.jpg', prediction.picture)
        record = dict(input=one.source, width=image.size[1],
                      height=image.size[0], **prediction.record)
        if prediction.label_map is not None:
            record['label_map'] = f'labels/{one.name}.png'
            self._image(record['label_map'], prediction.label_map)
        path = self._path(f'predictions/{one.name}.json')
        with self._writing(path):
            path.write_text(json.dumps(record, indent=1), 'utf-8')

    @contextlib.contextmanager
    def video(self, one, fps):
        """Yield the function that writes a frame."""
        film = self._path(f'pictures/{one.name}.mp4')
        lines = self._path(f'predictions/{one.name}.jsonl')
        writer = cv2.VideoWriter()

        def write(number, frame, prediction):
            height, width = frame.shape[:2]
            if not number and not writer.open(
                    str(film), cv2.VideoWriter_fourcc(*'mp4v'), fps,
                    (width, height)):
                raise UserError(f'{film} cannot be written: this OpenCV '
                                f'cannot write an mp4 of {width}x{height} at '
                                f'{fps:g} frames per second')
            writer.write(prediction.picture.astype('uint8', order='C'))
            with self._writing(lines):
                record = dict(frame=number, time=round(number / fps, 4),
                              **prediction.record)
                file.write(json.dumps(record) + '\n')

        try:
            with self._writing(lines), open(
                    lines, 'w', encoding='utf-8') as file:
                yield write
        finally:
            writer.release()

    def _image(self, name, image):
        path = self._path(name)
        with self._writing(path):
            path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())

    def _path(self, name):
        path = self.folder / name
        with self._writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def _writing(self, path):
        try:
            yield
        except OSError as error:
            raise UserError(f'{path} cannot be written: '
                            f'{error.strerror}') from error
