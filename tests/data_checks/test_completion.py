"""COCO files are completed in a copy, and are not changed."""

import copy
import json
import re

import pytest
from helpers import coco_folder
from helpers.coco_folder import check_evaluator, evaluate, kinds
from mmengine.registry import DATASETS

from mmcyclemlp.data_checks.completion import complete_annotations, completed
from mmcyclemlp.data_checks.sources import sources


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


def lose(*keys):
    def edit(content):
        for one in content['annotations']:
            for key in keys:
                one.pop(key)

    return edit


def null(content):
    for one in content['annotations']:
        one.update(area=None, iscrowd=None)


def number(value):
    def edit(content):
        for one in content['annotations']:
            one['id'] = value(one['id'])

    return edit


COMPLETED = {
    'no iscrowd': (lose('iscrowd'), {'iscrowd'}),
    'no area': (lose('area'), {'area'}),
    'neither': (lose('area', 'iscrowd'), {'area', 'iscrowd'}),
    'null': (null, {'area', 'iscrowd'}),
    'one only': (
        lambda content: content['annotations'][-1].pop('iscrowd') and None,
        {'iscrowd'}),
    # COCO's evaluation takes 0 for "not found".
    'ids from 0': (number(lambda one: one - 1), {'id'}),
    'ids of text': (number(lambda one: f'a-{one}'), {'id'}),
}


@pytest.mark.parametrize('name', COMPLETED)
def test_completed_copies(name, path):
    edit, keys = COMPLETED[name]
    coco_folder.change(path, edit)
    cfg = coco_folder.config(path)
    before = path.read_bytes()
    found, = check_evaluator(cfg)
    assert (found.kind, found.error) == ('incomplete annotations', False)
    assert {name.split()[0] for name in found.names} == {
        'an' if key == 'id' else key for key in keys}
    complete_annotations(cfg, ('train', 'val'))
    complete_annotations(cfg, ('train', 'val'))  # of complete ones: nothing
    assert path.read_bytes() == before
    copies = list((path.parent / 'work' / 'completed').iterdir())
    assert len(copies) == 1
    assert re.fullmatch(r'data-\w{8}\.json', copies[0].name)
    assert cfg.val_evaluator.ann_file == str(copies[0])
    assert cfg.val_dataloader.dataset.ann_file == str(copies[0])
    assert (cfg.train_dataloader.dataset.ann_file == str(copies[0])) == (
        'area' in keys)
    entries = json.loads(copies[0].read_text())['annotations']
    whole = coco_folder.content()['annotations']
    for one, two in zip(entries, whole):
        assert dict(one, iscrowd=0, id=two['id']) == two
    assert kinds(cfg) == []
    assert evaluate(cfg) == 1


def test_complete_files_are_not_copied(path, monkeypatch):
    cfg = coco_folder.config(path)
    check_evaluator(cfg)
    whole = copy.deepcopy(cfg)
    monkeypatch.setattr(json, 'load', None)
    complete_annotations(cfg, ('train', 'val', 'test'))
    assert cfg.to_dict() == whole.to_dict()
    assert not (path.parent / 'work').exists()


def test_formatting_needs_no_copy(path):
    coco_folder.change(path, lose('iscrowd'))
    cfg = coco_folder.config(path, format_only=True)
    complete_annotations(cfg, ('train', 'val'))
    cfg = coco_folder.config(path)
    cfg.val_evaluator.ann_file = None
    complete_annotations(cfg, ('train', 'val'))
    assert not (path.parent / 'work').exists()


def test_the_check_builds_a_completed_data_set(path):
    coco_folder.change(path, lose('area'))
    source, = sources(coco_folder.config(path), 'train')
    with completed(source) as whole, DATASETS.switch_scope_and_registry(
            'mmdet') as registry:
        assert len(registry.build(dict(whole.config))) == 3
    assert source.config['ann_file'] == 'data.json'


BAD_MASKS = [[[3, 4, 30, 40]], [[]], [[[3, 4], [30, 4], [30, 40]]],
             dict(size=[48, 64]),
             [[3, 4, 30, 40], [3, 9, 23, 9, 23, 20]]]


@pytest.mark.parametrize('mask', BAD_MASKS)
@pytest.mark.parametrize('masks', [True, False])
def test_masks_that_training_leaves_out(mask, masks, path):
    """COCO's evaluation would fail on them."""
    coco_folder.change(path, lambda content: content['annotations'][0].update(
        segmentation=mask))
    cfg = coco_folder.config(path, masks, metric=['segm'])
    with pytest.raises(Exception):  # noqa: B017
        evaluate(cfg)
    complete_annotations(cfg, ('val', ))
    assert evaluate(cfg) == 1 if masks else evaluate(cfg) < 1
