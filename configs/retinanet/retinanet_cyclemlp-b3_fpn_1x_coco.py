_base_ = './retinanet_cyclemlp-b1_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B3.pth')))
