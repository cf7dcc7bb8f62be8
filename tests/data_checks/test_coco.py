"""The check of COCO files takes what mm takes, and says what it does not."""

import copy
import json
import re
import shutil

import pytest
from helpers import coco_folder
from mmengine.registry import DATASETS

from mmcyclemlp.data_checks import DataCheck, Look
from mmcyclemlp.data_checks.coco import check_coco
from mmcyclemlp.data_checks.coco_file import lacking, read_coco
from mmcyclemlp.data_checks.report import Report
from mmcyclemlp.data_checks.sources import sources


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


def look_at(path, masks=False, split='train', classes=coco_folder.CLASSES):
    cfg = coco_folder.config(path, masks)
    cfg.train_dataloader.dataset.metainfo = dict(classes=classes)
    source, = sources(cfg, split)
    report = Report()
    check_coco(report, source, classes, read_coco)
    findings = report.findings
    assert all('\n' not in one.message for one in findings)
    return findings


def train(path, masks=False):
    """Number of boxes that mm's own data set gives for training."""
    dataset = copy.deepcopy(
        coco_folder.config(path, masks).train_dataloader.dataset)
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        built = registry.build(dataset)
    samples = [built.prepare_data(place)['data_samples']
               for place in range(len(built))]
    return sum(len(one.gt_instances) for one in samples)


def every(key, field, value):
    def edit(content):
        for one in content[key]:
            one[field] = value(one[field]) if callable(value) else value

    return edit


def first(key, field, value):
    return lambda content: content[key][0].update({field: value})


def lose(key, field):
    return lambda content: [one.pop(field) for one in content[key][:1]] and (
        None)


def ids(value):
    def edit(content):
        every('images', 'id', value)(content)
        every('annotations', 'image_id', value)(content)

    return edit


def categories(value):
    def edit(content):
        every('categories', 'id', value)(content)
        every('annotations', 'category_id', value)(content)

    return edit


# With how many boxes mm trains on.
TAKEN = {
    'nothing': (lambda content: None, 6),
    'image ids of text': (ids(lambda one: f'a{one}'), 6),
    'image ids with a fraction': (ids(lambda one: one + .5), 6),
    'image ids as floats in annotations': (
        every('annotations', 'image_id', float), 6),
    'image ids of several kinds': (
        ids(lambda one: 'a' if one == 1 else one), 6),
    'huge image ids': (ids(lambda one: one + 10**20), 6),
    'image ids below zero': (ids(lambda one: -one), 6),
    'category ids of text': (categories(str), 6),
    'category ids as floats': (categories(float), 6),
    'annotation ids of text': (every('annotations', 'id', str), 6),
    'annotation id null': (first('annotations', 'id', None), 6),
    'width as float': (every('images', 'width', float), 6),
    'one width of 0': (first('images', 'width', 0), 4),
    'no iscrowd': (lose('annotations', 'iscrowd'), 6),
    'iscrowd null': (every('annotations', 'iscrowd', None), 6),
    'iscrowd of truth': (every('annotations', 'iscrowd', False), 6),
    'area of truth': (first('annotations', 'area', True), 6),
    'area of 0': (first('annotations', 'area', 0), 5),
    'NaN in a box': (
        first('annotations', 'bbox', [1, float('nan'), 9, 9]), 5),
    'a box outside': (first('annotations', 'bbox', [99, 9, 9, 9]), 5),
    'a negative box': (first('annotations', 'bbox', [9, 9, -9, 9]), 5),
    'an annotation of a deleted image': (
        lambda content: content['images'].pop() and None, 4),
    'one of those without a bbox': (
        lambda content: content['annotations'][0].update(
            image_id=9, bbox=None), 5),
    'an ignored one without a bbox': (
        lambda content: content['annotations'][0].update(
            ignore=1, bbox=None), 5),
    'unknown category': (first('annotations', 'category_id', 7), 5),
    'category null': (first('annotations', 'category_id', None), 5),
    'a file name twice': (first('images', 'file_name', '2.png'), 6),
    'an image listed twice': (lambda content: content['images'].append(
        dict(content['images'][0])), 6),
    'category names that are no text': (
        lambda content: content['categories'].append(dict(id=9, name=9)), 6),
    'more keys': (every('annotations', 'attributes', {}), 6),
}


@pytest.mark.parametrize('name', TAKEN)
def test_what_mm_trains_on_is_no_error(name, path):
    edit, boxes = TAKEN[name]
    coco_folder.change(path, edit)
    assert [one for one in look_at(path) if one.error] == []
    assert train(path) == boxes


