"""Data of classifiers that is missing or labeled wrongly is reported."""

import shutil

import pytest
from helpers import class_images
from helpers.spoiled_data import refuse
from mmengine.config import Config

from mmcyclemlp.data_checks import DataCheck, Look, check_data

pytest.importorskip('mmpretrain')

KEY = r'model\.backbone\.num_classes'


@pytest.fixture
def folders(tmp_path):
    return class_images.draw(tmp_path / 'folders', per_class=1)


@pytest.fixture
def flat(folders, tmp_path):
    return class_images.flatten(folders, tmp_path / 'flat')


def config(root, data, custom=False):
    """The config of ImageNet, or of a data set with names of its own."""
    cfg = Config.fromfile(
        root / 'configs' / 'imagenet' / 'cyclemlp-b1_8xb128_in1k.py')
    number = len(class_images.NAMES)
    cfg.model.backbone.num_classes = number
    cfg.model.data_preprocessor.num_classes = number
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(data)
        dataset.metainfo = dict(classes=class_images.NAMES)
        if custom:
            dataset.type = 'CustomDataset'
            dataset.data_prefix = dataset.pop('split')
            dataset.pop('metainfo')
    return cfg


def custom_list(root, flat):
    cfg = config(root, flat, custom=True)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.ann_file = f'meta/{split}.txt'
    return cfg


def test_good_data_passes(root, folders, flat):
    for data in (folders, flat):
        check_data(config(root, data), ('train', 'val', 'test'))
    check_data(config(root, folders, custom=True), ('train', 'val'))
    check_data(custom_list(root, flat), ('train', 'val'))
    # Lists may name folders.
    names = ''.join(f'ant/ant_0.JPEG {label}\n' for label in range(6))
    (folders / 'list.txt').write_text(names)
    cfg = config(root, folders, custom=True)
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    check_data(cfg, ('train', ))


def test_missing_folder(root, folders):
    cfg = config(root, folders)
    shutil.rmtree(folders / 'val')
    refuse(cfg, r"val_dataloader\.dataset cannot be built: .*/val'")
    check_data(cfg, ('train', ))


def test_missing_list(root, flat):
    cfg = custom_list(root, flat)
    (flat / 'meta' / 'train.txt').unlink()
    refuse(cfg, r'train_dataloader\.dataset\.ann_file names .*train\.txt')


def test_flat_without_list(root, flat):
    cfg = config(root, flat)
    (flat / 'meta' / 'val.txt').unlink()
    refuse(cfg, r'cannot be built: .*subfolders \(0\)')


@pytest.mark.parametrize('custom', [False, True])
def test_listed_image_that_is_missing(custom, root, flat):
    cfg = (custom_list if custom else config)(root, flat)
    (flat / 'train' / 'bee_0.JPEG').unlink()
    (flat / 'train' / 'fox_0.JPEG').unlink()
    refuse(cfg, r"/train/bee_0\.JPEG' does not exist: 2 of 6 images that "
           r'train_dataloader\.dataset lists')


def test_listed_folder_that_is_missing(root, flat):
    with open(flat / 'meta' / 'train.txt', 'a') as file:
        file.write('gone/x.JPEG 0\n')
    refuse(config(root, flat), r"/train/gone/x\.JPEG' does not exist: 1 of 7")


@pytest.mark.parametrize('line', [
    'ant_0.JPEG', 'ant_0.JPEG ant', 'ant_0.JPEG 1.5', 'ant_0.JPEG,0', ''])
def test_malformed_line(line, root, flat):
    path = flat / 'meta' / 'val.txt'
    lines = path.read_text().split('\n')
    lines[3] = line
    path.write_text('\n'.join(lines))
    refuse(config(root, flat), rf"/meta/val\.txt, line 4: '{line}' is not")


def test_list_that_is_not_text(root, flat):
    (flat / 'meta' / 'val.txt').write_bytes(b'\xff\xfe\x00bad 0\n')
    refuse(config(root, flat), r'/meta/val\.txt is not text in UTF-8')


@pytest.mark.parametrize('label', [6, -1])
def test_label_out_of_range(label, root, flat):
    path = flat / 'meta' / 'train.txt'
    path.write_text(path.read_text().replace(' 5', f' {label}'))
    refuse(config(root, flat), rf'/meta/train\.txt has the label {label} 1 '
           rf'times, which is not in 0 to 5, as {KEY}=6')


def test_empty_list(root, flat):
    (flat / 'meta' / 'train.txt').write_text('')
    refuse(config(root, flat), r'has no images: .*train\.txt lists none')


def test_count_of_folders(root, folders):
    (folders / 'train' / 'gnu').mkdir()
    refuse(config(root, folders, custom=True), r'/train has 7 class folders '
           rf'\(ant, .* and 2 more\), but {KEY} is 6')
    refuse(config(root, folders), r'cannot be built: .*subfolders \(7\)')


