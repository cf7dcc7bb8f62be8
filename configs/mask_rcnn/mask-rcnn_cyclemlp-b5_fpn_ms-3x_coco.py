_base_ = './mask-rcnn_cyclemlp-b2_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b5',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B5.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]))
