"""Train in two processes on the CPU, also through engine/torchrun.py."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import two_ranks
from mmengine.config import Config

from mmcyclemlp.engine import distributed
from mmcyclemlp.errors import UserError

NETWORKS = ('retinanet', 'mask_rcnn', 'upernet')
OUT_INDICES = ([0, 1, 2, 3], [1, 2, 3], [0, 2, 3])


class IncompleteCache:
    """Finder of modules that fails as yapf does with half a cache file."""

    def __init__(self, failures):
        self.failures = failures

    def find_spec(self, name, path=None, target=None):
        if name == 'yapf' and self.failures:
            self.failures -= 1
            raise EOFError('Ran out of input')


@pytest.mark.parametrize('failures', [0, 1])
def test_waits_for_the_cache_of_yapf(failures, monkeypatch):
    finder = IncompleteCache(failures)
    monkeypatch.setattr(sys, 'meta_path', [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, 'yapf', raising=False)
    distributed.import_yapf()
    assert finder.failures == 0 and 'yapf' in sys.modules


def test_names_a_cache_of_yapf_that_stays_incomplete(monkeypatch):
    monkeypatch.setattr(
        sys, 'meta_path', [IncompleteCache(1000), *sys.meta_path])
    monkeypatch.delitem(sys.modules, 'yapf', raising=False)
    with pytest.raises(UserError, match='^yapf cannot read its own cache'):
        distributed.import_yapf(patience=0)


def test_sets_up_processes_without_gpu(monkeypatch):
    groups = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(
        torch.distributed, 'init_process_group', groups.append)
    cfg = Config(dict(launcher='none', model=dict(
        heads=[dict(norm_cfg=dict(type='SyncBN'))])))
    distributed.set_up_processes(cfg)
    assert not groups and 'model_wrapper_cfg' not in cfg
    assert cfg.model.heads[0].norm_cfg.type == 'SyncBN'
    cfg.launcher = 'pytorch'
    distributed.set_up_processes(cfg)
    assert groups == ['gloo']
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model.heads[0].norm_cfg.type == 'BN'


def steps():
    """Each pair of values of any two options, on each network."""
    for name in NETWORKS:
        for i, out_indices in enumerate(OUT_INDICES):
            for frozen_stages in range(4):
                yield dict(
                    name=name, out_indices=out_indices,
                    frozen_stages=frozen_stages,
                    with_cp=(i + frozen_stages // 2) % 2 == 1,
                    # RetinaNet makes no use of the first of four maps.
                    fork_last3=(i + frozen_stages) % 2 == 1
                    or (name == 'retinanet' and i == 0))


STEPS = [*steps(), dict(name='upernet', out_indices=[0, 1, 2])]
# With a norm that no loss comes from.
UNUSED = [dict(name='retinanet', fork_last3=False)]
GRADIENTS = [
    dict(name=name, undo=undo, with_cp=True, fork_last3=name == 'retinanet')
    for name in NETWORKS for undo in (True, False)]
BACKBONES = [dict(), dict(fork_last3=True, out_indices=[0, 2, 3]),
             dict(frozen_stages=2, with_cp=True)]
CASES = [*(('take_steps', case) for case in STEPS + UNUSED),
         *(('compare_gradients', case) for case in GRADIENTS),
         *(('compare_backbone_gradients', case) for case in BACKBONES)]


def name_of(case):
    return '-'.join(
        ''.join(map(str, value)) if isinstance(value, list) else
        str(value) if key == 'name' else f'{key}={value}'
        for key, value in case.items()) or 'plain'


@pytest.fixture(scope='module')
def result(run_python, drawn_data, tmp_path_factory):
    """What came of a case; two processes go through all of them once."""
    folder = tmp_path_factory.mktemp('ranks')
    cases, out = folder / 'cases.json', folder / 'out.json'
    cases.write_text(json.dumps(CASES))
    run_python(
        '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2,
        Path(two_ranks.__file__), drawn_data, cases, out)
    results = json.loads(out.read_text())
    return lambda *case: results[CASES.index(case)]


@pytest.mark.parametrize('case', STEPS, ids=name_of)
def test_steps(case, result):
    got = result('take_steps', case)
    assert isinstance(got, dict), got
    assert got['ranks_equal']
    # All that is not frozen is trained.
    assert got['still'] == got['frozen']
    assert bool(got['frozen']) == (
        case.get('frozen_stages', 0) > 0 or case['out_indices'][-1] < 3)


@pytest.mark.parametrize('case', UNUSED, ids=name_of)
def test_detects_a_parameter_without_gradient(case, result):
    # So the steps above have shown that there is none.
    assert 'parameters that were not used' in result('take_steps', case)


@pytest.mark.parametrize('case', GRADIENTS, ids=name_of)
def test_gradients_equal_those_of_one_process(case, result):
    # UperNet's losses are means over all pixels, so two ranks with as many
    # images each are one process with all. Those of the detectors are
    # divided by the number of positive anchors or RoIs in the rank's own
    # images, so it holds when that is undone, and only then.
    # Its batch norms are fixed: they look at the rank's own images.
    got = result('compare_gradients', case)
    assert isinstance(got, float), got
    if case['name'] != 'upernet' and not case['undo']:
        assert got > 1e-2
    else:
        # mmcv has Mask R-CNN's operators in float32 alone.
        assert got < (1e-4 if case['name'] == 'mask_rcnn' else 1e-7)


@pytest.mark.parametrize('case', BACKBONES, ids=name_of)
def test_backbone_gradients_equal_those_of_one_process(case, result):
    got = result('compare_backbone_gradients', case)
    assert isinstance(got, float), got
    assert got < 1e-11


CONFIG = """
_base_ = '{root}/demo/upernet.py'
custom_imports = dict(imports=['mmcyclemlp', 'helpers.two_ranks'])
custom_hooks = [dict(type='RankHook', folder='{folder}', death={death!r})]
crop_size = (64, 64)
model = dict(data_preprocessor=dict(size=crop_size))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=1,
    dataset=dict(data_root='{data}', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root='{data}'))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=6, val_interval=100)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def train(root, drawn_data, tmp_path):
    """Train a small UperNet in two processes, with a hook in each."""

    def run(death=None):
        config = tmp_path / 'config.py'
        config.write_text(CONFIG.format(
            root=root, data=drawn_data, folder=tmp_path, death=death))
        log = tmp_path / 'log'
        # To a file: what outlives the command would hold a pipe open.
        with log.open('w') as out:
            code = subprocess.run(
                ['bash', 'tools/dist_train.sh', '2', str(config),
                 '--work-dir', str(tmp_path / 'work')],
                cwd=root, stdout=out, stderr=out, timeout=300,
                env={'PATH': f'{sys.prefix}/bin:/usr/bin:/bin',
                     'PYTHONPATH': str(root / 'tests'),
                     'OMP_NUM_THREADS': '1', 'JOB': str(tmp_path)},
            ).returncode
        return code, time.time(), log.read_text()

    return run


