"""The data sets and heads of a config are found and compared."""

import shutil

import pytest
from helpers.spoiled_data import on_folder, refuse

from mmcyclemlp.data_checks import check_data


@pytest.fixture
def data(drawn_data, tmp_path):
    """A copy of the drawn data that a test may spoil."""
    return shutil.copytree(drawn_data, tmp_path / 'data')


def test_missing_root(root, data):
    cfg = on_folder(root, 'mask_rcnn', data / 'gone')
    refuse(cfg, r'train_dataloader\.dataset\.data_root names .*gone')


def test_missing_ann_file(root, data):
    (data / 'annotations' / 'instances_val.json').unlink()
    cfg = on_folder(root, 'mask_rcnn', data)
    refuse(cfg, r'val_dataloader\.dataset\.ann_file names .*instances_val')
    check_data(cfg, ('train', ))


def test_missing_folder(root, data):
    shutil.rmtree(data / 'images' / 'train')
    refuse(on_folder(root, 'upernet', data), r'data_prefix\.img_path names')


def test_classes_as_text(root, data):
    cfg = on_folder(root, 'mask_rcnn', data)
    cfg.train_dataloader.dataset.metainfo.classes = ('disc')
    refuse(cfg, r"text 'disc'.*\('disc', \)")


@pytest.mark.parametrize('name, head', [
    ('mask_rcnn', r'roi_head\.mask_head'), ('upernet', 'auxiliary_head')])
def test_class_count(name, head, root, data):
    cfg = on_folder(root, name, data)
    node = cfg.model
    for key in head.replace('\\', '').split('.'):
        node = node[key]
    node.num_classes = 9
    refuse(cfg, rf'model\.{head}\.num_classes is 9.*has [57] classes')


def test_inside_wrappers(root, data):
    cfg = on_folder(root, 'mask_rcnn', data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[inner, inner]))
    check_data(cfg, ('train', ))
    inner['ann_file'] = 'gone.json'
    cfg.train_dataloader.dataset.dataset.datasets[1].ann_file = 'gone.json'
    refuse(cfg, 'ann_file names .*gone.json')


@pytest.mark.parametrize('indices', [2, -2, [0, 7]])
def test_indices(indices, root, data):
    cfg = on_folder(root, 'mask_rcnn', data)
    cfg.train_dataloader.dataset.indices = indices
    for place in range(2, 6):
        (data / 'images' / 'train' / f'000{place}.jpg').unlink()
    check_data(cfg, ('train', ))


def test_remote_data_is_not_opened(root, data):
    cfg = on_folder(root, 'mask_rcnn', data)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = 's3://bucket/data'
    check_data(cfg, ('train', ))
    dataset.data_root = 'gone'
    dataset.backend_args = dict(backend='petrel')
    dataset.metainfo.classes = ('disc', )
    refuse(cfg, 'num_classes is 5, but the train data has 1')


def test_unknown_dataset(root, data):
    cfg = on_folder(root, 'upernet', data)
    cfg.train_dataloader.dataset.type = 'ADEDataset'
    refuse(cfg, "'ADEDataset'.*custom_imports")
