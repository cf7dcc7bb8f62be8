"""The benchmark as a user runs it, and what it does with bad results."""

import importlib
import json
import time

import pytest
import torch

import mmcyclemlp.backbones.cyclenet as cyclenet
from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark import bench, calls, cases, set_up
from mmcyclemlp.benchmark.report import short
from mmcyclemlp.commands import benchmark
from mmcyclemlp.ops import reference

TINY = ('--arch', 'b1', '--size', '64x64', '--dtype', 'fp32', '--device',
        'cpu')


@pytest.fixture
def tool(root, monkeypatch):
    """The command as a module; compiling takes too long for a test."""
    monkeypatch.setattr(torch, 'compile', lambda net, **_: net)
    monkeypatch.setattr(bench, 'ROUNDS', 4)
    for name in ('benchmark', 'allow_tf32'):
        monkeypatch.setattr(torch.backends.cudnn, name,
                            getattr(torch.backends.cudnn, name))
    return benchmark


@pytest.fixture
def run(tool, tmp_path, capsys):
    """Run the command here; give its status, its text and its rows."""

    def run(*args, seconds=300):
        path = tmp_path / 'out.json'
        status = tool.main([
            *args, *TINY, '--seconds', str(seconds), '--json', str(path)])
        rows = [dict(row, case=case['label'], question=case['question'])
                for case in json.loads(path.read_text())['cases']
                for row in case['rows']]
        return status, capsys.readouterr().out, rows

    return run


@pytest.fixture
def no_peers(monkeypatch):
    """Imports of timm and torchvision fail as beside another torch."""
    find = importlib.import_module

    def fail(name, package=None):
        if name.partition('.')[0] in ('timm', 'torchvision'):
            raise RuntimeError(
                'operator torchvision::nms does not exist\nmore of it')
        return find(name, package)

    monkeypatch.setattr(importlib, 'import_module', fail)


def status_of(rows, contender):
    return {row['case'].rpartition(' ')[2]: row['status'] for row in rows
            if row['contender'] == contender}


def test_tables_and_json(run_cli, tmp_path):
    path = tmp_path / 'out.json'
    done = run_cli('benchmark', *TINY, '--seconds', 9,
                      '--threads', 1, '--json', path)
    machine, *tables = done.stdout.split('\n\n')
    for word in ('date 20', 'cpu ', 'threads 1', 'load ', 'triton ',
                 f'torch {torch.__version__}', 'torchvision ', 'timm '):
        assert word in machine
    known = json.loads(path.read_text())
    assert known['machine']['torch'] == torch.__version__
    for table, question in zip(
            tables, ('op', 'mixer', 'backbone', 'train', 'scaling'),
            strict=True):
        head, rule, *lines = table.strip().split('\n')
        assert head.split()[:3] == ['|', question, '|']
        lines = [line for line in lines if line.startswith('|')]
        assert {len(line) for line in (head, rule, *lines)} == {len(head)}
        cases = [case for case in known['cases']
                 if case['question'] == question]
        assert cases and all(case['label'] in table for case in cases)
    torch_row = next(row for row in known['cases'][0]['rows']
                     if row['contender'] == 'torch')
    assert 3 <= len(torch_row['samples']) <= 15
    assert 0 < torch_row['error'] < 1e-5
    assert 'triton: left out: ' in tables[0]


def test_training_memory(run, monkeypatch):
    monkeypatch.setattr(cases, 'PEERS', {})
    monkeypatch.setattr(reference, 'unavailable_reason', lambda: 'of a test')
    status, text, rows = run('train')
    assert status == 0
    assert status_of(rows, 'official route') == {'fp32': 'left out'}
    ours, = (row for row in rows if row['contender'] == 'ours')
    gradients = 4 * sum(p.numel() for p in CycleNet('b1').parameters())
    assert gradients < ours['peak_bytes'] < 8 * gradients
    assert f' {short(ours["peak_bytes"] / 2**20)} |' in text


