_base_ = './upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B3.pth')))
