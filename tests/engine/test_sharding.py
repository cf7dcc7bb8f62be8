"""FSDP on two processes: trained, evaluated and resumed."""

import pytest
import tiny
import torch
from in_process import run_command

from mmcyclemlp.engine.errors import UserError
from mmcyclemlp.engine.sharding import WholeFSDPStrategy

CONFIG = """
_base_ = 'upernet.py'
runner_type = 'FlexibleRunner'
strategy = dict(
    type='mmcyclemlp.engine.sharding.WholeFSDPStrategy',
    # For a CPU. With offload_to_cpu, as without GPU there is nothing to
    # offload from, torch breaks off.
    model_wrapper=dict(device_id='cpu'),
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(
            type='FullStateDictConfig', rank0_only=True),
        optim_state_dict_config=dict(
            type='FullOptimStateDictConfig', rank0_only=True)))
env_cfg = dict(_delete_=True)
optim_wrapper = dict(
    constructor='mmcyclemlp.engine.layer_decay.LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8))
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
randomness = dict(seed=1)
"""


def test_an_auto_wrap_policy_is_refused():
    with pytest.raises(UserError, match='leave auto_wrap_policy'):
        WholeFSDPStrategy(model_wrapper=dict(auto_wrap_policy='by size'))


def test_trained_evaluated_and_resumed(
        run_python, root, drawn_data, tmp_path, capfd):
    pytest.importorskip('mmseg')
    try:
        torch.cpu.Stream(priority=0)
    except TypeError:
        pytest.skip("this torch's FSDP needs a GPU")
    tiny.write_config(tmp_path, root, drawn_data, 'upernet')
    config = tmp_path / 'fsdp.py'
    config.write_text(CONFIG)

    def train(work, *options):
        run_python(
            '-m', 'torch.distributed.run', '--standalone',
            '--nproc-per-node', 2, root / 'tools' / 'train.py', config,
            '--work-dir', tmp_path / work, '--launcher', 'pytorch', *options)

    train('whole')
    whole = tmp_path / 'whole' / 'iter_3.pth'
    # A checkpoint as any other, for one process and mm's usual runner.
    assert run_command(
        root / 'tools' / 'test.py', tmp_path / 'upernet.py', whole,
        '--work-dir', tmp_path / 'test') == 0
    assert 'mIoU: ' in ''.join(capfd.readouterr())
    train('parts', '--resume', whole.with_name('iter_1.pth'))
    one, other = (torch.load(path, weights_only=False) for path in (
        whole, tmp_path / 'parts' / 'iter_3.pth'))
    for key, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][key]), key
    for name, values in one['optimizer']['state'].items():
        for kind, value in values.items():
            assert torch.equal(
                value, other['optimizer']['state'][name][kind]), (name, kind)
