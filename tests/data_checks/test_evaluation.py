"""Evaluators that read other data, or cannot evaluate it, are reported."""

import json
import re
import shutil

import pytest
from helpers import coco_folder
from helpers.coco_folder import check_evaluator, evaluate, kinds

from mmcyclemlp.data_checks.coco_file import read_coco
from mmcyclemlp.data_checks.evaluation import check_evaluators
from mmcyclemlp.data_checks.report import Report
from mmcyclemlp.data_checks.sources import sources


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


def other_file(path, edit):
    other = path.with_name('other.json')
    shutil.copy(path, other)
    coco_folder.change(other, edit)
    return other


def of_other_file(path, edit, **evaluator):
    cfg = coco_folder.config(path, **evaluator)
    cfg.val_evaluator.ann_file = str(other_file(path, edit))
    return cfg


def both(*edits):
    def edit(content):
        for one in edits:
            one(content)

    return edit


def shift(content):
    for one in content['images']:
        one['id'] += 1000
    for one in content['annotations']:
        one['image_id'] += 1000


def move(number):
    """Move the boxes of some images."""
    def edit(content):
        for one in content['annotations'][:2 * number]:
            one['bbox'] = [30, 5, 11, 12]

    return edit


def rename(content):
    for one in content['images']:
        one['file_name'] = f'other/{one["id"]}_x.jpg'


def swap(content):
    content['categories'].reverse()


def renumber(content):
    for key, name in ('categories', 'id'), ('annotations', 'category_id'):
        for one in content[key]:
            one[name] += 40


def refolder(content):
    for one in content['images']:
        one['file_name'] = f'some\\folder\\{one["id"]}.jpg'


def more(content):
    content['images'].append(dict(content['images'][0], id=9))


def resize(content):
    for one in content['images']:
        one['width'] *= 2


# By name, an edit, the findings and the result of mm.
OTHERS = {
    'a copy': (lambda content: None, [], 1),
    'other numbers of categories': (renumber, [], 1),
    'names in other folders': (refolder, [], 1),
    'one image more': (more, [('evaluator with more images', False)], 1),
    'other ids': (shift, [('evaluator without image', True)], None),
    'fewer images': (lambda content: content['images'].pop() and None,
                     [('evaluator without image', True)], None),
    'boxes of another split': (
        move(3), [('evaluator of other annotations', True)], 0),
    'no boxes': (lambda content: content.update(annotations=[]),
                 [('evaluator of other annotations', True)], -1),
    'other boxes of one image': (
        move(1), [], ...),
    'renamed images': (rename, [], 1),
    'other images': (both(rename, move(3)),
                     [('evaluator of other images', True)], 0),
    'other sizes': (resize, [], 1),
    'other order of categories': (
        swap, [('categories of the evaluator', True)], 0),
    'no such categories': (
        lambda content: content['categories'].pop() and None,
        [('categories of the evaluator', True)], None),
}


@pytest.mark.parametrize('name', OTHERS)
def test_evaluator_of_another_file(name, path):
    edit, expected, result = OTHERS[name]
    cfg = of_other_file(path, edit)
    assert kinds(cfg) == expected
    if result is None:
        with pytest.raises((AssertionError, IndexError)):
            evaluate(cfg)
    elif result is not ...:
        assert evaluate(cfg) == result


def test_message_names_both_files(path):
    cfg = of_other_file(path, shift)
    message, = [one.message for one in check_evaluator(cfg)]
    assert message == (
        f'val_evaluator.ann_file names {path.with_name("other.json")}, which '
        f'has no image of the id 1 (1.png) of {path}: 3 of 3 images of the '
        f'data; set val_evaluator.ann_file to {path}')


def test_formatting_needs_no_ground_truth(path):
    cfg = of_other_file(
        path, both(more, lambda content: content.update(annotations=[])),
        format_only=True, outfile_prefix=str(path.parent / 'out'))
    assert kinds(cfg) == []
    evaluate(cfg)
    cfg = of_other_file(path, swap, format_only=True)
    assert kinds(cfg) == [('categories of the evaluator', True)]


def test_sizes_matter_to_masks(path):
    cfg = of_other_file(path, resize, metric=['bbox', 'segm'])
    assert kinds(cfg)[0] == ('evaluator of other images', True)


def test_data_without_annotations(path):
    """A test split may have its ground truth in another file."""
    cfg = coco_folder.config(path)
    other = other_file(path, lambda content: None)
    coco_folder.change(path, lambda content: content.update(annotations=[]))
    cfg.val_evaluator.ann_file = str(other)
    assert kinds(cfg) == []
    coco_folder.change(other, rename)
    assert kinds(cfg) == [('evaluator of other images', True)]


