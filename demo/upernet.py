_base_ = (
    '../configs/upernet_ade20k/'
    'upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512.py')

# A backbone and heads small enough to learn from scratch on two cores.
crop_size = (128, 128)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=[32, 64, 128, 192],
            depths=[1, 1, 2, 1],
            mlp_ratios=[4, 4, 4, 4]),
        drop_path_rate=0.,
        init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 192], channels=64, num_classes=7),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=7))

metainfo = dict(
    classes=('wall', 'floor', 'disc', 'square', 'triangle', 'star', 'ring'),
    palette=[(120, 120, 120), (80, 50, 50), (220, 20, 60), (0, 130, 255),
             (60, 180, 75), (255, 190, 0), (160, 60, 200)])
data_root = 'work_dirs/demo/data'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        type='BaseSegDataset',
        reduce_zero_label=True,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        type='BaseSegDataset',
        reduce_zero_label=True,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

# demo/run.py evaluates after training.
train_cfg = dict(max_iters=900, val_interval=1000)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=40),
    dict(
        type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=40,
        end=900),
]
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=900))
randomness = dict(seed=0)
