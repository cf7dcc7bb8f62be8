"""The benchmark as a user runs it, and what it does with bad results."""

import importlib
import json

import pytest
import torch
from helpers.commands import error_of, run_command

from mmcyclemlp import CycleNet
from mmcyclemlp.backbones import fusing
from mmcyclemlp.benchmark import bench, calls
from mmcyclemlp.benchmark.report import short
from mmcyclemlp.commands import benchmark
from mmcyclemlp.ops import modules, reference

TINY = ('--arch', 'b1', '--size', '64', '64', '--dtype', 'fp32', '--device',
        'cpu')


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run the command here; return its exit code, its text and its rows."""
    # Compiling takes too long for a test.
    monkeypatch.setattr(torch, 'compile', lambda net, **_: net)
    monkeypatch.setattr(bench, 'ROUNDS', 3)
    monkeypatch.setattr(calls, 'PEERS', {})
    for name in ('benchmark', 'allow_tf32'):
        monkeypatch.setattr(torch.backends.cudnn, name,
                            getattr(torch.backends.cudnn, name))

    def run(*args, seconds=300):
        path, status = tmp_path / 'out.json', 0
        try:
            benchmark.main([*args, *TINY, '--seconds', str(seconds),
                            '--json', str(path)])
        except SystemExit as stop:
            status = stop.code
        rows = [dict(row, case=case['label'], question=case['question'])
                for case in json.loads(path.read_text())['cases']
                for row in case['rows']]
        return status, capsys.readouterr().out, rows

    return run


def status_of(rows, contender):
    return {row['case'].rpartition(' ')[2]: row['status'] for row in rows
            if row['contender'] == contender}


def test_tables_and_json(run):
    status, text, rows = run('op', '--size', '32', '64', '--threads',
                             str(torch.get_num_threads()))
    assert status == 0
    machine, table = text.split('\n\n')
    for word in ('date 20', 'cpu ', 'threads ', 'load ', 'triton ',
                 f'torch {torch.__version__}', 'torchvision ', 'timm '):
        assert word in machine
    head, rule, *lines = table.strip().split('\n')
    assert head.split()[:3] == ['|', 'op', '|']
    lines = [line for line in lines if line.startswith('|')]
    assert {len(line) for line in (head, rule, *lines)} == {len(head)}
    assert all(row['case'] in table for row in rows)
    # Both sizes, most important first.
    assert rows[0]['case'] == '1x64x8x16 fp32 forward'
    assert {'1x64x16x16 fp32 forward', '1x512x1x2 fp32 fwd+bwd'} <= {
        row['case'] for row in rows}
    torch_row = next(row for row in rows if row['contender'] == 'torch')
    assert len(torch_row['samples']) == 3
    assert 0 < torch_row['error'] < 1e-5


def test_it_needs_torch_alone(run_python):
    done = run_python('-c', f'''
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2',
             'torchvision', 'timm'):
    sys.modules[name] = None
from mmcyclemlp.__main__ import main
main(['benchmark', 'op', *{TINY!r}, '--seconds', '1'])
''')
    assert '|   torch ' in done.stdout
    assert 'official route: left out: ' in done.stdout


def test_training_memory(run, monkeypatch):
    monkeypatch.setattr(reference, 'unavailable_reason', lambda: 'of a test')
    status, text, rows = run('train')
    assert status == 0
    assert status_of(rows, 'official route') == {'fp32': 'left out'}
    ours, = (row for row in rows if row['contender'] == 'ours')
    gradients = 4 * sum(p.numel() for p in CycleNet('b1').parameters())
    assert gradients < ours['peak_bytes'] < 8 * gradients
    assert f' {short(ours["peak_bytes"] / 2**20)} |' in text


def test_peers_left_out_are_named(run, monkeypatch):
    find = importlib.import_module

    def fail(name, package=None):
        if name.partition('.')[0] == 'timm':
            raise RuntimeError(
                'operator torchvision::nms does not exist\nmore of it')
        return find(name, package)

    monkeypatch.setattr(importlib, 'import_module', fail)
    monkeypatch.setattr(calls, 'PEERS',
                        {'PVTv2-B2': ('pvt_v2_b2', {})})
    monkeypatch.setattr(reference, 'unavailable_reason', lambda: 'of a test')
    status, text, rows = run('backbone')
    assert status == 0
    row, = (row for row in rows if row['contender'] == 'PVTv2-B2')
    assert row['status'] == 'left out' and row['samples'] == []
    assert ('- PVTv2-B2: left out: timm: operator torchvision::nms does not '
            'exist\n') in text
    # Also where there is no official route.
    row, = (row for row in rows if row['contender'] == 'ours')
    assert row['status'] == 'measured' and 0 < row['error'] < 3e-5


class Scaled(torch.autograd.Function):
    """The value as it is, its gradient a little too large."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * 1.001


