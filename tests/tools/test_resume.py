"""Training that is stopped or killed, and goes on as if it had not been."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from mmcyclemlp.engine.loading import read

TINY = """
_base_ = '{root}/{base}'
model = dict(backbone=dict(
    arch=dict(_delete_=True, embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1],
              mlp_ratios=[2, 2, 2, 2]),
    drop_path_rate=.3, init_cfg=None))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}/'))
val_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}/', indices=2))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(
    interval=1, max_keep_ckpts=1, save_best='auto'))
randomness = dict(seed=None)
env_cfg = dict(opencv_num_threads=1)
"""
RETINANET = """
model['neck'] = dict(in_channels=[8, 16, 24, 32], out_channels=16)
model['bbox_head'] = dict(
    in_channels=16, feat_channels=16, stacked_convs=1, num_classes=5)
model['test_cfg'] = dict(score_thr=0., max_per_img=10)
metainfo = dict(classes=('disc', 'square', 'triangle', 'star', 'ring'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(.8, 1.5),
         keep_ratio=True),
    dict(type='RandomFlip', prob=.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
train_dataloader['dataset'].update(
    metainfo=metainfo, ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/train'), pipeline=train_pipeline)
for loader in (val_dataloader, test_dataloader):
    loader['dataset'].update(
        metainfo=metainfo, ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val'))
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3, val_interval=2)
"""
UPERNET = """
model['decode_head'] = dict(in_channels=[8, 16, 24, 32], channels=16)
model['auxiliary_head'] = dict(in_channels=24, channels=8)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(.8, 1.5),
         keep_ratio=True),
    dict(type='RandomCrop', crop_size=(128, 128), cat_max_ratio=.75),
    dict(type='RandomFlip', prob=.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader['dataset']['pipeline'] = train_pipeline
train_cfg = dict(max_iters=12, val_interval=6)
default_hooks['checkpoint']['interval'] = 4
"""
MODELS = dict(
    retinanet=('configs/retinanet/retinanet_cyclemlp-b1_fpn_1x_coco.py',
               RETINANET, 'epoch_3.pth'),
    upernet=('demo/upernet.py', UPERNET, 'iter_12.pth'))



class Run:
    """Trainings of one model, by tools/train.py as a user starts it."""

    def __init__(self, root, data, folder, name):
        base, text, self.last = MODELS[name]
        self.root, self.folder = root, folder
        self.config = folder / f'{name}.py'
        self.config.write_text((TINY + text).format(
            root=root, data=data, base=base))

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
