"""Every fault of data that mm fails on, drops or learns is reported."""

import json
import shutil

import pytest
from helpers import planted_faults as planted
from helpers.spoiled_data import on_copy, on_folder, refuse

from mmcyclemlp.data_checks import (
    DataCheck,
    Look,
    check_data,
    coco_file,
    data_check,
)
from mmcyclemlp.errors import UserError

SHAPES = ('disc', 'square', 'triangle', 'star', 'ring')
CLASSES = dict(mask_rcnn=SHAPES, upernet=('wall', 'floor', *SHAPES))


def look_at(spoiled):
    return DataCheck(spoiled.cfg, ('train', 'val'), Look()).run()


@pytest.fixture
def spoiled(request, root, drawn_data, tmp_path):
    """A copy of the drawn data, and the config of a model that reads it."""
    model = request.node.callspec.params['model']
    folder = shutil.copytree(drawn_data, tmp_path / 'data')
    return on_copy(root, folder, model, CLASSES[model])


@pytest.mark.parametrize('model', CLASSES)
def test_nothing_is_wrong(model, spoiled):
    assert [one for one in look_at(spoiled) if one.error] == []


@pytest.mark.parametrize('model, name', planted.FAULTS)
def test_fault(model, name, spoiled):
    fault = planted.fault(model, name)
    where = fault.plant(spoiled)
    findings = look_at(spoiled)
    found = [one for one in findings
             if (one.kind, one.split) == (fault.kind, fault.split)]
    assert len(found) == 1, findings
    assert found[0].error == fault.error
    assert found[0].names
    assert where in ' '.join([found[0].message, *map(str, found[0].names)])
    assert all('\n' not in one.message for one in findings)
    # The check before a run is the same one.
    errors = dict.fromkeys(one.message for one in findings if one.error)
    if errors:
        with pytest.raises(UserError) as caught:
            check_data(spoiled.cfg, ('train', 'val'))
        assert str(caught.value) == '\nerror: '.join(errors)
    else:
        check_data(spoiled.cfg, ('train', 'val'))


@pytest.fixture
def data(drawn_data, tmp_path):
    """A copy of the drawn data that a test may spoil."""
    return shutil.copytree(drawn_data, tmp_path / 'data')


@pytest.mark.parametrize('name', ['mask_rcnn', 'upernet'])
def test_good_data_passes(name, root, data):
    check_data(on_folder(root, name, data), ('train', 'val', 'test'))


def test_missing_evaluator_file(root, data):
    cfg = on_folder(root, 'mask_rcnn', data)
    cfg.val_evaluator.ann_file = 'gone.json'
    refuse(cfg, r'val_evaluator\.ann_file names gone.json')


def test_no_images_in_the_file(root, data):
    path = data / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    images=[])))
    refuse(on_folder(root, 'mask_rcnn', data), 'lists no images')


def test_no_categories_in_the_file(root, data):
    path = data / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    categories=[])))
    refuse(on_folder(root, 'mask_rcnn', data),
           "has no categories 'disc'.*it has none")
    check = DataCheck(on_folder(root, 'mask_rcnn', data), ['train'], Look())
    kinds = [finding.kind for finding in check.run()]
    assert 'unknown category id' in kinds and check.numbers == {}


def test_all_splits_and_data_sets_are_checked(root, data):
    """Not only the first finding; data sets are not joined."""
    cfg = on_folder(root, 'mask_rcnn', data)
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


def test_a_sample_is_opened_before_a_run(root, data):
    (data / 'images' / 'train' / '0001.jpg').write_bytes(b'')
    cfg = on_folder(root, 'mask_rcnn', data)
    check = DataCheck(cfg, ['train'], Look(4))
    assert list(check.run()) == [] and check.numbers == dict(train=(8, 4))


def test_images_that_training_skips(root, data):
    (data / 'images' / 'train' / '0001.jpg').write_bytes(b'')
    (data / 'images' / 'train' / '0002.jpg').unlink()
    cfg = on_folder(root, 'mask_rcnn', data)
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
        return coco_file.read_coco(path, *args)

    monkeypatch.setattr(data_check, 'read_coco', read)
    cfg = on_folder(root, 'mask_rcnn', data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, inner])
    cfg.test_dataloader = cfg.val_dataloader
    check_data(cfg, ('train', 'val', 'test'))
    assert len(parsed) == 2


def test_wrong_suffix(root, data):
    cfg = on_folder(root, 'upernet', data)
    cfg.train_dataloader.dataset.img_suffix = '.jpeg'
    refuse(cfg, r'no image that ends in \.jpeg')
