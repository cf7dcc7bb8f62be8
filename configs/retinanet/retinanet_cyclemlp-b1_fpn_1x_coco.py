_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmcyclemlp'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='CycleNet',
        arch='b1',
        # The neck starts at stage 2, so stage 1 has no output norm.
        fork_last3=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B1.pth')),
    neck=dict(in_channels=[64, 128, 320, 512]))

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
