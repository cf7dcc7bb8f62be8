"""Code that tests/engine/test_distributed.py runs in two processes.

As a script it runs a list of cases. As a module it has a hook for runs of
tools/train.py.
"""

import json
import logging
import os
import signal
import sys
import time
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    MODEL_WRAPPERS,
    MODELS,
    init_default_scope,
)

from mmcyclemlp.engine.config import read_config
from mmcyclemlp.engine.distributed import leave_group, set_up_processes

ROOT = Path(__file__).parents[2]
SIZE = 64
# Heads that divide losses by the number of targets in the rank's images.
DIVIDED = dict(
    retinanet={'bbox_head': ('loss_cls', 'loss_bbox')},
    mask_rcnn={
        'rpn_head': ('loss_rpn_cls', 'loss_rpn_bbox'),
        'roi_head.bbox_head': ('loss_cls', 'loss_bbox'),
        'roi_head.mask_head': ('loss_mask', ),
    },
    upernet={})


@cache
def read(path):
    cfg = read_config(str(ROOT / path), launcher='pytorch')
    set_up_processes(cfg)
    return cfg


def small_config(name, out_indices=(0, 1, 2, 3), **backbone):
    """Return a config of the demo's size that uses some of the stages."""
    cfg = deepcopy(read(
        f'demo/{"upernet" if name == "upernet" else "mask_rcnn"}.py'))
    model, small = cfg.model, cfg.model.backbone
    dims = [small.arch.embed_dims[i] for i in out_indices]
    strides = [4 * 2**i for i in out_indices]
    if name == 'upernet':
        last = len(dims) - 1
        model.data_preprocessor.size = (SIZE, SIZE)
        model.decode_head.update(
            in_channels=dims, in_index=[*range(len(dims))], dropout_ratio=0.)
        model.auxiliary_head.update(
            in_channels=dims[last], in_index=last, dropout_ratio=0.)
    else:
        if name == 'retinanet':
            norm_cfg = model.neck.norm_cfg
            cfg.model = read('configs/retinanet/'
                             'retinanet_cyclemlp-b1_fpn_1x_coco.py').model
            model = cfg.model
            model.backbone = small
            # Of four maps it takes the last three.
            model.neck.update(start_level=int(len(dims) == 4),
                              out_channels=64, norm_cfg=norm_cfg)
            strides = strides[-3:]
            head = model.bbox_head
            head.update(num_classes=5, in_channels=64, feat_channels=64,
                        stacked_convs=2, norm_cfg=norm_cfg)
        else:
            head = model.rpn_head
            for kind in ('bbox', 'mask'):
                model.roi_head[f'{kind}_roi_extractor'].featmap_strides = (
                    strides)
            # All RoIs are used, so that none is chosen at random.
            model.train_cfg.rpn_proposal.max_per_img = 24
            for part in ('rpn', 'rcnn'):
                model.train_cfg[part].sampler.num = 10**5
        # The neck adds one level to the maps.
        head.anchor_generator.strides = [*strides, 2 * strides[-1]]
        model.neck.update(in_channels=dims, num_outs=len(strides) + 1)
    model.backbone.update(out_indices=out_indices, **backbone)
    return cfg


@cache
def load_items(name, folder, number=4):
    """Load the first images with their annotations, in small size."""
    cfg = small_config(name)
    init_default_scope(cfg.default_scope)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = folder
    dataset.pipeline = [
        step for step in dataset.pipeline if step.type != 'RandomFlip']
    dataset.pipeline.insert(2, dict(
        type='Resize', scale=(SIZE, SIZE), keep_ratio=True))
    dataset = DATASETS.build(dataset)
    return [dataset[i] for i in range(number)]


def build(cfg, seed):
    init_default_scope(cfg.default_scope)
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def distribute(cfg, model):
    return MODEL_WRAPPERS.build(dict(cfg.model_wrapper_cfg, module=model))


def own(images):
    """Return the half of the images that this rank trains on."""
    half = len(images) // 2
    return images[get_rank() * half:(get_rank() + 1) * half]


def batch(items):
    return pseudo_collate(deepcopy(items))