def test_empty_class_folders(root, folders):
    for name in ('cow', 'emu'):
        (folders / 'val' / name / f'{name}_0.JPEG').rename(
            folders / 'val' / name / 'image.txt')
    assert findings(config(root, folders)) == [
        ('val', 'class without example', ('cow', 'emu'))]


def test_images_may_lie_deeper(root, folders):
    deeper = folders / 'val' / 'cow' / 'deeper'
    deeper.mkdir()
    (folders / 'val' / 'cow' / 'cow_0.JPEG').rename(deeper / 'a.JPEG')
    check_data(config(root, folders), ('val', ))


def test_folders_of_train_and_val_differ(root, folders):
    (folders / 'val' / 'bee').rename(folders / 'val' / 'yak')
    refuse(config(root, folders, custom=True),
           r'/val and .*/train do not have the same .*has bee, yak')


def test_order_of_names(root, folders):
    cfg = config(root, folders)
    cfg.train_dataloader.dataset.metainfo.classes = class_images.NAMES[::-1]
    refuse(cfg, r'sorted order \(ant, bee, .*write the class names')


def test_count_of_names(root, folders):
    cfg = config(root, folders)
    cfg.val_dataloader.dataset.pop('metainfo')
    refuse(cfg, r'type ImageNet has 1000 class names .*'
           rf"{KEY} is 6.*'CustomDataset'")
    cfg.train_dataloader.dataset.metainfo.classes = ('ant')
    refuse(cfg, r"text 'ant'.*\('ant', \)")


def test_counts_of_the_model_differ(root, folders):
    cfg = config(root, folders)
    cfg.model.data_preprocessor.num_classes = 1000
    refuse(cfg, rf'data_preprocessor\.num_classes is 1000, but {KEY} is 6')
    # What is left out is the backbone's default.
    cfg.model.backbone.pop('num_classes')
    refuse(cfg, rf'has 6 class names \(ant, .*\), but {KEY} is 1000')


def test_top_5_of_fewer(root, folders):
    cfg = config(root, folders)
    cfg.val_evaluator.topk = (1, 7)
    refuse(cfg, r'val_evaluator\.topk has top-7 of 6 classes')
    check_data(cfg, ('train', 'test'))


def test_a_head_that_counts(root, folders):
    cfg = config(root, folders)
    cfg.model.backbone = dict(type='ResNet', depth=18)
    cfg.model.head = dict(type='LinearClsHead', num_classes=9)
    cfg.model.data_preprocessor.num_classes = 9
    refuse(cfg, r'but model\.head\.num_classes is 9')


def test_inside_wrappers(root, folders):
    cfg = config(root, folders)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, dict(inner, ann_file='gone')])
    refuse(cfg, r'ann_file names .*/gone')


def test_unknown_dataset(root, folders):
    cfg = config(root, folders)
    cfg.train_dataloader.dataset.type = 'ImageNot'
    refuse(cfg, "'ImageNot'.*custom_imports")


def test_the_test_split_of_imagenet_has_no_labels(root, folders):
    cfg = config(root, folders)
    cfg.test_dataloader.dataset.split = 'test'
    check_data(cfg, ('test', ))


def test_other_data_sets_are_not_checked(root):
    cfg = config(root, 'gone')
    cfg.train_dataloader.dataset = dict(
        type='CIFAR10', data_root='gone', split='train', pipeline=[])
    check_data(cfg, ('train', ))


def findings(cfg, number=None):
    return [(one.split, one.kind, tuple(one.names)) for one in DataCheck(
        cfg, ('train', 'val'), Look(number)).run()]


@pytest.mark.parametrize('listed', [False, True])
def test_broken_image(listed, root, folders, flat):
    cfg = config(root, flat if listed else folders)
    path = (flat / 'train' / 'cow_0.JPEG' if listed
            else folders / 'train' / 'cow' / 'cow_0.JPEG')
    path.write_bytes(path.read_bytes()[:-2])
    assert findings(cfg) == [('train', 'undecodable image', (str(path), ))]
    refuse(cfg, r'/cow_0\.JPEG cannot be decoded \(.*\): 1 of 6')


def test_several_findings(root, flat):
    (flat / 'train' / 'bee_0.JPEG').unlink()
    with open(flat / 'meta' / 'train.txt', 'a') as file:
        file.write('ant_0.JPEG 9\nword\n')
    assert findings(config(root, flat)) == [
        ('train', 'malformed list', ('line 8', ))]
    (flat / 'meta' / 'train.txt').write_text('ant_0.JPEG 9\nbee_0.JPEG 1\n')
    assert findings(config(root, flat)) == [
        ('train', 'label out of range', (9, )),
        ('train', 'class without example',
         ('ant', 'cow', 'dog', 'emu', 'fox')),
        ('train', 'missing image', (str(flat / 'train' / 'bee_0.JPEG'), ))]
