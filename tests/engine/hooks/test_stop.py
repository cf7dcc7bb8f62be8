"""Stop a run at a signal, also if its metric or transform forks."""

import os
import signal
import subprocess
import sys

import pytest
from helpers.tiny_configs import write_config

from mmcyclemlp.engine.mm_checkpoints import read

FORKING = """
import multiprocessing
import subprocess
import sys
import time

from mmcv.transforms import BaseTransform
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS, TRANSFORMS

fork = multiprocessing.get_context('fork')
SLEEP = [sys.executable, '-S', '-c', 'import time; time.sleep(1000)']


@METRICS.register_module()
class Forking(BaseMetric):
    '''With pools, one of which it leaves, as mm's VOCMetric does.

    Args:
        seconds (float): That each process takes.
    '''

    def __init__(self, seconds=0):
        super().__init__()
        self.seconds = seconds

    def process(self, data_batch, data_samples):
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results):
        left = fork.Pool(2)
        left.map(abs, range(4))
        left.close()
        with fork.Pool(2) as pool:
            print('evaluating', flush=True)
            pool.map(time.sleep, [self.seconds] * 2)
        return dict(mIoU=1.)


@TRANSFORMS.register_module()
class Starting(BaseTransform):
    '''Start a program and a process, and end them.'''

    def transform(self, results):
        program = subprocess.Popen(SLEEP)
        program.terminate()
        program.wait()
        # Which multiprocessing refuses to workers.
        multiprocessing.current_process()._config['daemon'] = False
        process = fork.Process(target=time.sleep, args=(1000,))
        process.start()
        process.terminate()
        process.join()
        return results
"""


@pytest.fixture
def start(root, drawn_data, tmp_path):
    """Start to train a tiny UPerNet that evaluates with processes."""
    config = write_config(tmp_path, root, drawn_data, 'upernet')
    (tmp_path / 'forking.py').write_text(FORKING)
    config.write_text(config.read_text() + """
custom_imports = dict(imports=['forking'])
train_pipeline.insert(2, dict(type='Starting'))
train_cfg['val_interval'] = 2
default_hooks['checkpoint'] = dict(interval=100, save_best=None)
""")
    started = []

    def start(*args, seconds=0, workers=0, ranks=0):
        path = tmp_path / 'run.py'
        path.write_text(config.read_text() + f"""
val_evaluator = dict(_delete_=True, type='Forking', seconds={seconds})
""")
        launch = ['-m', 'torch.distributed.run', '--standalone',
                  f'--nproc-per-node={ranks}'] if ranks else []
        launcher = ['--launcher', 'pytorch'] if ranks else []
        started.append(subprocess.Popen(
            [sys.executable, '-W', 'ignore', *launch, 'tools/train.py',
             str(path), '--work-dir', str(tmp_path / 'work'), *launcher,
             *args, '--cfg-options',
             f'train_dataloader.num_workers={workers}'],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
            env=dict(os.environ, PYTHONPATH=str(tmp_path))))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(process, expect):
    # Up to the end of the last process that it started.
    log, _ = process.communicate(timeout=200)
    assert process.returncode == expect, log
    return log


def wait_for(process, text):
    log = ''
    for line in process.stdout:
        log += line
        if text in line:
            return
    raise AssertionError(log)


@pytest.mark.parametrize('workers', [0, 1])
def test_stops_in_every_validation_and_step(workers, start):
    log = finish(start(workers=workers), expect=0)
    assert log.count('mIoU: 1.0') == 6


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('send', [os.kill, os.killpg])
def test_stops_in_evaluation_and_evaluates_again(
        number, send, start, tmp_path):
    # The processes of the metric end by a signal to the group, and what they
    # were to give never comes.
    process = start(seconds=1000)
    wait_for(process, 'evaluating')
    send(process.pid, number)
    log = finish(process, expect=75)
    assert f'Stopped by {number.name} after step 2' in log
    progress = read(str(tmp_path / 'work' / 'interrupted.pth'))['progress']
    assert not progress['validated']
    log = finish(start('--resume'), expect=0)
    assert log.count('mIoU: 1.0') == 6


def test_stops_in_evaluation_of_two_processes(start, tmp_path):
    # The first computes metrics, and the second waits for it.
    process = start(seconds=1000, ranks=2)
    wait_for(process, 'evaluating')
    os.kill(process.pid, signal.SIGTERM)
    log, _ = process.communicate(timeout=200)
    assert 'Stopped by SIGTERM after step 2' in log
    progress = read(str(tmp_path / 'work' / 'interrupted.pth'))['progress']
    assert len(progress['processes']) == 2 and not progress['validated']
    log = finish(start('--resume', ranks=2), expect=0)
    assert log.count('mIoU: 1.0') == 6


def test_a_failing_metric_is_not_a_stop(start):
    process = start(seconds=-1)
    assert 'ValueError' in finish(process, expect=1)