def processes_of(job):
    """Ids of the processes that still run of a job."""
    found = []
    for path in Path('/proc').glob('[0-9]*/environ'):
        try:
            if f'JOB={job}\0'.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # ended, or not ours
            continue
    return found


def test_ranks_stay_equal(train, tmp_path):
    code, _, log = train()
    assert code == 0, log
    first, second = (
        torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        for rank in range(2))
    # Except what batch norms have seen.
    differ = {key for key in first if not torch.equal(first[key],
                                                      second[key])}
    assert first and all('running_' in key for key in differ), differ
    assert differ, 'the ranks had the same images'


@pytest.mark.parametrize('how, code, last, cause', [
    ('exit', 3, 'with exit code 3', ''),
    ('kill', 137, 'by SIGKILL', ''),
    ('raise', 1, 'with exit code 1', 'ArithmeticError: the second rank has '
     'had enough'),
])
def test_a_dead_rank_ends_the_job(how, code, last, cause, train, tmp_path):
    got, end, log = train(how)
    death = tmp_path / 'death'
    assert death.exists(), log
    seconds = end - float(death.read_text())
    assert got == code and cause in log, log
    assert log.strip().split('\n')[-1] == (
        f'error: rank 1 ended first, {last}; its own messages are above')
    # A killed rank's workers look for it every five seconds.
    while processes_of(tmp_path) and time.time() < end + 15:
        time.sleep(0.1)
    assert processes_of(tmp_path) == []
    print(f'{how}: over after {seconds:.1f} s, nothing left after '
          f'{time.time() - end:.1f} s more')
    assert seconds < 20, log