FAULTS = {
    'value': lambda x, y: y * 1.001,
    'gradient': lambda x, y: Scaled.apply(y),
    'large maps': lambda x, y: y * (1.001 if x.shape[-1] == 16 else 1),
    'small maps': lambda x, y: y * (1.001 if x.shape[-1] == 11 else 1),
    'not a number': lambda x, y: y * float('nan'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_wrong_op_gets_no_time(fault, run, monkeypatch):
    right = modules.cycle_fc

    def wrong(x, *args, backend):
        y = right(x, *args, backend=backend)
        return FAULTS[fault](x, y) if backend == 'torch' else y

    monkeypatch.setattr(modules, 'cycle_fc', wrong)
    status, text, rows = run('op')
    assert status == 1
    for row in rows:
        if row['contender'] != 'torch':
            assert row['status'] in ('measured', 'left out')
            continue
        expected = 'wrong'
        if fault == 'gradient' and row['case'].endswith('forward'):
            expected = 'measured'
        if fault == 'large maps' and 'x16x16 ' not in row['case']:
            expected = 'measured'
        assert row['status'] == expected, row
        assert bool(row['samples']) == (expected == 'measured')
    assert any(line.split()[1:5] == ['torch', '|', 'wrong', '|']
               for line in text.split('\n'))
    assert '- torch: wrong: off by ' in text


@pytest.mark.parametrize('question', ['mixer', 'backbone', 'train'])
def test_wrong_network_gets_no_time(question, run, monkeypatch):
    right = fusing.cycle_mixer

    def wrong(*args, backend, **kwargs):
        y = right(*args, backend=backend, **kwargs)
        return y if backend in ('plain', 'reference') else y * 1.001

    monkeypatch.setattr(fusing, 'cycle_mixer', wrong)
    status, text, rows = run(question)
    ours = 'torch' if question == 'mixer' else 'ours'
    assert status == 1 and set(status_of(rows, ours).values()) == {'wrong'}
    assert 'wrong: off by ' in text


@pytest.mark.parametrize('error, expected', [
    (torch.cuda.OutOfMemoryError('CUDA out of memory'), 'out of memory'),
    (ValueError('no such luck\nand more'), 'failed'),
])
def test_contender_that_fails(error, expected, run, monkeypatch):
    right = modules.cycle_fc

    def failing(x, *args, backend):
        if backend == 'torch':
            raise error
        return right(x, *args, backend=backend)

    monkeypatch.setattr(modules, 'cycle_fc', failing)
    status, text, rows = run('op')
    assert set(status_of(rows, 'torch').values()) == {expected}
    assert set(status_of(rows, 'F.linear').values()) == {'measured'}
    assert status == (expected == 'failed')
    assert expected in text
    if expected == 'failed':
        assert '- torch: failed: no such luck\n' in text


def test_what_there_is_no_time_for_is_named(run):
    status, text, rows = run('op', seconds=1e-3)
    assert status == 0
    assert {row['status'] for row in rows[4:]} == {'no time'}
    assert '| 1x512x2x2 fp32 fwd+bwd           |       no time |' in text


@pytest.mark.parametrize('args, message', [
    (['speed'], 'there is no question speed. The questions are op, mixer, '
     'backbone, train'),
    (['--size', '64', '8'], '--size: 64 8 is less than 32 pixels'),
    (['op', *TINY, '--json', 'gone/out.json'],
     '--json: gone/out.json cannot be written'),
    (['--device', 'abacus'], '--device abacus: '),
    (['--device', 'meta'], '--device meta: '),
])
def test_mistakes_end_in_one_line(args, message):
    text = error_of('benchmark', *args)
    assert message in text and text.count('\n') <= 1


@pytest.mark.parametrize('option', ['--batch', '--threads'])
def test_numbers_that_are_too_small(option, capsys):
    assert run_command('benchmark', option, '0') == 2
    assert f'{option}: invalid positive value' in capsys.readouterr().err


def test_help(run_cli):
    text = run_cli('benchmark', '--help').stdout
    assert '--seconds' in text and 'H W' in text
    assert max(map(len, text.split('\n'))) < 80
