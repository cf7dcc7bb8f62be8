_base_ = './upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b5',
        init_cfg=dict(
            checkpoint='https://github.com/ShoufaChen/CycleMLP/releases/'
            'download/v0.1/CycleMLP_B5.pth')),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
