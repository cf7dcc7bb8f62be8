"""The converter as a user types it."""

import hashlib
import json
import os
import pickle
import re

import definition
import pytest
import torch
from helpers import paddle_file

from mmcyclemlp import CycleNet, load_pretrained

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 1, 1, 1],
             mlp_ratios=[4, 4, 2, 2])
TOOL = 'convert_checkpoint'


@pytest.fixture(scope='module')
def b1(tmp_path_factory):
    """An official file of a named arch, and its state dict."""
    folder = tmp_path_factory.mktemp('official')
    torch.manual_seed(0)
    content = definition.official_file(CycleNet('b1', fork_feat=False))
    torch.save(content, folder / 'CycleMLP_B1.pth')
    return folder / 'CycleMLP_B1.pth', content['model']


@pytest.fixture
def small(tmp_path):
    content = definition.official_file(
        CycleNet(SMALL, fork_feat=False, num_classes=5))
    torch.save(content, tmp_path / 'small.pth')
    return tmp_path / 'small.pth', content['model']


def same(a, b):
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key])
        for key in a)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_official_to_safetensors_and_back(b1, run_cli, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    path, state = b1
    done = run_cli(TOOL, path, tmp_path / 'b1.safetensors')
    assert same(safetensors.load_file(tmp_path / 'b1.safetensors'), state)
    lines = done.stdout.splitlines()
    assert lines == [
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
    run_cli(TOOL, tmp_path / 'b1.safetensors', tmp_path / 'b1.pth')
    assert same(torch.load(tmp_path / 'b1.pth', weights_only=True)['model'],
                state)


def test_paddle(b1, run_cli, tmp_path):
    _, state = b1
    (tmp_path / 'b1.pdparams').write_bytes(
        paddle_file.dumps({'model': paddle_file.pairs(state), 'epoch': 3}))
    done = run_cli(TOOL, tmp_path / 'b1.pdparams', tmp_path / 'b1.pth')
    assert same(torch.load(tmp_path / 'b1.pth', weights_only=True)['model'],
                state)
    assert 'Paddle file' in done.stdout and '61 transposed' in done.stdout
    assert 'left out    epoch' in done.stdout


def test_to_mm_and_the_backbone_out_of_it(b1, run_cli, tmp_path):
    path, state = b1
    run_cli(TOOL, path, tmp_path / 'mm.pth', '--to', 'mm')
    content = torch.load(tmp_path / 'mm.pth', weights_only=True)
    assert content['meta']['backbone'] == dict(
        type='CycleNet', arch='b1', fork_feat=False, num_classes=1000)
    # A detector that mm loads it into takes all but norm and head.
    detector = torch.nn.ModuleDict({'backbone': CycleNet('b1')})
    found = detector.load_state_dict(content['state_dict'], strict=False)
    assert not found.unexpected_keys
    assert {key.split('.')[1] for key in found.missing_keys} == {
        'norm0', 'norm2', 'norm4', 'norm6'}
    key = 'network.4.3.mlp.fc2.weight'
    assert torch.equal(detector['backbone'].state_dict()[key], state[key])
    torch.save({'state_dict': {**detector.state_dict(),
                               'neck.weight': torch.zeros(2)},
                'meta': {}}, tmp_path / 'epoch_1.pth')
    done = run_cli(TOOL, tmp_path / 'epoch_1.pth', tmp_path / 'out.pth')
    assert "network     backbone: CycleNet('b1')\n" in done.stdout
    assert 'left out    meta, neck (1 tensors)\n' in done.stdout
    backbone = CycleNet('b1')
    assert not load_pretrained(backbone, tmp_path / 'out.pth').kept
    assert same(backbone.state_dict(), detector['backbone'].state_dict())


def test_own_sizes_and_other_classes(small, run_cli, tmp_path):
    path, state = small
    done = run_cli(TOOL, path, tmp_path / 'out.pth', expect=1)
    arch = re.search(r"say --arch '(.*)'", done.stderr)[1]
    assert json.loads(arch) == SMALL
    run_cli(TOOL, path, tmp_path / 'out.pth', '--arch', arch,
               '--drop-head')
    model = CycleNet(SMALL, fork_feat=False, num_classes=2)
    report = load_pretrained(model, tmp_path / 'out.pth')
    assert report.kept == ['head.weight', 'head.bias']
    assert torch.equal(model.norm.weight, state['norm.weight'])


class Canary:
    """Unpickles as a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


def spoil(path, state, what):
    """Write a file that is to be refused."""
    state = dict(state)
    if what == 'a NaN':
        state['norm.bias'] = state['norm.bias'].clone()
        state['norm.bias'][2] = float('nan')
    torch.save({'model': state}, path)
    if what == 'truncated':
        path.write_bytes(path.read_bytes()[:3000])
    elif what == 'hostile':
        torch.save({'model': state, 'args': Canary(path.parent / 'canary')},
                   path)
    elif what == 'hostile Paddle':
        path.write_bytes(pickle.dumps(
            {'model': {'a': Canary(path.parent / 'canary')}}))


@pytest.mark.parametrize('what, options, message', [
    ('a NaN', [], r'norm\.bias holds 1 values that are NaN'),
    ('truncated', [], 'is damaged or not a checkpoint'),
    ('hostile', [], r'asks for (posix|nt)\.system'),
    ('hostile Paddle', [], r'asks for (posix|nt)\.system'),
    ('well', ['--arch', 'b1'], r'not of arch b1.*patch_embed\.proj\.weight '
     r'\(6, 3, 7, 7\) for \(64, 3, 7, 7\)'),
    ('well', ['--arch', '{"embed_dims": 1'], 'is no JSON'),
])
def test_one_line_and_nothing_written(what, options, message, small,
                                      run_cli, tmp_path):
    path, state = small
    spoil(path, state, what)
    if '--arch' not in options:
        options = ['--arch', json.dumps(SMALL), *options]
    before = sorted(os.listdir(tmp_path))
    done = run_cli(TOOL, path, tmp_path / 'out.pth', *options, expect=1)
    line, = done.stderr.splitlines()
    assert line.startswith('error: ')
    assert re.search(message, line), line
    assert 'small.pth' in line or 'JSON' in line
    assert not done.stdout
    assert sorted(os.listdir(tmp_path)) == before


def test_what_lies_there_is_kept(small, run_cli, tmp_path):
    path, _ = small
    target, arch = tmp_path / 'out.pth', ['--arch', json.dumps(SMALL)]
    target.write_bytes(b'mine')
    done = run_cli(TOOL, path, target, *arch, expect=1)
    assert re.match(r'error: .*out\.pth exists.*--force.*\n$', done.stderr)
    assert target.read_bytes() == b'mine'
    run_cli(TOOL, path, target, *arch, '--force')
    assert torch.load(target, weights_only=True).keys() == {'model'}
    before = path.read_bytes()
    done = run_cli(TOOL, path, path, *arch, '--force', expect=1)
    assert re.match('error: .*is the file to read', done.stderr)
    assert path.read_bytes() == before
    for name in ('out.onnx', 'gone/out.pth'):
        done = run_cli(TOOL, path, tmp_path / name, *arch, expect=1)
        assert re.match(rf'error: .*{name}: .*\n$', done.stderr)
    assert sorted(os.listdir(tmp_path)) == ['out.pth', 'small.pth']


def test_help(run_cli):
    text = ' '.join(run_cli(TOOL, '--help').stdout.split())
    for word in ('.pdparams', 'official (the default)', '--drop-head',
                 'nothing is written'):
        assert word in text
