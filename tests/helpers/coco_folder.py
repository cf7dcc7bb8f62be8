"""A folder with a tiny COCO file and its images, which tests damage."""

import copy
import json

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS
from mmengine.structures import InstanceData

from mmcyclemlp.data_checks.coco import check_coco
from mmcyclemlp.data_checks.coco_file import read_coco
from mmcyclemlp.data_checks.evaluation import check_evaluators
from mmcyclemlp.data_checks.report import Report
from mmcyclemlp.data_checks.sources import sources

WIDTH, HEIGHT = 64, 48
CLASSES = ('bolt', 'nut')


def content(images=3):
    """Return a COCO file with two boxes and masks in each image."""
    rows, entries = [], []
    for number in range(1, images + 1):
        rows.append(dict(id=number, file_name=f'{number}.png', width=WIDTH,
                         height=HEIGHT))
        for category in (1, 2):
            x, y, w, h = 3 * number, 9 * category, 20, 10 + number
            entries.append(dict(
                id=len(entries) + 1, image_id=number, category_id=category,
                bbox=[x, y, w, h], area=w * h, iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return dict(images=rows, annotations=entries, categories=[
        dict(id=number, name=name)
        for number, name in enumerate(CLASSES, 1)])


def draw(folder, images=3):
    """Write the images and ``data.json``."""
    for number in range(1, images + 1):
        cv2.imwrite(str(folder / f'{number}.png'),
                    np.full((HEIGHT, WIDTH, 3), 9 * number, np.uint8))
    return write(folder / 'data.json', content(images))


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def change(path, edit):
    """Edit a file in place."""
    content = json.loads(path.read_text())
    changed = edit(content)
    return write(path, changed if isinstance(changed, list) else content)


def config(path, masks=False, **evaluator):
    """Return a config whose splits read a file."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))]
    dataset = dict(
        type='CocoDataset', data_root=str(path.parent), ann_file=path.name,
        data_prefix=dict(img=''), metainfo=dict(classes=CLASSES),
        pipeline=pipeline)
    kept = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))
    loaders = {f'{split}_dataloader': dict(dataset=dict(
        dataset, **(kept if split == 'train' else dict(test_mode=True))))
        for split in ('train', 'val')}
    return Config(dict(
        default_scope='mmdet', work_dir=str(path.parent / 'work'),
        val_evaluator=dict(type='CocoMetric', ann_file=str(path),
                           **evaluator), **loaders))


def every(key, field, value):
    """Set a value in every entry of a list; a function may compute it."""
    def edit(content):
        for one in content[key]:
            one[field] = value(one[field]) if callable(value) else value

    return edit


def first(key, field, value):
    """Set a value in the first entry of a list."""
    return lambda content: content[key][0].update({field: value})


def check_file(path, masks=False, split='train', classes=CLASSES):
    """Return the findings on a file that a split reads."""
    cfg = config(path, masks)
    cfg.train_dataloader.dataset.metainfo = dict(classes=classes)
    source, = sources(cfg, split)
    report = Report()
    check_coco(report, source, classes, read_coco)
    assert all('\n' not in one.message for one in report.findings)
    return report.findings


def count_trained(path, masks=False):
    """Return the number of boxes that mm's own data set trains on."""
    dataset = copy.deepcopy(config(path, masks).train_dataloader.dataset)
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        built = registry.build(dataset)
    samples = [built.prepare_data(place)['data_samples']
               for place in range(len(built))]
    return sum(len(one.gt_instances) for one in samples)


def check_evaluator(cfg, split='val'):
    """Return the findings on the evaluators of a split."""
    report = Report()
    check_evaluators(report, cfg, split, sources(cfg, split), read_coco)
    assert all('\n' not in one.message for one in report.findings)
    return report.findings


def kinds(cfg):
    """Return the kinds of these findings, and whether they are errors."""
    return [(one.kind, one.error) for one in check_evaluator(cfg)]


def evaluate(cfg):
    """Return mm's metric for predictions that equal the ground truth."""
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        data = registry.build(copy.deepcopy(cfg.val_dataloader.dataset))
    with METRICS.switch_scope_and_registry('mmdet') as registry:
        metric = registry.build(copy.deepcopy(cfg.val_evaluator))
    metric.dataset_meta = data.metainfo
    for place in range(len(data)):
        sample = data.prepare_data(place)['data_samples']
        truth = sample.gt_instances
        found = InstanceData(
            bboxes=truth.bboxes.tensor, labels=truth.labels,
            scores=torch.ones(len(truth)))
        if 'segm' in str(cfg.val_evaluator.get('metric')):
            found.masks = torch.ones((len(truth), *sample.ori_shape)) > 0
            if 'masks' in truth:
                found.masks = truth.masks.to_tensor(torch.bool, 'cpu')
        metric.process({}, [dict(
            pred_instances=found, img_id=sample.img_id,
            ori_shape=sample.ori_shape, instances=[])])
    return next(iter(metric.evaluate(len(data)).values()), None)
