"""The converter as a user calls it."""

import hashlib
import json
import os
import re

import definition
import pytest
import torch
from helpers import hostile_files as hostile
from helpers.commands import error_of, run_command
from torch.testing import assert_close

from mmcyclemlp import CycleNet, load_pretrained

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 1, 1, 1],
             mlp_ratios=[4, 4, 2, 2])
NAME = 'convert_checkpoint'


@pytest.fixture
def small(tmp_path):
    content = definition.official_file(
        CycleNet(SMALL, fork_feat=False, num_classes=5))
    torch.save(content, tmp_path / 'small.pth')
    return tmp_path / 'small.pth', content['model']


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_official_to_safetensors_and_back(run_cli, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    content = definition.official_file(CycleNet('b1', fork_feat=False))
    path, state = tmp_path / 'CycleMLP_B1.pth', content['model']
    torch.save(content, path)
    done = run_cli(NAME, path, tmp_path / 'b1.safetensors')
    assert_close(safetensors.load_file(tmp_path / 'b1.safetensors'), state,
                 rtol=0, atol=0)
    assert done.stdout.splitlines() == [
        f'read        {path} (PyTorch file, official layout)',
        f'sha256      {digest(path)}',
        "network     classifier of 1000 classes: "
        "CycleNet('b1', fork_feat=False, num_classes=1000)",
        'weights     202 tensors, 15155400 parameters, float32; '
        '0 transposed',
        'offsets     20 verified',
        'left out    nothing',
        f'wrote       {tmp_path}/b1.safetensors (official layout)',
        f'sha256      {digest(tmp_path / "b1.safetensors")}',
    ]
    assert not run_command(
        NAME, tmp_path / 'b1.safetensors', tmp_path / 'b1.pth')
    assert_close(torch.load(tmp_path / 'b1.pth', weights_only=True)['model'],
                 state, rtol=0, atol=0)


def test_the_message_names_the_sizes_to_give(small, tmp_path):
    path, state = small
    line = error_of(NAME, path, tmp_path / 'out.pth')
    arch = re.search(r"give --arch '(.*)'", line)[1]
    assert json.loads(arch) == SMALL
    assert not run_command(NAME, path, tmp_path / 'out.pth', '--arch', arch,
                           '--drop-head')
    model = CycleNet(SMALL, fork_feat=False, num_classes=2)
    report = load_pretrained(model, tmp_path / 'out.pth')
    assert report.kept == ['head.weight', 'head.bias']
    assert torch.equal(model.norm.weight, state['norm.weight'])


def test_a_classifier_for_mm(small, tmp_path):
    path, state = small
    assert not run_command(NAME, path, tmp_path / 'mm.pth', '--to', 'mm',
                           '--arch', json.dumps(SMALL))
    content = torch.load(tmp_path / 'mm.pth', weights_only=True)
    # A detector loads all keys but norm and head, as mmengine does.
    detector = torch.nn.ModuleDict({'backbone': CycleNet(SMALL)})
    found = detector.load_state_dict(content['state_dict'], strict=False)
    assert not found.unexpected_keys
    assert {key.split('.')[1] for key in found.missing_keys} == {
        'norm0', 'norm2', 'norm4', 'norm6'}
    key = 'network.4.0.mlp.fc2.weight'
    assert torch.equal(detector['backbone'].state_dict()[key], state[key])


@pytest.mark.parametrize('what, arch, message', [
    ('a NaN', None, r'norm\.bias holds 5 values that are NaN'),
    ('hostile', None, r'asks for (posix|nt)\.system'),
    ('right', 'b1', r'not of arch b1.*patch_embed\.proj\.weight '
     r'\(6, 3, 7, 7\) for \(64, 3, 7, 7\)'),
    ('right', '{"embed_dims": 1', 'is not JSON'),
])
def test_an_error_is_one_line_and_nothing_is_written(what, arch, message,
                                                     small, tmp_path):
    path, state = small
    if what == 'a NaN':
        state['norm.bias'] = torch.full((5, ), float('nan'))
    if what == 'hostile':
        state = hostile.Call(os.system, 'false')
    torch.save({'model': state}, path)
    line = error_of(NAME, path, tmp_path / 'out.pth', '--arch',
                    arch or json.dumps(SMALL))
    assert re.search(message, line), line
    assert 'small.pth' in line or 'JSON' in line
    assert os.listdir(tmp_path) == ['small.pth']


def test_an_existing_file_is_kept(small, tmp_path):
    path, _ = small
    target, arch = tmp_path / 'out.pth', ['--arch', json.dumps(SMALL)]
    target.write_bytes(b'mine')
    assert re.match(r'error: .*out\.pth exists.*--force',
                    error_of(NAME, path, target, *arch))
    assert target.read_bytes() == b'mine'
    assert not run_command(NAME, path, target, *arch, '--force')
    assert torch.load(target, weights_only=True).keys() == {'model'}
