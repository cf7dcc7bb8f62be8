_base_ = './mask-rcnn_cyclemlp-b2_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B3.pth')))
