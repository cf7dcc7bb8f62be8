"""Compare FSDP in two processes with training without it."""

import pytest
import torch
from helpers import tiny_configs as tiny
from helpers.commands import run_command

PLAIN = """
_base_ = 'upernet.py'
env_cfg = dict(_delete_=True)
optim_wrapper = dict(
    constructor='mmcyclemlp.engine.layer_decay.LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8))
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
randomness = dict(seed=1)
"""
FSDP = """
_base_ = 'plain.py'
runner_type = 'FlexibleRunner'
strategy = dict(
    type='mmcyclemlp.engine.sharding.WholeFSDPStrategy',
    # For a CPU. With offload_to_cpu, as without GPU there is nothing to
    # offload from, torch breaks off.
    model_wrapper=dict(device_id='cpu', auto_wrap_policy='wrap_blocks'),
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(
            type='FullStateDictConfig', rank0_only=True),
        optim_state_dict_config=dict(
            type='FullOptimStateDictConfig', rank0_only=True)))
"""


def read(path):
    """Weights by name, and moments in the order in which torch reads them."""
    checkpoint = torch.load(path, weights_only=False)
    optimizer = checkpoint['optimizer']
    keys = [key for group in optimizer['param_groups']
            for key in group['params']]
    return checkpoint['state_dict'], [optimizer['state'][k] for k in keys]


def test_resumes_and_evaluates(
        run_python, root, drawn_data, tmp_path, capfd):
    pytest.importorskip('mmseg')
    try:
        torch.cpu.Stream(priority=0)
    except TypeError:
        pytest.skip("this torch's FSDP needs a GPU")
    tiny.write_config(tmp_path, root, drawn_data, 'upernet')
    (tmp_path / 'plain.py').write_text(PLAIN)
    (tmp_path / 'fsdp.py').write_text(FSDP)

    def train(config, work, *options):
        run_python(
            '-m', 'torch.distributed.run', '--standalone',
            '--nproc-per-node', 2, root / 'tools' / 'train.py',
            tmp_path / config, '--work-dir', tmp_path / work,
            '--launcher', 'pytorch', *options)
        return read(tmp_path / work / 'iter_3.pth')

    expected = train('plain.py', 'plain')
    others = train(
        'fsdp.py', 'others', '--resume', tmp_path / 'plain' / 'iter_1.pth')
    own = train(
        'fsdp.py', 'own', '--resume', tmp_path / 'others' / 'iter_2.pth')
    for weights, moments in (others, own):
        for key, value in expected[0].items():
            assert torch.equal(weights[key], value), key
        assert len(moments) == len(expected[1])
        for values, kinds in zip(moments, expected[1]):
            assert values.keys() == kinds.keys()
            for kind, value in kinds.items():
                assert torch.equal(values[kind], value), kind
    size, plain_size = (
        (tmp_path / work / 'iter_3.pth').stat().st_size
        for work in ('own', 'plain'))
    assert size < 1.1 * plain_size
    # One process and mm's usual runner read the checkpoint too.
    assert run_command(
        'test', tmp_path / 'upernet.py',
        tmp_path / 'own' / 'iter_3.pth', '--work-dir', tmp_path / 'test') == 0
    assert 'mIoU: ' in ''.join(capfd.readouterr())
