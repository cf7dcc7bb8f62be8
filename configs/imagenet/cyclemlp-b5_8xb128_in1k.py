_base_ = './cyclemlp-b1_8xb128_in1k.py'

model = dict(backbone=dict(arch='b5'))
