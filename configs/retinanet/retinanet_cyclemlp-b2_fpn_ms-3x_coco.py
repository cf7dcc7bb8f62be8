_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    # 12 epochs, each with the data three times.
    'mmdet::common/ms_3x_coco.py',
    'mmdet::retinanet/retinanet_tta.py',
]
custom_imports = dict(imports=['mmcyclemlp'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='CycleNet',
        arch='b2',
        # The neck starts at stage 2, so stage 1 has no output norm.
        fork_last3=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B2.pth')),
    neck=dict(in_channels=[64, 128, 320, 512]))

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
