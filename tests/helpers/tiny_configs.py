"""Configs of models that are so small that training takes seconds."""

COMMON = """
_base_ = '{root}/{base}'
model = dict(backbone=dict(
    arch=dict(_delete_=True, embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1],
              mlp_ratios=[2, 2, 2, 2]),
    drop_path_rate=.3, init_cfg=None))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}/'))
val_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}/', indices=2))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(
    interval=1, max_keep_ckpts=1, save_best='auto'))
randomness = dict(seed=None)
env_cfg = dict(opencv_num_threads=1)
"""
RETINANET = """
model['neck'] = dict(in_channels=[8, 16, 24, 32], out_channels=16)
model['bbox_head'] = dict(
    in_channels=16, feat_channels=16, stacked_convs=1, num_classes=5)
model['test_cfg'] = dict(score_thr=0., max_per_img=10)
metainfo = dict(classes=('disc', 'square', 'triangle', 'star', 'ring'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(.8, 1.5),
         keep_ratio=True),
    dict(type='RandomFlip', prob=.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
train_dataloader['dataset'].update(
    metainfo=metainfo, ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/train'), pipeline=train_pipeline)
for loader in (val_dataloader, test_dataloader):
    loader['dataset'].update(
        metainfo=metainfo, ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val'))
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3, val_interval=2)
"""
UPERNET = """
model['decode_head'] = dict(in_channels=[8, 16, 24, 32], channels=16)
model['auxiliary_head'] = dict(in_channels=24, channels=8)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(.8, 1.5),
         keep_ratio=True),
    dict(type='RandomCrop', crop_size=(128, 128), cat_max_ratio=.75),
    dict(type='RandomFlip', prob=.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader['dataset']['pipeline'] = train_pipeline
train_cfg = dict(max_iters=12, val_interval=6)
default_hooks['checkpoint']['interval'] = 4
"""
MODELS = dict(
    retinanet=('configs/retinanet/retinanet_cyclemlp-b1_fpn_1x_coco.py',
               RETINANET, 'epoch_3.pth'),
    upernet=('demo/upernet.py', UPERNET, 'iter_12.pth'))


def write_config(folder, root, data, name):
    """Write a config that trains on drawn data; return its path."""
    base, text, _ = MODELS[name]
    path = folder / f'{name}.py'
    path.write_text((COMMON + text).format(root=root, data=data, base=base))
    return path


def write_checkpoint(config, path, **meta):
    """Save a model of a config with random weights, as mm does."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
