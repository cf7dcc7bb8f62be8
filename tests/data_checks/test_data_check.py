import json
import shutil

import pytest
from mmengine.config import Config

from mmcyclemlp import data_checks
from mmcyclemlp.data_checks import DataCheck, Look, check_data, coco
from mmcyclemlp.errors import UserError


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
    for line in str(caught.value).split('\n')[1:]:
        assert line.startswith('error: ')


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
    refuse(cfg, r"instances_train.json has no categories 'sqare'; it has "
           r"'disc', 'square'.*drop their ground truth")


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


def test_no_categories_in_the_file(root, data):
    path = data / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    categories=[])))
    refuse(config(root, 'mask_rcnn', data),
           "has no categories 'disc'.*it has none")
    check = DataCheck(config(root, 'mask_rcnn', data), ['train'], Look())
    kinds = [finding.kind for finding in check.run()]
    assert 'unknown category id' in kinds and check.numbers == {}


def test_all_splits_and_data_sets_are_looked_at(root, data):
    """Not only the first finding; data sets are not joined."""
    cfg = config(root, 'mask_rcnn', data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, dict(inner, indices=2)])
    (data / 'images' / 'train' / '0001.jpg').write_bytes(b'')
    (data / 'images' / 'val' / '0003.jpg').unlink()
    check = DataCheck(cfg, ('train', 'val'), Look())
    found = [(one.split, one.kind, one.message) for one in check.run()]
    assert [one[:2] for one in found] == [
        ('train', 'undecodable image'), ('train', 'undecodable image'),
        ('val', 'missing image')]
    assert '1 of 8' in found[0][2] and '1 of 2' in found[1][2]
    assert check.numbers == dict(train=(10, 10), val=(3, 3))


@pytest.mark.parametrize('indices', [2, -2, [0, 7]])
def test_indices(indices, root, data):
    cfg = config(root, 'mask_rcnn', data)
    cfg.train_dataloader.dataset.indices = indices
    for place in range(2, 6):
        (data / 'images' / 'train' / f'000{place}.jpg').unlink()
    check_data(cfg, ('train', ))


def test_a_sample_is_opened_before_a_run(root, data):
    (data / 'images' / 'train' / '0001.jpg').write_bytes(b'')
    cfg = config(root, 'mask_rcnn', data)
    check = DataCheck(cfg, ['train'], Look(4))
    assert list(check.run()) == [] and check.numbers == dict(train=(8, 4))


def test_images_that_training_skips(root, data):
    (data / 'images' / 'train' / '0001.jpg').write_bytes(b'')
    (data / 'images' / 'train' / '0002.jpg').unlink()
    cfg = config(root, 'mask_rcnn', data)
    refuse(cfg, "0002.jpg' does not exist")
    cfg.train_cfg.unreadable = 'skip'
    check_data(cfg, ('train', 'val'))
    # Evaluation skips none.
    (data / 'images' / 'val' / '0002.jpg').unlink()
    refuse(cfg, "0002.jpg' does not exist")


def test_the_annotation_file_is_parsed_once(root, data, monkeypatch):
    parsed = []

    def read(path, *args):
        parsed.append(path)
        return coco.read_coco(path, *args)

    monkeypatch.setattr(data_checks, 'read_coco', read)
    cfg = config(root, 'mask_rcnn', data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, inner])
    cfg.test_dataloader = cfg.val_dataloader
    check_data(cfg, ('train', 'val', 'test'))
    assert len(parsed) == 2


def test_what_lies_elsewhere_is_not_opened(root, data):
    cfg = config(root, 'mask_rcnn', data)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = 's3://bucket/data'
    check_data(cfg, ('train', ))
    dataset.data_root = 'gone'
    dataset.backend_args = dict(backend='petrel')
    dataset.metainfo.classes = ('disc', )
    refuse(cfg, 'num_classes is 5, but the train data has 1')


def test_image_without_label(root, data):
    (data / 'annotations' / 'train' / '0003.png').unlink()
    refuse(config(root, 'upernet', data),
           r'''train/0003\.png' does not exist: 1 of 8''')


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
