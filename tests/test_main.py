"""``python -m mmcyclemlp`` runs commands, and reports errors in one line."""

import configparser
import errno
import importlib
import json
from importlib.util import find_spec

import pytest
import torch
from helpers.commands import error_of
from helpers.commands import main as run_main

from mmcyclemlp import CycleNet
from mmcyclemlp.errors import BackendUnavailable, CheckpointError, UserError


def test_lists_every_command(run_cli, root, tmp_path):
    done = run_cli(cwd=tmp_path)
    paths = {path for path in (root / 'mmcyclemlp/commands').glob('*.py')
             if path.stem not in ('__init__', 'cli')}
    assert {root / 'mmcyclemlp/commands/train.py'} < paths
    for path in paths:
        line, = (line for line in done.stdout.splitlines()
                 if line.split()[:1] == [path.stem])
        assert line.endswith('.')


def test_runs_a_command(run_cli, tmp_path):
    done = run_cli('print_config', cwd=tmp_path)
    assert 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco' in (
        done.stdout.splitlines())
    done = run_cli('train', '--help', cwd=tmp_path)
    assert done.stdout.startswith('usage: python -m mmcyclemlp train ')


@pytest.mark.parametrize('args, message', [
    (['tran'], 'there is no command tran; did you mean train?'),
    (['train', 'gone.py'], 'there is no config file gone.py'),
])
def test_mistakes(args, message, run_cli, tmp_path):
    done = run_cli(*args, cwd=tmp_path, expect=1)
    assert done.stderr.startswith(f'error: {message}')
    assert done.stderr.count('\n') == 1


@pytest.fixture
def failing(monkeypatch):
    """Make a command raise an error."""

    def make(error):
        def main(argv):
            raise error

        monkeypatch.setattr('mmcyclemlp.commands.doctor.main', main)

    return make


@pytest.mark.parametrize('error', [
    UserError('no such file'), CheckpointError('no weights'),
    BackendUnavailable("backend='triton' cannot run here"),
    OSError(errno.ENOSPC, 'No space left on device')], ids=repr)
def test_an_error_of_the_user_is_one_line(error, failing):
    failing(error)
    assert error_of('doctor').startswith(f'error: {error}')


def test_an_optional_library_that_is_missing_is_named(failing):
    failing(ModuleNotFoundError("No module named 'cv2'", name='cv2'))
    assert error_of('doctor').startswith(
        'error: doctor needs cv2, which is not installed')


@pytest.mark.parametrize('error', [
    RuntimeError('a bug'), OSError(errno.EACCES, 'denied'),
    ModuleNotFoundError("No module named 'mmcyclemlp.gone'",
                        name='mmcyclemlp.gone')], ids=repr)
def test_other_errors_keep_their_traceback(error, failing):
    failing(error)
    with pytest.raises(type(error)) as raised:
        run_main(['doctor'])
    assert raised.value is error


def test_console_script(root):
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    script = setup['options.entry_points']['console_scripts']
    name, module, function = script.replace(':', '=').split('=')
    assert name.strip() == 'mmcyclemlp'
    assert getattr(importlib.import_module(module.strip()), function) is (
        run_main)


# Each command runs in one process, since to import torch takes seconds.
_WITHOUT = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hidden())
from mmcyclemlp.__main__ import main
ends = []
for command in {commands!r}:
    try:
        main(command)
        ends.append(0)
    except SystemExit as end:
        ends.append(end.code)
print()
print(json.dumps(ends))
"""
MM = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2')


@pytest.fixture
def run_without(run_python, root, tmp_path, monkeypatch):
    """Run commands where packages cannot be imported; return their ends."""
    monkeypatch.setenv('PYTHONPATH', str(root))

    def run(hidden, *commands):
        done = run_python('-c', _WITHOUT.format(
            hidden=hidden, commands=commands), cwd=tmp_path)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_archs_need_torch_alone(run_without, root, tmp_path):
    torch.save(CycleNet('b1').state_dict(), tmp_path / 'given.pth')
    commands = {
        'b1.pt': ['export', 'b1', 'given.pth', '--size', '64', '64', '--out',
                  'b1.pt', '--no-check'],
        'counts.json': ['get_flops', 'b1', '--json', 'counts.json'],
        'b1.pth': ['convert_checkpoint', 'given.pth', 'b1.pth'],
        'benchmark.json': ['benchmark', 'op', '--help']}
    if find_spec('matplotlib'):
        picture = str(root / 'docs/pictures/predictions.jpg')
        kind = 'visualize_features'
        commands.update({
            'maps.png': [kind, 'maps', 'b1', 'given.pth', '--image', picture,
                         '--size', '256', '256'],
            'erf.png': [kind, 'erf', 'b1', '--images', picture, '--size',
                        '32', '32'],
            'cyclefc.png': [kind, 'cyclefc']})
    assert run_without(MM, *commands.values()) == [0] * len(commands)
    for name in commands:
        assert name == 'benchmark.json' or (tmp_path / name).stat().st_size


def test_what_is_missing_is_named(run_without):
    ends = run_without(
        (*MM, 'matplotlib'), ['train', 'x.py'], ['get_flops', 'x.py'],
        ['visualize_features', 'cyclefc'])
    assert [end.split(', which')[0] for end in ends] == [
        'error: train needs mmengine', 'error: get_flops needs mmengine',
        'error: visualize_features needs matplotlib']
