"""The commands of docs/weights.md run, in their order."""

import json
import re
import shlex

import definition
import pytest
import torch
from helpers import paddle_file
from helpers.commands import run_command

from mmcyclemlp import CycleNet

OWN = dict(embed_dims=[32, 64, 128, 192], depths=[1, 1, 2, 1],
           mlp_ratios=[4, 4, 4, 4])


def test_commands_of_the_page(root, tmp_path, monkeypatch, capsys):
    pytest.importorskip('safetensors')
    # Small networks take the names of the large ones, to save time.
    small = dict(embed_dims=[8, 12, 16, 24], depths=[1, 2, 1, 1],
                 mlp_ratios=[4, 4, 2, 2])
    monkeypatch.setitem(CycleNet.arch_settings, 'b1', small)
    monkeypatch.setitem(CycleNet.arch_settings, 't', dict(
        small, downsample='patch_merging', reweight=False))
    monkeypatch.chdir(tmp_path)
    official = definition.official_file(CycleNet('b1', fork_feat=False))
    torch.save(official, 'CycleMLP_B1.pth')
    torch.save(definition.official_file(CycleNet('t', fork_feat=False)),
               'CycleMLP_tiny.pth')
    (tmp_path / 'cyclemlp_b1.pdparams').write_bytes(
        paddle_file.dumps(paddle_file.plain(official['model'])))
    (tmp_path / 'work_dirs' / 'mine').mkdir(parents=True)
    for name, arch in (('epoch_12', 'b1'), ('small', OWN)):
        torch.save({'state_dict': {
            f'backbone.{key}': value
            for key, value in CycleNet(arch).state_dict().items()
        }}, tmp_path / 'work_dirs' / 'mine' / f'{name}.pth')
    page = (root / 'docs' / 'weights.md').read_text()
    commands = re.findall(
        r'^    python -m mmcyclemlp convert_checkpoint (?!CHECKPOINT)(.*)$',
        page, flags=re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        arguments = shlex.split(command)
        assert run_command('convert_checkpoint', *arguments) == 0
        assert f'wrote       {arguments[1]} ' in capsys.readouterr().out
        if '--arch' in arguments:
            assert json.loads(arguments[-1]) == OWN
    network, official_code = re.findall(
        r'```python\n(import torch.*?)```', page, flags=re.DOTALL)
    found = {}
    exec(network, found)
    assert found['logits'].shape == (1, 1000)
    assert torch.equal(found['model'].head.weight,
                       official['model']['head.weight'])
    exec(official_code, found)
    assert found['state_dict'].keys() == official['model'].keys()
    assert all(torch.equal(value, official['model'][key])
               for key, value in found['state_dict'].items())