# With a part of the message.
REFUSED = {
    'list': (lambda content: [content], 'it holds a list: write {"images"'),
    'no categories': (lambda content: content.pop('categories') and None,
                      "it has no 'categories'"),
    'no images': (lambda content: content.pop('images') and None,
                  "it has no 'images'"),
    'null annotations': (lambda content: content.update(annotations=None),
                         "its 'annotations' is no list"),
    'entry of text': (lambda content: content['annotations'].append('x'),
                      "number 6 of its 'annotations' is 'x'"),
    'no name of a category': (lose('categories', 'name'),
                              "category {'id': 1} has no id and name"),
    'no image id': (lose('images', 'id'), 'image None has'),
    'list as image id': (first('images', 'id', [1]), r'image \[1\] has'),
    'width as text': (first('images', 'width', '64'),
                      r"width '64' .*\(write 64, not '64'\)"),
    'width null': (first('images', 'width', None), 'width None'),
    'no height': (lose('images', 'height'), 'height None'),
    'number as file name': (first('images', 'file_name', 12),
                            'image 1 has the file_name 12,'),
    'no annotation id': (lose('annotations', 'id'),
                         r'annotation number 0 of image 1 \(1.png\) has no '
                         'id: 1 of 6 annotations'),
    'no image_id': (lose('annotations', 'image_id'),
                    'annotation 1 of image None has no image_id'),
    'no bbox': (lose('annotations', 'bbox'),
                r'annotation 1 of image 1 \(1.png\) has no bbox'),
    'bbox null': (first('annotations', 'bbox', None), 'the bbox None'),
    'bbox of text': (
        first('annotations', 'bbox', ['1', '2', '9', '9']),
        r"the bbox \['1', '2', '9', '9'\].*\(write 1, not '1'\)"),
    'bbox of an object': (
        first('annotations', 'bbox', dict(x=1, y=1, w=9, h=9)),
        "the bbox {'x': 1"),
    'five numbers': (first('annotations', 'bbox', [1, 2, 3, 4, 5]),
                     r'the bbox \[1, 2, 3, 4, 5\]'),
    'infinite box': (
        first('annotations', 'bbox', [1, 2, float('inf'), 4]),
        'which is not four finite numbers'),
    'area as text': (first('annotations', 'area', '9'),
                     r"the area '9', .*\(write 9, not '9'\)"),
    'list as category_id': (first('annotations', 'category_id', [1]),
                            r'has the category_id \[1\]'),
    'no bbox in an unknown category': (
        lambda content: content['annotations'][0].update(
            category_id=9, bbox=None), 'the bbox None'),
    'annotation id twice': (first('annotations', 'id', 2),
                            'annotation id 2 is there more than once'),
    # Where mm trains on something else than was meant.
    'image id twice': (first('images', 'id', 2),
                       'image id 2 is there more than once'),
    'iscrowd as text': (every('annotations', 'iscrowd', '0'),
                        "has iscrowd '0'.*write 0, not '0'"),
    'image_id as text': (
        first('annotations', 'image_id', '1'),
        r"the image_id '1' where the file lists 1 \(write 1, not '1'\)"),
    'all image_ids unknown': (every('annotations', 'image_id', 77),
                              'annotation 1 of image 77 has the image_id 77'),
    'category_id as text': (first('annotations', 'category_id', '1'),
                            "the category_id '1' where the file lists 1"),
    'another numbering': (every('annotations', 'category_id',
                                lambda one: one - 1),
                          'The classes nut have no annotation'),
    'category name twice': (
        lambda content: content['categories'].insert(
            0, dict(id=9, name='nut')), "the category name 'nut' more than"),
    'category id twice': (
        lambda content: content['categories'].append(
            dict(id=1, name='bolt')), 'the category id 1 more than once'),
}
IN_SILENCE = ('infinite box', 'image id twice', 'iscrowd as text',
              'image_id as text', 'all image_ids unknown',
              'category_id as text', 'another numbering',
              'category name twice', 'category id twice')


@pytest.mark.parametrize('name', REFUSED)
def test_what_mm_fails_on_is_an_error(name, path):
    edit, message = REFUSED[name]
    coco_folder.change(path, edit)
    errors = [one.message for one in look_at(path) if one.error]
    assert errors
    assert any(re.search(message, one) for one in errors), errors
    if name not in IN_SILENCE:
        with pytest.raises(Exception):  # noqa: B017
            train(path)


