"""The config of docs/pretrain.md trains, and a detector takes its weights."""

import re

import definition
import pytest
import torch
from helpers import class_images

from mmcyclemlp import CycleNet, load_pretrained


def test_config_of_the_page(root, run_cli, tmp_path):
    pytest.importorskip('mmpretrain')
    page = (root / 'docs' / 'pretrain.md').read_text()
    text, = re.findall(r'```python\n(# mine/classifier\.py\n.*?)```', page,
                       flags=re.DOTALL)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'configs').symlink_to(root / 'configs')
    (tmp_path / 'mine' / 'classifier.py').write_text(text)
    class_images.draw(tmp_path / 'data' / 'mine', per_class=1)
    net = CycleNet('b1', fork_feat=False)
    torch.save(definition.official_file(net), tmp_path / 'CycleMLP_B1.pth')
    run_cli('convert_checkpoint', 'CycleMLP_B1.pth', 'b1_headless.pth',
            '--drop-head', cwd=tmp_path)
    # A learning rate of 0 keeps the weights, so that they can be compared.
    done = run_cli(
        'train', 'mine/classifier.py', '--cfg-options',
        'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.',
        'train_dataloader.num_workers=1', 'val_dataloader.num_workers=1',
        'train_dataloader.batch_size=4', cwd=tmp_path)
    log = done.stdout + done.stderr
    assert 'head.weight' in log and 'accuracy/top5' in log
    # A detector loads the backbone of the classifier.
    backbone = CycleNet('b1', fork_last3=True)
    load_pretrained(
        backbone, tmp_path / 'work_dirs' / 'classifier' / 'epoch_1.pth')
    for key, value in backbone.state_dict().items():
        if not re.match(r'norm\d', key):
            assert torch.equal(value, net.state_dict()[key]), key


def test_keys_of_the_page(root):
    """The configs have the keys that the page sets by --cfg-options."""
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config

    cfg = Config.fromfile(
        root / 'configs' / 'imagenet' / 'cyclemlp-b1_8xb128_in1k.py')
    page = (root / 'docs' / 'pretrain.md').read_text()
    keys = re.findall(r'((?:custom_hooks|test_dataloader)[\w.]+)=', page)
    assert len(keys) == 3
    for key in keys:
        node = cfg
        for name in key.split('.'):
            node = node[int(name) if name.isdigit() else name]
