"""The recipes of docs/recipes.md run."""

import os
import re
import signal
import time

import pytest
import torch
from helpers import tiny_configs as tiny
from helpers.commands import run_command
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, init_default_scope

SHORT = """
val_cfg = val_dataloader = val_evaluator = None
train_dataloader['dataset']['indices'] = 2
train_cfg = dict(max_epochs=1)
"""
BOXES = tiny.RETINANET[tiny.RETINANET.index('metainfo'):]
MASKS = BOXES + SHORT + "train_pipeline[1]['with_mask'] = True\n"
# Settings that make the heads of the page small.
HEADS = dict(
    cascade="""
model.update(
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=[dict(
            type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16,
            num_classes=5, bbox_coder=dict(type='DeltaXYWHBBoxCoder'))] * 3,
        mask_head=dict(in_channels=16, conv_out_channels=16, num_classes=5)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=20)))
""" + MASKS,
    mask2former="""
attention = dict(embed_dims=16, num_heads=2)
layer = dict(self_attn_cfg=attention, ffn_cfg=dict(
    embed_dims=16, feedforward_channels=16))
model.update(
    data_preprocessor=dict(batch_augments=[dict(
        type='BatchFixedSizePad', size=(160, 160), img_pad_value=0,
        pad_mask=True, mask_pad_value=0, pad_seg=False)]),
    panoptic_head=dict(
        in_channels=[8, 16, 24, 32], feat_channels=16, out_channels=16,
        num_things_classes=5, num_queries=10,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=4), positional_encoding=dict(num_feats=8),
            encoder=dict(num_layers=1, layer_cfg=layer)),
        positional_encoding=dict(num_feats=8),
        transformer_decoder=dict(
            num_layers=1, layer_cfg=dict(cross_attn_cfg=attention, **layer)),
        loss_cls=dict(class_weight=[1.] * 5 + [.1])),
    panoptic_fusion_head=dict(num_things_classes=5),
    train_cfg=dict(num_points=100))
""" + MASKS + """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1)
""",
    dino="""
model.update(
    neck=dict(in_channels=[16, 24, 32]), num_queries=10,
    encoder=dict(num_layers=1), decoder=dict(num_layers=1),
    bbox_head=dict(num_classes=5), dn_cfg=dict(
        group_cfg=dict(num_dn_queries=4)))
""" + BOXES + SHORT)


@pytest.fixture(scope='module')
def texts(root):
    """Return the snippets of the page by name."""
    page = (root / 'docs' / 'recipes.md').read_text()
    return {name: text for text, name in re.findall(
        r'```python\n(# mine/(\w+)\.py\n.*?)```', page, flags=re.DOTALL)}


@pytest.fixture
def mine(texts, root, drawn_data, tmp_path):
    """Write recipes that inherit from each other; return the last config.

    The first recipe inherits from a small network.
    """
    for name, base in (('segmentor', 'upernet'), ('detector', 'retinanet')):
        tiny.write_config(tmp_path, root, drawn_data, base).rename(
            tmp_path / f'{name}.py')

    def write(*names, more=''):
        for before, name in zip((None, *names), names):
            text = texts[name]
            if before is not None:
                text = re.sub(r"_base_ = '\w+\.py'",
                              f"_base_ = '{before}.py'", text)
            (tmp_path / f'{name}.py').write_text(text)
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = '{names[-1]}.py'\n{more}")
        return path

    return write


@pytest.fixture
def run():
    """Run a command in this process and return its work dir."""

    def call(command, config, *args, expect=0):
        assert run_command(command, config, '--work-dir',
                           config.parent / 'work', *args) == expect
        return config.parent / 'work'

    return call


