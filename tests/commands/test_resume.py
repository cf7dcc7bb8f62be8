"""A run that is stopped or killed resumes to the same bits."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.tiny_configs import MODELS, write_config

from mmcyclemlp.engine.mm_checkpoints import read
from mmcyclemlp.engine.start_checkpoint import find_resumable


class Run:
    """Trainings of one model, by tools/train.py as a user starts it."""

    def __init__(self, root, data, folder, name):
        self.root, self.folder, self.last = root, folder, MODELS[name][-1]
        self.config = write_config(folder, root, data, name)

    def start(self, work, *args, workers=0, processes=1, options=()):
        launch = [] if processes == 1 else [
            '-m', 'torch.distributed.run', '--standalone',
            f'--nproc-per-node={processes}']
        launcher = [] if processes == 1 else ['--launcher', 'pytorch']
        persist = workers > 0
        return subprocess.Popen(
            [sys.executable, '-W', 'ignore', *launch, 'tools/train.py',
             str(self.config), '--work-dir', str(self.folder / work), *args,
             *launcher, '--cfg-options',
             f'train_dataloader.num_workers={workers}',
             f'train_dataloader.persistent_workers={persist}', *options],
            cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
            env=dict(os.environ, OMP_NUM_THREADS='1'))

    def finish(self, process, expect=0):
        log, _ = process.communicate(timeout=300)
        assert process.returncode == expect, log
        return log

    def wait_for(self, process, pattern):
        """Read the log up to a line that has a pattern."""
        log = ''
        for line in process.stdout:
            log += line
            if re.search(pattern, line):
                return log
        raise AssertionError(log)

    def result(self, work):
        content = read(str(self.folder / work / self.last))
        return {**content['state_dict'],
                **{f'{key}.{name}': value for key, state in
                   content['optimizer']['state'].items()
                   for name, value in state.items()}}

    def same(self, work, other):
        a, b = self.result(work), self.result(other)
        assert a.keys() == b.keys()
        return all(torch.equal(torch.as_tensor(a[key]).view(-1),
                               torch.as_tensor(b[key]).view(-1))
                   for key in a)


def steps_of(log):
    """Numbers of the steps that a log has, of all epochs."""
    return [
        (int(epoch or 1) - 1) * 4 + int(step) for epoch, step in re.findall(
            r'(?:Epoch|Iter)\(train\) +(?:\[(\d+)\])?\[ *(\d+)/', log)]


@pytest.mark.parametrize('name', MODELS)
def test_stopped_and_killed_to_the_same_bits(name, root, drawn_data,
                                             tmp_path):
    run = Run(root, drawn_data, tmp_path, name)
    # The seed is drawn, as it is in our configs.
    run.finish(run.start('whole'))
    seed = read(str(tmp_path / 'whole' / run.last))['meta']['seed']
    work = tmp_path / 'parts'

    first = run.start('parts', workers=2, options=[f'randomness.seed={seed}'])
    log = run.wait_for(first, r'\(train\) +(\[1\])?\[ *2/')
    first.send_signal(signal.SIGTERM)
    log += run.finish(first, expect=75)
    assert 'Stopped by SIGTERM after step' in log
    assert (work / 'interrupted.pth').is_file()
    done = steps_of(log)[-1]
    assert 2 <= done < 8

    # Killed at a step after the next checkpoint.
    second = run.start('parts', '--resume')
    log = run.wait_for(second, r'\(train\) +(\[3\]\[1/4|\[ 9/12)')
    os.killpg(second.pid, signal.SIGKILL)
    log += run.finish(second, expect=-9)
    # Not a batch more than once, and none left out.
    assert steps_of(log)[0] == done + 1
    assert not (work / 'interrupted.pth').exists()

    third = run.start('parts', '--resume', workers=1)
    log = run.wait_for(third, r'\(val\)')
    third.send_signal(signal.SIGINT)
    log += run.finish(third, expect=75)
    fourth = run.start('parts', '--resume', workers=1)
    log = run.finish(fourth)
    # The validation that was left is done.
    assert re.search('mIoU: |bbox_mAP: ', log)
    assert not steps_of(log)
    assert run.same('parts', 'whole')
    assert {path.name for path in work.glob('*.pth')} >= {run.last}
    assert len(list(work.glob('*.pth'))) == 2  # and the best


def test_two_processes_to_the_same_bits(root, drawn_data, tmp_path):
    run = Run(root, drawn_data, tmp_path, 'upernet')
    options = ['randomness.seed=1']
    run.finish(run.start('whole', processes=2, options=options))
    first = run.start('parts', processes=2, workers=1, options=options)
    log = run.wait_for(first, r'\(train\) +\[ *5/')
    # To torchrun, which hands it on.
    first.send_signal(signal.SIGTERM)
    log += run.finish(first, expect=1)
    assert 'Stopped by SIGTERM after step' in log
    done = steps_of(log)[-1]
    log = run.finish(run.start('parts', '--resume', processes=2))
    assert steps_of(log)[0] == done + 1
    assert run.same('parts', 'whole')
    a, b = (read(str(tmp_path / work / run.last))['progress']
            for work in ('whole', 'parts'))
    for one, other in zip(a['processes'], b['processes']):
        assert torch.equal(one['rng']['torch'], other['rng']['torch'])


@pytest.fixture
def load():
    """Run a process that keeps a core busy."""
    process = subprocess.Popen(
        [sys.executable, '-c', 'while True: pass'])
    yield
    process.kill()
    process.wait()


@pytest.mark.soak
def test_killed_at_any_moment(rounds, root, drawn_data, tmp_path, load,
                              record_property):
    run = Run(root, drawn_data, tmp_path, 'retinanet')
    options = ['randomness.seed=1']
    run.finish(run.start('whole', options=options))
    rng = random.Random(int(time.time()))
    kills, ends, work = rounds(2, 30), 0, tmp_path / 'parts'
    moments = []
    while len(moments) < kills:
        began = time.time()
        process = run.start('parts', '--resume', workers=1, options=options)
        if rng.random() < .5:
            # As a checkpoint is being written, or the old one removed.
            for line in process.stdout:
                if 'Saving checkpoint' in line:
                    time.sleep(rng.uniform(0, .2))
                    break
        else:
            time.sleep(rng.uniform(.5, 15))
        before = list(work.glob('epoch_*.pth'))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.read()
        if process.wait(60) == 0:
            assert run.same('parts', 'whole')
            shutil.rmtree(work)
            ends += 1
            continue
        assert process.returncode == -9
        moments.append(round(time.time() - began, 1))
        # One that is whole, or none was ever to be.
        assert not before or find_resumable(str(work))[0]
        assert len(list(work.glob('epoch_*.pth'))) <= 2
    run.finish(run.start('parts', '--resume', options=options))
    assert run.same('parts', 'whole')
    assert not list(work.glob('.*.part'))
    record_property('kills', f'{len(moments)} after {moments} s, in '
                    f'{ends + 1} runs')
