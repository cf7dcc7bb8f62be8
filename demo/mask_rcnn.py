_base_ = '../configs/mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco.py'

# A backbone and heads small enough to learn from scratch on two cores.
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=[32, 64, 128, 192],
            depths=[1, 1, 2, 1],
            mlp_ratios=[4, 4, 4, 4]),
        init_cfg=None),
    neck=dict(
        in_channels=[32, 64, 128, 192],
        out_channels=64,
        norm_cfg=dict(type='GN', num_groups=8)),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            norm_cfg=dict(type='GN', num_groups=8),
            num_classes=5),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            norm_cfg=dict(type='GN', num_groups=8),
            num_classes=5)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=48))),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=30)))

metainfo = dict(
    classes=('disc', 'square', 'triangle', 'star', 'ring'),
    palette=[(220, 20, 60), (0, 130, 255), (60, 180, 75), (255, 190, 0),
             (160, 60, 200)])
data_root = 'work_dirs/demo/data/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

# demo/run.py evaluates after training.
train_cfg = dict(max_epochs=5, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=5))
randomness = dict(seed=0)
