"""``python -m mmcyclemlp`` hands over to the commands, from anywhere."""

import pytest


def test_lists_every_command(run_python, root, tmp_path):
    done = run_python('-m', 'mmcyclemlp', cwd=tmp_path)
    for path in (root / 'tools').glob('*.py'):
        line, = (line for line in done.stdout.splitlines()
                 if line.split()[:1] == [path.stem])
        assert line.endswith('.')


def test_runs_a_command(run_python, tmp_path):
    done = run_python('-m', 'mmcyclemlp', 'print_config', cwd=tmp_path)
    assert 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco' in (
        done.stdout.splitlines())
    done = run_python('-m', 'mmcyclemlp', 'train', '--help', cwd=tmp_path)
    assert done.stdout.startswith('usage: train.py ')


@pytest.mark.parametrize('args, message', [
    (['tran'], 'there is no command tran; train is alike'),
    (['train', 'gone.py'], 'there is no config file gone.py'),
])
def test_mistakes(args, message, run_python, tmp_path):
    done = run_python('-m', 'mmcyclemlp', *args, cwd=tmp_path, expect=1)
    assert done.stderr.startswith(f'error: {message}')
    assert done.stderr.count('\n') == 1