def test_peers_left_out_are_named(run, no_peers, monkeypatch):
    monkeypatch.setattr(reference, 'unavailable_reason', lambda: 'of a test')
    status, text, rows = run('backbone')
    assert status == 0
    for name, other in (
            ('ResNet-50', 'torchvision: operator torchvision::nms does not '
             'exist'), ('PVTv2-B2', 'torchvision has no PVTv2-B2')):
        row, = (row for row in rows if row['contender'] == name)
        assert row['status'] == 'left out' and row['samples'] == []
        assert row['reason'] == (
            f'timm: operator torchvision::nms does not exist; {other}')
        assert row['reason'] in text
    # Also where there is no official route to be compared with.
    assert status_of(rows, 'ours') == {'fp32': 'measured'}
    row, = (row for row in rows if row['contender'] == 'ours')
    assert 0 < row['error'] < 3e-5


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
    right = calls.cycle_fc

    def wrong(x, *args, backend):
        y = right(x, *args, backend=backend)
        return FAULTS[fault](x, y) if backend == 'torch' else y

    monkeypatch.setattr(calls, 'cycle_fc', wrong)
    status, text, rows = run('op')
    assert status == 1
    ours = [row for row in rows if row['contender'] == 'torch']
    for row in ours:
        expected = 'wrong'
        if fault == 'gradient' and row['case'].endswith('forward'):
            expected = 'measured'
        if fault == 'large maps' and 'x16x16 ' not in row['case']:
            expected = 'measured'
        assert row['status'] == expected, row
        assert bool(row['samples']) == (expected == 'measured')
    assert any(line.split()[1:5] == ['torch', '|', 'wrong', '|']
               for line in text.split('\n'))
    assert 'torch: wrong: off by ' in text
    assert set(status_of(rows, 'F.linear').values()) == {'measured'}


@pytest.mark.parametrize('question', ['mixer', 'backbone', 'train'])
def test_wrong_network_gets_no_time(question, run, no_peers, monkeypatch):
    right = cyclenet.cycle_mixer

    def wrong(*args, backend, **kwargs):
        y = right(*args, backend=backend, **kwargs)
        return y if backend == 'reference' else y * 1.001

    monkeypatch.setattr(cyclenet, 'cycle_mixer', wrong)
    monkeypatch.setattr(set_up, 'peak_on_cpu', lambda *_: None)
    status, text, rows = run(question)
    ours = 'torch' if question == 'mixer' else 'ours'
    assert status == 1 and set(status_of(rows, ours).values()) == {'wrong'}
    assert 'wrong: off by ' in text


@pytest.mark.parametrize('what', ['memory', 'fault', 'hang'])
def test_contender_that_fails(what, run, monkeypatch):
    right = calls.cycle_fc

    def failing(x, *args, backend):
        if backend != 'torch':
            return right(x, *args, backend=backend)
        if what == 'memory':
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        if what == 'fault':
            raise ValueError('no such luck\nand more')
        time.sleep(600)

    monkeypatch.setattr(calls, 'cycle_fc', failing)
    # A fifth of the time is the limit of what hangs.
    status, text, rows = run('op', seconds=150 if what == 'hang' else 300)
    expected = {'memory': 'out of memory', 'fault': 'failed',
                'hang': 'no time'}[what]
    assert set(status_of(rows, 'torch').values()) == {expected}
    assert set(status_of(rows, 'F.linear').values()) == {'measured'}
    assert status == (what == 'fault')
    assert expected in text
    if what == 'fault':
        assert 'torch: failed: no such luck (' in text


def test_what_there_is_no_time_for_is_named(run):
    status, text, rows = run('op', seconds=1e-3)
    assert status == 0 and {row['status'] for row in rows} == {'no time'}
    assert '- left out for lack of time: 1x64x16x16 fp32 forward, ' in text


@pytest.mark.parametrize('args, message', [
    (['speed'], "the questions are op, mixer, backbone, train, scaling; got "
     "'speed'"),
    (['--size', '64'], "HxW, each 32 or more, such as 800x1344; got '64'"),
    (['--size', '64x8'], "got '64x8'"),
    (['--arch', 'b9'], "'b9' (choose from "),
    (['--dtype', 'fp64'], "'fp64' (choose from "),
    (['--batch', '0'], "a number above 0, got '0'"),
    (['--seconds', 'long'], "a number above 0, got 'long'"),
    (['--json', 'gone/out.json'], 'no folder for gone/out.json'),
    (['--device', 'cuda'], 'torch finds no GPU here'),
])
def test_mistakes_end_in_one_line(args, message, tool, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as stop:
        tool.parse_args(args)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and message in text
    assert text.startswith('error: ') and text.count('\n') == 1


def test_help(run_cli):
    text = run_cli('benchmark', '--help').stdout
    assert '--seconds' in text and 'scaling' in text
    assert max(map(len, text.split('\n'))) < 80
