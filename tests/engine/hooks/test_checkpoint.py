"""Save complete checkpoints, and resume from them."""

import os
import subprocess
from itertools import count

import pytest
import torch
from helpers.tiny_configs import write_config
from mmengine.config import Config
from mmengine.hooks import Hook

from mmcyclemlp.engine.hooks.checkpoint import (
    INTERRUPTED,
    WholeCheckpointHook,
    WholeFiles,
)
from mmcyclemlp.engine.mm_checkpoints import read
from mmcyclemlp.engine.runner import build_runner
from mmcyclemlp.engine.start_checkpoint import find_resumable, resume_from
from mmcyclemlp.errors import UserError


@pytest.fixture
def make_runner(root, drawn_data, tmp_path):
    """Build a runner of the tiny RetinaNet, and its checkpoint hook."""

    def make(work=tmp_path / 'work', epochs=1, resume=False, **checkpoint):
        cfg = Config.fromfile(
            write_config(tmp_path, root, drawn_data, 'retinanet'))
        cfg.work_dir = str(work)
        cfg.launcher = 'none'
        cfg.train_cfg.max_epochs = epochs
        cfg.randomness = dict(seed=0)
        cfg.train_dataloader.dataset.indices = 4
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        # mm keeps those of one name.
        cfg.experiment_name = cfg.visualizer.name = os.urandom(4).hex()
        cfg.default_hooks.checkpoint.update(save_best=None, **checkpoint)
        content = resume_from(cfg) if resume else None
        runner = build_runner(cfg, checkpoint=content)
        return runner, next(hook for hook in runner.hooks
                            if isinstance(hook, WholeCheckpointHook))

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB, if this process may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(folder)],
        capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'no disk can be mounted: {done.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder, left):
    """Leave so many bytes of a disk free."""
    filler = folder / 'filler'
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with open(filler, 'wb') as file:
        file.write(bytes(free - left))
    return filler


@pytest.mark.soak
def test_full_disk_at_every_write(
        make_runner, small_disk, rounds, record_property):
    work = small_disk / 'work'
    runner, hook = make_runner(work, max_keep_ckpts=1)
    runner.train()
    first = work / 'epoch_1.pth'
    whole, size = first.read_bytes(), first.stat().st_size
    refused = 0
    # Every page that is written, in CI some of them.
    for left in count(0, 4096 * rounds(8, 1)):
        assert left < 2 * size
        filler = fill(small_disk, left)
        try:
            hook._save_checkpoint_with_step(runner, 2, dict(epoch=2, iter=4))
            break
        except UserError as error:
            refused += 1
            assert 'No space left on device' in str(error)
            assert '--resume' in str(error)
        finally:
            filler.unlink()
        assert first.read_bytes() == whole
        assert find_resumable(str(work))[0] == str(first)
        assert not list(work.glob('.*.part'))
    assert refused * 4096 * rounds(8, 1) > size - 4096 * 8
    # With enough space, the run continues.
    assert [path.name for path in work.glob('*.pth')] == ['epoch_2.pth']
    assert read(str(work / 'epoch_2.pth'))['meta']['epoch'] == 2
    record_property('writes refused', refused)


def test_keeps_the_old_checkpoint_until_the_new_one_is_read(
        make_runner, tmp_path, monkeypatch):
    seen = []
    put = WholeFiles.put

    def spy(self, obj, filepath):
        def there():
            return sorted(path.name
                          for path in (tmp_path / 'work').glob('*.pth'))

        before = there()
        put(self, obj, filepath)
        seen.append((before, there()))

    monkeypatch.setattr(WholeFiles, 'put', spy)
    runner, _ = make_runner(epochs=3, max_keep_ckpts=1)
    runner.train()
    assert seen == [
        ([], ['epoch_1.pth']),
        (['epoch_1.pth'], ['epoch_1.pth', 'epoch_2.pth']),
        (['epoch_2.pth'], ['epoch_2.pth', 'epoch_3.pth'])]
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == [
        'epoch_3.pth']


