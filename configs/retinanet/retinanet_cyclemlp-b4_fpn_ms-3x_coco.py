_base_ = './retinanet_cyclemlp-b2_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b4',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B4.pth')))
