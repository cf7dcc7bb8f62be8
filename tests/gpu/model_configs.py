"""Configs of the step ``models``: those of the project, with drawn images.

Only the data, the length of the run and the log are changed. In miniature,
backbone and heads are small, too.
"""

from __future__ import annotations

from pathlib import Path

from .step import Step

STEPS = 20
SAVE_EVERY = 7

COMMON = """
_base_ = '{root}/configs/{base}'
model = dict(backbone=dict(init_cfg=None, drop_path_rate=.5))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}'))
val_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}'))
# From the start the rate is high enough for 20 steps to change the losses.
param_scheduler = [dict(
    type='LinearLR', start_factor=.5, by_epoch=False, begin=0, end={steps})]
# With this the log has the norm of the gradients, too.
optim_wrapper = dict(clip_grad=dict(max_norm=1e3))
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=False, interval={save_every}))
# Each line of the log is of one step, not of a mean.
log_processor = dict(window_size=1)
# A choice by measurement could differ from run to run.
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=0)
"""
DETECTOR = """
metainfo = dict(classes=('disc', 'square', 'triangle', 'star', 'ring'))
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask={with_mask}),
]
train_dataloader['dataset'].update(
    metainfo=metainfo, ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/train'), pipeline=_load + [
        dict(type='RandomResize', scale=({size}, {size}),
             ratio_range=(.8, 1.2), keep_ratio=True),
        dict(type='RandomFlip', prob=.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackDetInputs')])
val_dataloader['dataset'].update(
    metainfo=metainfo, ann_file='annotations/instances_val.json',
    data_prefix=dict(img='images/val'), pipeline=[
        _load[0],
        dict(type='Resize', scale=({size}, {size}), keep_ratio=True),
        _load[1],
        dict(type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape',
            'scale_factor'))])
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
# 8 images in batches of 2 are 4 steps.
train_cfg = dict(max_epochs={steps} // 4, val_begin=1000)
"""
RETINANET = DETECTOR + """
model['bbox_head'] = dict(num_classes=5)
# A head that has learned little is sure of nothing.
model['test_cfg'] = dict(score_thr=0., max_per_img=20)
"""
MASK_RCNN = DETECTOR + """
model['roi_head'] = dict(
    bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5))
model['test_cfg'] = dict(rcnn=dict(score_thr=0., max_per_img=20))
"""
UPERNET = """
model['data_preprocessor'] = dict(size=({size}, {size}))
model['decode_head'] = dict(num_classes=7)
model['auxiliary_head'] = dict(num_classes=7)
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
]
_dataset = dict(
    type='BaseSegDataset', reduce_zero_label=True, metainfo=dict(classes=(
        'wall', 'floor', 'disc', 'square', 'triangle', 'star', 'ring')))
train_dataloader['dataset'].update(
    **_dataset, data_prefix=dict(
        img_path='images/train', seg_map_path='annotations/train'),
    pipeline=_load + [
        dict(type='RandomResize', scale=({size}, {size}),
             ratio_range=(.8, 1.5), keep_ratio=True),
        dict(type='RandomCrop', crop_size=({size}, {size}),
             cat_max_ratio=.75),
        dict(type='RandomFlip', prob=.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs')])
val_dataloader['dataset'].update(
    **_dataset, data_prefix=dict(
        img_path='images/val', seg_map_path='annotations/val'),
    pipeline=[
        _load[0],
        dict(type='Resize', scale=({size}, {size}), keep_ratio=True),
        _load[1],
        dict(type='PackSegInputs')])
test_dataloader = val_dataloader
train_cfg = dict(max_iters={steps}, val_begin=1000)
"""
# For a CPU.
SMALL = """
model['backbone']['arch'] = dict(
    _delete_=True, embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1],
    mlp_ratios=[2, 2, 2, 2])
"""
SMALL_HEADS = dict(retinanet="""
model['neck'] = dict(in_channels=[8, 16, 24, 32], out_channels=16)
model['bbox_head'].update(in_channels=16, feat_channels=16, stacked_convs=1)
""", upernet="""
model['decode_head'].update(in_channels=[8, 16, 24, 32], channels=16)
model['auxiliary_head'].update(in_channels=24, channels=8)
""", mask_rcnn="""
model['neck'] = dict(in_channels=[8, 16, 24, 32], out_channels=16)
model['rpn_head'] = dict(in_channels=16, feat_channels=16)
model['train_cfg'] = dict(
    rpn_proposal=dict(nms_pre=100, max_per_img=50),
    rcnn=dict(sampler=dict(num=32)))
model['test_cfg']['rpn'] = dict(nms_pre=100, max_per_img=20)
model['roi_head']['bbox_roi_extractor'] = dict(out_channels=16)
model['roi_head']['mask_roi_extractor'] = dict(out_channels=16)
model['roi_head']['bbox_head'].update(in_channels=16, fc_out_channels=32)
model['roi_head']['mask_head'].update(
    in_channels=16, conv_out_channels=16, num_convs=1)
""")
BASES = dict(
    retinanet=('retinanet/retinanet_cyclemlp-b1_fpn_1x_coco.py', RETINANET),
    upernet=('upernet_ade20k/upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512.py',
             UPERNET),
    mask_rcnn=('mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco.py', MASK_RCNN))


def write_config(step: Step, root: Path, folder: Path, name: str) -> Path:
    """Write the config of a model on the images in ``folder``/data."""
    base, text = BASES[name]
    text = COMMON + text
    if step.miniature:
        text += SMALL + SMALL_HEADS[name]
    path = folder / f'{name}.py'
    path.write_text(text.format(
        root=root, base=base, data=folder / 'data', steps=STEPS,
        save_every=SAVE_EVERY, with_mask=name == 'mask_rcnn',
        size=64 if step.miniature else 512))
    return path
