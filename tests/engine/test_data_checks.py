import json
import shutil

import pytest
from mmengine.config import Config

from mmcyclemlp.engine.data_checks import check_data
from mmcyclemlp.engine.errors import UserError


@pytest.fixture
def data(drawn_data, tmp_path):
    """A copy of the drawn data that a test may spoil."""
    return shutil.copytree(drawn_data, tmp_path / 'data')


def config(root, name, data):
    cfg = Config.fromfile(root / 'demo' / f'{name}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data)
    cfg.val_evaluator = cfg.test_evaluator = dict(
        cfg.val_evaluator,
        ann_file=str(data / 'annotations' / 'instances_val.json'))
    return cfg


def refuse(cfg, message, splits=('train', 'val')):
    with pytest.raises(UserError, match=message) as caught:
        check_data(cfg, splits)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['mask_rcnn', 'upernet'])
def test_good_data_passes(name, root, data):
    check_data(config(root, name, data), ('train', 'val', 'test'))


def test_missing_root(root, data):
    cfg = config(root, 'mask_rcnn', data / 'gone')
    refuse(cfg, r'train_dataloader\.dataset\.data_root names .*gone')


def test_missing_ann_file(root, data):
    (data / 'annotations' / 'instances_val.json').unlink()
    cfg = config(root, 'mask_rcnn', data)
    refuse(cfg, r'val_dataloader\.dataset\.ann_file names .*instances_val')
    check_data(cfg, ('train', ))


def test_missing_folder(root, data):
    shutil.rmtree(data / 'images' / 'train')
    refuse(config(root, 'upernet', data), r'data_prefix\.img_path names')


def test_missing_evaluator_file(root, data):
    cfg = config(root, 'mask_rcnn', data)
    cfg.val_evaluator.ann_file = 'gone.json'
    refuse(cfg, r'val_evaluator\.ann_file names gone.json')


def test_misspelt_class(root, data):
    cfg = config(root, 'mask_rcnn', data)
    cfg.train_dataloader.dataset.metainfo.classes = (
        'disc', 'sqare', 'triangle', 'star', 'ring')
    refuse(cfg, r'instances_train.json has no categories sqare; it has disc, '
           'square.*drop their ground truth')


def test_classes_as_text(root, data):
    cfg = config(root, 'mask_rcnn', data)
    cfg.train_dataloader.dataset.metainfo.classes = ('disc')
    refuse(cfg, r"text 'disc'.*\('disc', \)")


@pytest.mark.parametrize('name, head', [
    ('mask_rcnn', r'roi_head\.mask_head'), ('upernet', 'auxiliary_head')])
def test_class_count(name, head, root, data):
    cfg = config(root, name, data)
    node = cfg.model
    for key in head.replace('\\', '').split('.'):
        node = node[key]
    node.num_classes = 9
    refuse(cfg, rf'model\.{head}\.num_classes is 9.*has [57] classes')


def test_inside_wrappers(root, data):
    cfg = config(root, 'mask_rcnn', data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[inner, inner]))
    check_data(cfg, ('train', ))
    inner['ann_file'] = 'gone.json'
    cfg.train_dataloader.dataset.dataset.datasets[1].ann_file = 'gone.json'
    refuse(cfg, 'ann_file names .*gone.json')


def test_not_a_coco_file(root, data):
    path = data / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps(dict(images=[])))
    refuse(config(root, 'mask_rcnn', data), "not a COCO.*'categories'")


def test_no_images_in_the_file(root, data):
    path = data / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    images=[])))
    refuse(config(root, 'mask_rcnn', data), 'lists no images')


def test_image_without_label(root, data):
    (data / 'annotations' / 'train' / '0003.png').unlink()
    refuse(config(root, 'upernet', data),
           r'train/0003\.png does not exist: 1 of 8')


def test_wrong_suffix(root, data):
    cfg = config(root, 'upernet', data)
    cfg.train_dataloader.dataset.img_suffix = '.jpeg'
    refuse(cfg, r'no image that ends in \.jpeg')


def test_unknown_dataset(root, data):
    cfg = config(root, 'upernet', data)
    cfg.train_dataloader.dataset.type = 'ADEDataset'
    refuse(cfg, "'ADEDataset'.*custom_imports")


def test_foreign_classes_of_a_segmentation_dataset(root, data):
    cfg = config(root, 'upernet', data)
    cfg.train_dataloader.dataset.type = 'ADE20KDataset'
    refuse(cfg, r"has disc, ring.*ADE20KDataset.*type='BaseSegDataset'")
