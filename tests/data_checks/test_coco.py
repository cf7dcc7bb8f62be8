"""Classes of COCO files are compared with the config."""

import shutil

import pytest
from helpers import coco_folder
from helpers.coco_folder import check_file
from mmengine.registry import DATASETS

from mmcyclemlp.data_checks import DataCheck, Look


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


def test_no_annotations_at_all(path):
    coco_folder.change(path, lambda content: content.pop('annotations') and (
        None))
    assert [one.error for one in check_file(path, split='val')] == [False] * 2
    errors = [one.message for one in check_file(path) if one.error]
    assert len(errors) == 1
    assert 'there is nothing to learn' in errors[0]


def test_classes_of_another_order_in_another_split(path):
    cfg = coco_folder.config(path)
    other = path.with_name('other.json')
    shutil.copy(path, other)
    coco_folder.change(other, lambda content: content['categories'].reverse())
    classes = cfg.train_dataloader.dataset.metainfo.classes
    cfg.val_dataloader.dataset.update(
        ann_file=str(other), metainfo=dict(classes=classes[::-1]))
    cfg.val_evaluator.ann_file = str(other)
    found = DataCheck(cfg, ('train', 'val'), Look()).run()
    error, = (one for one in found if one.error)
    assert error.kind == 'order of classes' and error.split == 'val'
    assert error.message.startswith(
        "label 0 of val_dataloader.dataset is 'nut', and of "
        "train_dataloader.dataset 'bolt': ")


def test_names_are_quoted(path):
    cfg = coco_folder.config(path)
    name = cfg.train_dataloader.dataset.metainfo.classes[0]
    coco_folder.change(path, lambda content: content['categories'][0].update(
        name=f'{name} '))
    found = DataCheck(cfg, ('train', ), Look()).run()
    error = next(one for one in found if one.error)
    assert f"has no categories '{name}'; it has '{name} '" in error.message


def test_class_names_under_the_key_of_mmdet_2(path):
    cfg = coco_folder.config(path)
    cfg.train_dataloader.dataset.metainfo = dict(CLASSES=('a', ))
    error, = DataCheck(cfg, ('train', ), Look()).run()
    assert error.message.endswith('mm ignores: write classes')
    # These are those that mm takes.
    own = DATASETS.get('mmdet.CocoDataset').METAINFO['classes']
    cfg.train_dataloader.dataset.metainfo = dict(CLASSES=own)
    assert 'class names' not in {
        one.kind for one in DataCheck(cfg, ('train', ), Look()).run()}
