"""``python -m mmcyclemlp`` hands over to the commands, from anywhere."""

import pytest


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