def test_same_file_under_another_name(path):
    link = path.with_name('link.json')
    link.symlink_to(path)
    cfg = coco_folder.config(path)
    cfg.val_evaluator.ann_file = f'{path.parent}/./link.json'
    read = []
    check_evaluators(
        Report(), cfg, 'val', sources(cfg, 'val'),
        lambda *given: read.append(given) or read_coco(*given))
    assert read == [(str(path), False)]


@pytest.mark.parametrize('indices', [2, [0, 2]])
def test_part_of_the_data(indices, path):
    cfg = coco_folder.config(path)
    cfg.val_dataloader.dataset.indices = indices
    assert kinds(cfg) == [('evaluator with more images', False)]
    # Those that are used have to be there.
    cfg = of_other_file(path, lambda content: content['images'].pop(1) and (
        None))
    cfg.val_dataloader.dataset.indices = [0, 2]
    assert kinds(cfg) == []


@pytest.mark.parametrize('wrap', [
    lambda one: [one], lambda one: [dict(type='DumpResults'), one],
    lambda one: dict(type='Evaluator', metrics=[one]),
    lambda one: dict(type='Evaluator', metrics=one)])
def test_evaluators_in_lists(wrap, path):
    cfg = of_other_file(path, shift)
    cfg.val_evaluator = wrap(cfg.val_evaluator)
    finding, = check_evaluator(cfg)
    assert re.match(r'val_evaluator[^ ]*\.ann_file names', finding.message)


def test_two_data_sets_with_the_same_ids(path):
    cfg = coco_folder.config(path)
    inner = cfg.val_dataloader.dataset
    second = dict(inner, ann_file=str(other_file(path, renumber)))
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, second])
    kinds = []
    for one in (inner, second):
        cfg.val_evaluator.ann_file = str(path.parent / one['ann_file'])
        kinds.append([one.kind for one in check_evaluator(cfg) if one.error])
    assert kinds == [['image id in two data sets']] * 2


def test_several_data_sets(path):
    cfg = coco_folder.config(path)
    inner = cfg.val_dataloader.dataset
    second = other_file(path, shift)
    joined = path.with_name('joined.json')
    shutil.copy(path, joined)

    def join(content):
        other = json.loads(second.read_text())
        for key in ('images', 'annotations'):
            content[key] += other[key]
        for number, one in enumerate(content['annotations']):
            one['id'] = number + 1

    coco_folder.change(joined, join)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[
        inner, dict(inner, ann_file=second.name)])
    assert kinds(cfg) == [('evaluator without image', True)]
    cfg.val_evaluator.ann_file = str(joined)
    assert kinds(cfg) == []
    cfg.val_dataloader.dataset.datasets[1].ann_file = path.name
    assert kinds(cfg)[0] == ('image id in two data sets', True)
    # Each data set has its own metric.
    cfg.val_dataloader.dataset.datasets[1].ann_file = second.name
    first = dict(cfg.val_evaluator, ann_file=str(path))
    cfg.val_evaluator = dict(
        type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'],
        metrics=[first, dict(first, ann_file=str(second))])
    assert kinds(cfg) == []
    cfg.val_evaluator.metrics.reverse()
    assert kinds(cfg) == [('evaluator without image', True)] * 2


def test_other_metrics(path):
    cfg = of_other_file(path, shift)
    cfg.val_evaluator.type = 'CrowdHumanMetric'
    assert kinds(cfg) == []
    cfg.val_evaluator.ann_file = 'gone.json'
    assert kinds(cfg) == [('missing file', True)]
    for absent in (None, 's3://bucket/val.json'):
        cfg.val_evaluator.ann_file = absent
        assert kinds(cfg) == []


def test_evaluator_that_is_not_coco(path):
    cfg = of_other_file(path, lambda content: [content])
    assert kinds(cfg) == [('not a COCO file', True)]
    cfg.val_evaluator.ann_file = str(path.parent)
    assert kinds(cfg) == [('not a COCO file', True)]


@pytest.mark.parametrize('mask', [
    [], None, dict(size=[64, 48], counts=[48 * 64]),
    [3, 9, 23, 9, 23, 20]])
def test_masks_that_evaluation_needs(mask, path):
    """Also where the pipeline loads none."""
    coco_folder.change(path, lambda content: content['annotations'][0].update(
        segmentation=mask))
    cfg = coco_folder.config(path, metric=['bbox', 'segm'])
    kind = 'annotation that segm cannot evaluate'
    assert kinds(cfg) == [(kind, True)]
    assert 'val_evaluator.metric segm needs masks' in check_evaluator(
        cfg)[0].message
    cfg.val_evaluator.metric = ['segm']
    if not isinstance(mask, dict):  # that one is never found
        with pytest.raises(Exception):  # noqa: B017
            evaluate(cfg)
    cfg.val_evaluator.metric = 'bbox'
    assert kinds(cfg) == []
    assert evaluate(cfg) == 1
