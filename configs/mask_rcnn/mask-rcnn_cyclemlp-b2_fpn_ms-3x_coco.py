_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    # 12 epochs, each with the data three times.
    'mmdet::common/ms_3x_coco-instance.py',
]
custom_imports = dict(imports=['mmcyclemlp'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='CycleNet',
        arch='b2',
        fork_last3=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B2.pth')),
    neck=dict(in_channels=[64, 128, 320, 512]))

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))

# The base evaluates boxes only.
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
