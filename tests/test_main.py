"""``python -m mmcyclemlp`` runs commands, and reports errors in one line."""

import configparser
import errno
import importlib
import os
import subprocess
import sys

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


# What a machine with torch alone does not have.
_TORCH_ALONE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hidden())
from mmcyclemlp.__main__ import main
main(sys.argv[1:])
"""
_MM = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2')


@pytest.fixture
def run_hidden(root, tmp_path):
    """Run a command where some packages cannot be imported."""

    def run(*args, hidden=_MM):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-c',
             _TORCH_ALONE.format(hidden=hidden), *map(str, args)],
            cwd=tmp_path, capture_output=True, text=True, timeout=900,
            env=dict(os.environ, PYTHONPATH=str(root)))

    return run


@pytest.mark.parametrize('args, written', [
    (['export', 'b1', '--random-weights', '--size', '64', '64', '--out',
      'b1.pt', '--no-check'], 'b1.pt'),
    (['get_flops', 'b1', '--json', 'counts.json'], 'counts.json'),
    (['convert_checkpoint', 'given.pth', 'b1.pth'], 'b1.pth'),
    (['benchmark', '--help'], None),
    (['visualize_features', 'maps', 'b1', 'given.pth', '--image',
      '{root}/docs/pictures/predictions.jpg', '--size', '64', '64'],
     'maps.png'),
    (['visualize_features', 'erf', 'b1', '--noise', '1', '--size', '32',
      '32'], 'erf.png'),
    (['visualize_features', 'cyclefc'], 'cyclefc.png'),
], ids=lambda value: '-'.join(value[:2]) if isinstance(value, list) else '')
def test_torch_alone(args, written, run_hidden, root, tmp_path):
    if args[0] == 'visualize_features':
        pytest.importorskip('matplotlib')
    if 'given.pth' in args:
        torch.save(CycleNet('b1').state_dict(), tmp_path / 'given.pth')
    done = run_hidden(*(arg.format(root=root) for arg in args))
    assert done.returncode == 0, done.stdout + done.stderr
    assert written is None or (tmp_path / written).stat().st_size


@pytest.mark.parametrize('args, hidden', [
    (['train', 'x.py'], 'mmengine'), (['get_flops', 'x.py'], 'mmengine'),
    (['visualize_features', 'cyclefc'], 'matplotlib')])
def test_what_is_missing_is_named(args, hidden, run_hidden):
    done = run_hidden(*args, hidden=(*_MM, hidden))
    assert (done.returncode, done.stderr.count('\n')) == (1, 1), done.stderr
    assert done.stderr.startswith(f'error: {args[0]} needs {hidden}')