def take_steps(folder, name, **backbone):
    """Take two steps; return which weights changed, and if ranks are equal."""
    cfg, items = small_config(name, **backbone), load_items(name, folder)
    # The ranks start with different weights. The wrapper makes them equal.
    model = build(cfg, seed=get_rank())
    ddp = distribute(cfg, model)
    before = weights(model)
    optim = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    for _ in range(2):
        ddp.train_step(batch(own(items)), optim)
    after = weights(model)
    ranks = all_gather(torch.cat([p.flatten() for p in after.values()]))
    still = [name for name, p in after.items()
             if torch.equal(p, before[name])]
    return dict(
        ranks_equal=torch.equal(*ranks), still=still,
        frozen=[name for name, p in model.named_parameters()
                if not p.requires_grad])


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def compare_gradients(folder, name, undo=True, **backbone):
    """Return the largest difference to one process that has all images.

    It is relative to the largest gradient of the tensor. mm divides some
    losses by a number that each rank counts in its own images. With ``undo``
    the losses are multiplied by this number and divided by the number of
    images.
    """
    cfg, items = small_config(name, **backbone), load_items(name, folder)
    # mmcv's NMS supports only float32.
    dtype = torch.float32 if name == 'mask_rcnn' else torch.float64
    alone, other = (
        with_fixed_norms(build(cfg, seed=0).to(dtype)) for _ in range(2))
    ddp = distribute(cfg, other)
    for network, images in ((alone, items), (ddp, own(items))):
        model = alone if network is alone else other
        divisors = count_divisors(model, DIVIDED[name]) if undo else {}
        data = model.data_preprocessor(batch(images), training=True)
        losses = network(**data, mode='loss')
        sum(torch.as_tensor(sum(value) if isinstance(value, list) else value)
            * (divisors[key] / len(images) if key in divisors else 1)
            for key, value in losses.items() if 'loss' in key).backward()
    return largest_difference(alone, other)


def compare_backbone_gradients(folder, **backbone):
    """Return the same for the backbone alone, with a mean as its loss."""
    cfg = small_config('mask_rcnn', **backbone)
    alone, other = (
        build(cfg, seed=0).backbone.double().train() for _ in range(2))
    ddp = distribute(cfg, other)
    torch.manual_seed(1)
    images = torch.randn(4, 3, SIZE, SIZE + 8, dtype=torch.float64)
    for network, x in ((alone, images), (ddp, own(images))):
        sum(out.square().mean() for out in network(x)).backward()
    return largest_difference(alone, other)


def with_fixed_norms(model):
    """Put batch norms in eval mode, because ranks have different images."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def count_divisors(model, heads):
    divisors = {}

    def watch(head, names):
        get_targets = head.get_targets

        def watched(*args, **kwargs):
            targets = get_targets(*args, **kwargs)
            if torch.is_tensor(targets):  # masks of RoIs
                number = len(targets)
            elif torch.is_tensor(targets[-1]):  # classes and boxes of RoIs
                number = len(targets[0])
            else:  # targets of anchors, and the number to divide by
                number = targets[-1]
            divisors.update(dict.fromkeys(names, number))
            return targets

        head.get_targets = watched

    for path, names in heads.items():
        watch(model.get_submodule(path), names)
    return divisors


def largest_difference(alone, other):
    pairs = [(a.grad, b.grad)
             for a, b in zip(alone.parameters(), other.parameters())
             if a.requires_grad]
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1e-12)).item()
               for a, b in pairs)


def main(folder, cases, out):
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    results = []
    for function, case in json.loads(Path(cases).read_text()):
        start = time.time()
        try:
            result = globals()[function](folder, **case)
        except RuntimeError as error:
            result = f'{type(error).__name__}: {error}'
        results.append(result)
        print(get_rank(), f'{time.time() - start:.1f} s', function, case,
              str(result)[:200], flush=True)
        if get_rank() == 0:
            Path(out).write_text(json.dumps(results))
    leave_group()


@HOOKS.register_module()
class RankHook(Hook):
    """Save the weights of each rank, or end the second rank in the middle.

    Args:
        folder (str): Where the weights and the time of the end are written.
        death (str | None): How it ends: 'exit', 'raise' or 'kill'. Default:
            None, which lets it finish.
        at (int): After which iteration it ends. Default: 2.
    """

    def __init__(self, folder, death=None, at=2):
        self.folder, self.death, self.at = Path(folder), death, at

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        if self.death is None or get_rank() != 1 or (
                runner.iter + 1 < self.at):
            return
        (self.folder / 'death').write_text(str(time.time()))
        if self.death == 'exit':
            os._exit(3)
        if self.death == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError('the second rank has had enough')

    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(),
                   self.folder / f'rank{get_rank()}.pth')


if __name__ == '__main__':
    main(*sys.argv[1:])
