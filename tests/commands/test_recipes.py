"""Run published recipes with small sizes on a few drawn images."""

import re

import pytest

BACKBONE = """
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=[16, 32, 48, 64], depths=[1, 1, 1, 1],
            mlp_ratios=[2, 2, 2, 2]),
        init_cfg=None),
    neck=dict(in_channels=[16, 32, 48, 64]))
loader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
SEM_FPN = """
_base_ = ['{configs}/sem_fpn_ade20k/'
          'fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512.py']
""" + BACKBONE + """
model.update(
    data_preprocessor=dict(size=(64, 64)),
    decode_head=dict(num_classes=7))
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = test_scale = (256, 96)
train_pipeline[3].crop_size = (64, 64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale
classes = ('wall', 'floor', 'disc', 'square', 'triangle', 'star', 'ring')
data = dict(
    type='BaseSegDataset', reduce_zero_label=True, data_root='{data}',
    metainfo=dict(classes=classes, palette=[(9, 9, 9)] * 7))
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline, **data), **loader)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(
            img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline, **data), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
"""
MULTI_SCALE = """
_base_ = ['{configs}/{folder}/{folder_name}_cyclemlp-b2_fpn_ms-3x_coco.py']
""" + BACKBONE + """
classes = dict(
    classes=('disc', 'square', 'triangle', 'star', 'ring'))
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = [(96, 64), (96, 96)]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (96, 96)
train_dataloader = dict(
    dataset=dict(dataset=dict(
        data_root='{data}', ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train'), metainfo=classes, indices=2,
        pipeline=train_pipeline)), **loader)
val_dataloader = dict(
    dataset=dict(
        data_root='{data}', ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val'), metainfo=classes,
        pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""
HEADS = dict(
    # Nothing is above the threshold so soon, and mm gives no mAP of nothing.
    retinanet='model.update(bbox_head=dict(num_classes=5), '
    'test_cfg=dict(score_thr=0.))',
    mask_rcnn='model.update(roi_head=dict(bbox_head=dict(num_classes=5), '
    'mask_head=dict(num_classes=5)), '
    'train_cfg=dict(rpn_proposal=dict(max_per_img=100)), '
    'test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(max_per_img=10)))')


@pytest.fixture
def write(root, drawn_data, tmp_path):

    def write(text, **names):
        path = tmp_path / 'recipe.py'
        path.write_text(text.format(
            configs=root / 'configs', data=drawn_data, **names))
        return path

    return write


def losses(log):
    return [float(value) for value in re.findall(r' loss: ([0-9.]+)', log)]


def train_and_test(run_cli, cfg, work, last):
    done = run_cli('train', cfg, '--work-dir', work)
    assert (work / last).is_file()
    found = losses(done.stdout + done.stderr)
    done = run_cli('test', cfg, work / last, '--work-dir', work)
    return found, done.stdout + done.stderr


def test_sem_fpn(write, run_cli, tmp_path):
    found, log = train_and_test(
        run_cli, write(SEM_FPN), tmp_path / 'work', 'iter_2.pth')
    assert len(found) == 2
    assert 0 <= float(re.findall(r'mIoU: ([0-9.]+)', log)[-1]) <= 100


@pytest.mark.parametrize('folder, metrics', [
    ('retinanet', ['bbox']), ('mask_rcnn', ['bbox', 'segm'])])
def test_multi_scale_3x(folder, metrics, write, run_cli, tmp_path):
    cfg = write(
        MULTI_SCALE + HEADS[folder], folder=folder,
        folder_name=folder.replace('_', '-'))
    found, log = train_and_test(
        run_cli, cfg, tmp_path / 'work', 'epoch_1.pth')
    # Two images three times, in batches of two.
    assert len(found) == 3
    for metric in metrics:
        assert f'coco/{metric}_mAP: ' in log