@pytest.mark.parametrize('text, message', [
    (b'\xef\xbb\xbf{}', 'byte order mark: save it as UTF-8 without one'),
    (b'{"info": "\xe9"}', 'not text in UTF-8'),
    (b'{"images": [', 'it is not JSON'), (b'', 'it is not JSON')])
def test_file_that_is_not_json(text, message, path):
    path.write_bytes(text)
    finding, = look_at(path)
    assert finding.error
    assert message in finding.message


def test_no_annotations_at_all(path):
    coco_folder.change(path, lambda content: content.pop('annotations') and (
        None))
    assert [one.error for one in look_at(path, split='val')] == [False] * 2
    errors = [one.message for one in look_at(path) if one.error]
    assert len(errors) == 1
    assert 'there is nothing to learn' in errors[0]


def test_values_are_shown_as_they_are(path):
    coco_folder.change(path, first('annotations', 'bbox', [99, 9, 9, 9]))
    message, = [one.message for one in look_at(path)]
    assert message == (
        f'{path}: annotation 1 of image 1 (1.png) has the bbox [99, 9, 9, 9] '
        'outside of its image of 64x48: 1 of 6 annotations; mm leaves it '
        'out: boxes are [x, y, width, height] in pixels')


def test_many_boxes_outside_are_of_another_form(path):
    coco_folder.change(path, every('annotations', 'bbox', [99, 9, 9, 9]))
    assert 'box outside' in [one.kind for one in look_at(path) if one.error]


def test_what_a_class_left_out_has_is_not_looked_at(path):
    coco_folder.change(path, lambda content: [
        one.update(segmentation=[]) for one in content['annotations']
        if one['category_id'] == 1] and None)
    assert [one.kind for one in look_at(path, True) if one.error] == [
        'missing mask']
    assert not any(one.error for one in look_at(path, True,
                                                classes=('nut', )))


RUN_LENGTHS = dict(size=[48, 64], counts=[0, 48 * 64])
# With the kind, whether it is an error, and the boxes that mm trains on.
MASKS = [
    (RUN_LENGTHS, None, False, 6),
    ([['3', '9', '23', '9', '23', '20']], None, False, 6),
    ([[3, 4, 30, 40]], 'malformed mask', False, 5),
    ([[3, 4, 30, 40, 5]], 'malformed mask', False, 5),
    ([[[3, 4], [30, 4], [30, 40]]], 'malformed mask', False, 5),
    ([RUN_LENGTHS], 'malformed mask', False, 5),
    (dict(size=[48, 64]), 'malformed mask', False, 5),
    ([[3, 9, 23, 9, 23, 20], [1, 2]], 'malformed part of a mask', False, 6),
    ([[99, 9, 90, 9, 90, 99]], 'mask outside', False, 6),
    ([], 'missing mask', True, None),
    (None, 'missing mask', True, None),
    ([3, 9, 23, 9, 23, 20], 'unreadable mask', True, None),
    ('x', 'unreadable mask', True, None),
    (dict(size=[64, 48], counts=[0, 48 * 64]), 'mask of another size', True,
     None),
    (dict(size=[48, 64], counts=[-1, 48 * 64 + 1]), 'unreadable mask', True,
     None),
    (dict(size='48x64', counts=[48 * 64]), 'unreadable mask', True, None),
    # mm would not end on these, and read wrong points of the last.
    (dict(size=[48, 64], counts=[3, 4]), 'unreadable mask', True, 0),
    ([[3, 9, 23, 9, 23, float('nan')]], 'unreadable mask', True, 0),
    ([[3, 9, 23, 9, 23, None]], 'unreadable mask', True, 0),
    ([[[3, 4]] * 6], 'unreadable mask', True, 0),
]


@pytest.mark.parametrize('mask, kind, error, boxes', MASKS)
def test_masks(mask, kind, error, boxes, path):
    coco_folder.change(path, first('annotations', 'segmentation', mask))
    findings = look_at(path, True)
    assert [(one.kind, one.error) for one in findings] == (
        [(kind, error)] if kind else [])
    if boxes:
        assert train(path, True) == boxes
    elif boxes is None:
        with pytest.raises(Exception):  # noqa: B017
            train(path, True)


def test_memory_of_files_goes_by_their_content(path):
    assert lacking(str(path), True) == set()
    content = json.loads(path.read_text())
    content['annotations'][0].pop('iscrowd')
    path.write_text(json.dumps(content))
    assert lacking(str(path), True) == {'iscrowd'}


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