def test_keeps_the_best_checkpoint_until_a_better_one_is_read(
        make_runner, tmp_path, monkeypatch):
    runner, hook = make_runner()
    runner.train()
    hook.save_best, work = ['mAP'], tmp_path / 'work'
    hook.is_better_than, hook.best_ckpt_path = {}, None
    hook._init_rule(['greater'], hook.save_best)
    hook.after_val_epoch(runner, dict(mAP=.1))
    assert (work / 'best_mAP_epoch_1.pth').is_file()

    def full(self, obj, filepath):
        raise UserError('full')

    runner.train_loop._epoch = 2
    with monkeypatch.context() as patched:
        patched.setattr(WholeFiles, 'put', full)
        with pytest.raises(UserError, match='full'):
            hook.after_val_epoch(runner, dict(mAP=.2))
    assert (work / 'best_mAP_epoch_1.pth').is_file()
    hook.best_ckpt_path = str(work / 'best_mAP_epoch_1.pth')
    hook.after_val_epoch(runner, dict(mAP=.3))
    assert [path.name for path in work.glob('best_*')] == [
        'best_mAP_epoch_2.pth']
    hook.after_val_epoch(runner, dict(mAP=.2))
    assert hook.best_ckpt_path == str(work / 'best_mAP_epoch_2.pth')


def test_removes_partial_files_of_a_killed_run(make_runner, tmp_path):
    runner, _ = make_runner(epochs=1, max_keep_ckpts=1)
    runner.train()
    work = tmp_path / 'work'
    # Killed as the second was there, and the first not yet removed.
    part = work / '.epoch_2.pth.0123abcd.part'
    part.write_bytes(b'half')
    content = read(str(work / 'epoch_1.pth'))
    content['message_hub']['runtime_info']['keep_ckpt_ids'] = [0, 1]
    torch.save(content, work / 'epoch_1.pth')
    (work / 'epoch_0.pth').write_bytes((work / 'epoch_1.pth').read_bytes())
    os.utime(work / 'epoch_0.pth', (1, 1))
    (work / INTERRUPTED).write_bytes((work / 'epoch_1.pth').read_bytes())
    os.utime(work / INTERRUPTED, (2, 2))
    runner, _ = make_runner(epochs=2, max_keep_ckpts=1, resume=True)
    runner.train()
    assert not part.exists()
    assert [path.name for path in work.glob('*.pth')] == ['epoch_2.pth']


class StopAfterAnEpoch(Hook):

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = True


def test_resumes_accumulated_gradients(make_runner, tmp_path):
    def run(work, *hooks, **more):
        runner, _ = make_runner(tmp_path / work, 3, **more)
        # Of two batches an epoch.
        runner.optim_wrapper['accumulative_counts'] = 3
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
        return runner.model.state_dict()

    whole = run('whole')
    run('parts', StopAfterAnEpoch())
    progress = read(str(tmp_path / 'parts' / 'epoch_1.pth'))['progress']
    assert progress['processes'][0]['gradients']
    parts = run('parts', resume=True)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_refuses_another_number_of_batches_within_an_epoch(
        make_runner, tmp_path):
    runner, hook = make_runner()
    runner.train()
    path = tmp_path / 'work' / 'epoch_1.pth'
    content = read(str(path))
    content['progress'].update(batches_done=1, batches_per_epoch=7)
    torch.save(content, path)
    runner, _ = make_runner(epochs=2, resume=True)
    with pytest.raises(UserError, match='of 7 batches .* now it has 2'):
        runner.train()


def test_resumes_a_checkpoint_of_mm(make_runner, tmp_path, capsys):
    runner, _ = make_runner()
    runner.train()
    path = tmp_path / 'work' / 'epoch_1.pth'
    content = read(str(path))
    del content['progress']
    torch.save(content, path)
    runner, _ = make_runner(epochs=2, resume=True)
    runner.train()
    said = capsys.readouterr()
    assert 'no states of random generators' in said.out + said.err
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()
