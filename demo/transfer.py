"""Show what pretraining gains for a detector, without the released weights.

The script trains a small classifier on drawn shapes and writes it in the
official layout. Then it trains a RetinaNet from this file and one from
scratch, for the same number of steps.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from draw_data import SHAPES, SIZE, draw
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmcyclemlp import CycleNet

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / 'demo' / 'mask_rcnn.py'
CROP = 48


def call(*args):
    """Run Python in the root of the project."""
    subprocess.run([sys.executable, '-W', 'ignore', *map(str, args)],
                   check=True, cwd=ROOT)


def normalize(images):
    """Normalize images (N, H, W, 3) as the detector's preprocessor does."""
    settings = Config.fromfile(CONFIG).model.data_preprocessor
    x = images[..., ::-1] if settings.bgr_to_rgb else images
    x = (x - np.array(settings.mean)) / np.array(settings.std)
    return torch.from_numpy(x).permute(0, 3, 1, 2).float().contiguous()


def draw_things(number, seed):
    """Return images (N, 3, CROP, CROP) of shapes, and classes (N,)."""
    rng = np.random.default_rng(seed)
    crops, labels = [], []
    while len(crops) < number:
        image, _, things = draw(rng)
        for index, mask in things:
            if mask.sum() >= 300:
                y, x = (min(max(int(where.mean()) - CROP // 2, 0),
                            SIZE - CROP) for where in np.nonzero(mask))
                crops.append(image[y:y + CROP, x:x + CROP])
                labels.append(index)
    return (normalize(np.stack(crops[:number])),
            torch.tensor(labels[:number]))


def train_classifier(arch, number, epochs):
    """Train on drawn shapes; return the network and its val accuracy."""
    torch.manual_seed(0)
    images, labels = draw_things(number, seed=2)
    model = CycleNet(arch, fork_feat=False, num_classes=len(SHAPES))
    steps = epochs * (number // 32)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        chosen = torch.randint(number, (32, ))
        x = images[chosen]
        x = x.flip(3) if step % 2 else x
        loss = F.cross_entropy(model(x), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    images, labels = draw_things(200, seed=3)
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(x) for x in images.split(50)])
    return model, (logits.argmax(1) == labels).float().mean().item()


def stage_maps(network, x):
    """Return the outputs of the four stages, before the output norms."""
    maps, hooks = [], []
    for stage in network.network[::2]:
        hooks.append(stage.register_forward_hook(
            lambda module, args, output: maps.append(output)))
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return maps


def starts_from(config, checkpoint, classifier):
    """Whether the detector's stages return the classifier's outputs."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(checkpoint))
    init_default_scope(cfg.default_scope)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    x, _ = draw_things(2, seed=4)
    return all(map(torch.equal, stage_maps(detector.backbone, x),
                   stage_maps(classifier, x)))


def detector_config(out, epochs):
    """Write a RetinaNet config of the size of the demo's Mask R-CNN.

    Its loss covers the same positions in both runs. The loss of a Mask R-CNN
    grows with the number of objects that its first stage finds.

    Returns:
        Path: The config.
    """
    cfg = Config.fromfile(CONFIG)
    width = dict(out_channels=64, norm_cfg=cfg.model.neck.norm_cfg)
    model = Config.fromfile(
        ROOT / 'configs/retinanet/retinanet_cyclemlp-b1_fpn_1x_coco.py').model
    model.backbone = dict(cfg.model.backbone, fork_last3=True)
    model.neck.update(in_channels=cfg.model.neck.in_channels, **width)
    model.bbox_head.update(
        num_classes=len(SHAPES), in_channels=64, feat_channels=64,
        stacked_convs=2, norm_cfg=width['norm_cfg'])
    cfg.model = model
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(out / 'data')
    cfg.val_evaluator.update(
        ann_file=f'{out}/data/annotations/instances_val.json', metric='bbox')
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[1].end = epochs
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    cfg.dump(out / 'retinanet.py')
    return out / 'retinanet.py'


def train_detector(config, work_dir, *options):
    """Train; return the loss of each step, the box mAP and the seconds."""
    start = time.time()
    call('-m', 'mmcyclemlp', 'train', config, '--work-dir', work_dir, *options)
    seconds = time.time() - start
    log, = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    figures = [line['coco/bbox_mAP'] for line in lines
               if 'coco/bbox_mAP' in line]
    return losses, figures[-1], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, help='default: %(default)s',
                        default=ROOT / 'work_dirs' / 'transfer')
    parser.add_argument('--things', type=int, default=12000,
                        help='images for the classifier (%(default)s)')
    parser.add_argument('--classifier-epochs', type=int, default=3,
                        help='passes over them (%(default)s)')
    parser.add_argument('--images', type=int, default=200,
                        help='images for the detectors (%(default)s)')
    parser.add_argument('--epochs', type=int, default=5,
                        help='passes over them (%(default)s)')
    args = parser.parse_args()
    out = args.out.resolve()
    if out.exists():
        parser.error(f'--out {out} exists: remove it or give another')
    if args.things < 32 or args.images < 4:
        parser.error('--things is 32 or more, --images 4 or more: a batch')
    out.mkdir(parents=True)
    call('demo/draw_data.py', out / 'data', '--train', args.images)
    arch = Config.fromfile(CONFIG).model.backbone.arch.to_dict()
    start = time.time()
    classifier, accuracy = train_classifier(
        arch, args.things, args.classifier_epochs)
    print(f'classifier: {accuracy:.1%} of 200 unseen things right, '
          f'{time.time() - start:.0f} s')
    torch.save(classifier.state_dict(), out / 'classifier.pth')
    official, size = out / 'official.pth', json.dumps(arch)
    call('-m', 'mmcyclemlp', 'convert_checkpoint',
         out / 'classifier.pth', official, '--to', 'official', '--arch', size)
    call('-m', 'mmcyclemlp', 'convert_checkpoint', official, out / 'mm.pth',
         '--to', 'mm', '--arch', size)
    config = detector_config(out, args.epochs)
    if not starts_from(config, out / 'mm.pth', classifier):
        sys.exit('the detector does not start from the features')
    print('the detector starts from the same stage outputs, bit for bit')
    runs = dict(
        pretrained=train_detector(config, out / 'pretrained', '--cfg-options',
                                  f'load_from={official}'),
        scratch=train_detector(config, out / 'scratch'))
    for name, (losses, figure, seconds) in runs.items():
        quarters = np.array_split(losses, 4)
        print(f'{name:10} mean loss of each quarter',
              *(f'{quarter.mean():.3f}' for quarter in quarters),
              f'box mAP {figure:.3f}, {seconds:.0f} s')
    (out / 'losses.json').write_text(json.dumps(
        {name: losses for name, (losses, *_) in runs.items()}))


if __name__ == '__main__':
    main()