@HOOKS.register_module()
class StopInValidation(Hook):
    """Send SIGTERM during validation."""

    def after_val_iter(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def handlers():
    """Restore the signal handlers."""
    before = {number: signal.getsignal(number)
              for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ema(mine, run, handlers, capfd, tmp_path):
    short = """
train_cfg = dict(max_iters=4, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=2))
randomness = dict(seed=1)
"""
    work = run('train', mine('ema', more=short))
    log = capfd.readouterr()
    whole = torch.load(work / 'iter_4.pth', weights_only=False)
    name = 'backbone.patch_embed.proj.weight'
    average, trained = (whole['state_dict'][name],
                        whole['ema_state_dict'][f'module.{name}'])
    assert not torch.equal(average, trained)
    assert int(whole['ema_state_dict']['steps']) == 4
    # The command test uses the average, as the last validation did.
    run('test', tmp_path / 'config.py', work / 'iter_4.pth')
    values = [re.findall(r'mIoU: ([0-9.]+)', text.out + text.err)[-1]
              for text in (log, capfd.readouterr())]
    assert values[0] == values[1]

    work.rename(tmp_path / 'whole')
    # mm names its global objects by the second.
    time.sleep(1.1)
    run('train', mine('ema', more=short + """
custom_hooks = [*_base_.custom_hooks, dict(type='StopInValidation')]
"""), expect=75)
    assert (work / 'interrupted.pth').is_file()
    run('train', mine('ema', more=short), '--resume')
    parts = torch.load(work / 'iter_4.pth', weights_only=False)
    for key in ('state_dict', 'ema_state_dict'):
        for name, value in whole[key].items():
            assert torch.equal(value, parts[key][name]), (key, name)


def test_curves_decay_memory_and_the_other_runner(mine, run, monkeypatch,
                                                  tmp_path):
    for library in ('wandb', 'tensorboard'):
        pytest.importorskip(library)
    # W&B copies the files below the current folder.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('WANDB_DATA_DIR', str(tmp_path))
    config = mine('curves', 'layer_decay', 'memory', 'fsdp', more="""
strategy = dict(_delete_=True, type='SingleDeviceStrategy')
env_cfg = dict(_delete_=True)
train_cfg = dict(max_iters=2, val_interval=2)
""")
    work = run('train', config)
    shown, = work.glob('*/vis_data')
    assert list(shown.glob('events.out.tfevents.*'))
    assert list(shown.glob('wandb/offline-run-*'))
    groups = torch.load(work / 'iter_2.pth', weights_only=False)[
        'optimizer']['param_groups']
    rates = sorted({group['lr'] for group in groups})
    # Four blocks, of which the first is frozen, and the layers above them.
    assert [rate / rates[-1] for rate in rates] == pytest.approx(
        [.9**3, .9**2, .9, 1.])
    run('train', config, '--resume', '--cfg-options', 'train_cfg.max_iters=3')
    assert (work / 'iter_3.pth').is_file()


def test_zero(mine, run_python, tmp_path):
    config = mine('zero', more='train_cfg = dict(max_iters=1)\n')
    run_python(
        '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2,
        '-m', 'mmcyclemlp', 'train', config, '--work-dir', tmp_path / 'work',
        '--launcher', 'pytorch')
    content = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=False)
    optimizer = content['optimizer']
    # The states of the parameters of both processes.
    number = sum(len(group['params']) for group in optimizer['param_groups'])
    assert len(optimizer['state']) == number > 50


def test_tta(mine, run, tmp_path, capfd):
    config = mine('tta')
    checkpoint = tiny.write_checkpoint(config, tmp_path / 'random.pth')
    run('test', config, checkpoint, '--tta')
    text = ''.join(capfd.readouterr())
    assert 'coco/bbox_mAP: ' in text


@pytest.mark.parametrize('name', HEADS)
def test_heads(name, texts, run, root, drawn_data, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / f'{name}.py').write_text(texts[name])
    config = tmp_path / 'config.py'
    config.write_text((tiny.COMMON + HEADS[name]).format(
        root=tmp_path, base=f'{name}.py', data=drawn_data))
    work = run('train', config)
    state = torch.load(next(work.glob('*_1.pth')),
                       weights_only=False)['state_dict']
    assert any(key.startswith('backbone.network') for key in state)


@pytest.mark.parametrize('name', HEADS)
def test_heads_at_full_size(name, texts, root, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / f'{name}.py').write_text(texts[name])
    cfg = Config.fromfile(tmp_path / f'{name}.py')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert f'{millions:.2f} M' in (root / 'docs' / 'recipes.md').read_text()
