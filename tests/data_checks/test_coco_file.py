"""Annotation files that mm can read are read, the others are reported."""

import json
import re

import pytest
from helpers import coco_folder
from helpers.coco_folder import check_file, count_trained, every, first

from mmcyclemlp.data_checks.coco_file import lacking


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


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


# By name, an edit and the number of boxes that mm trains on.
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
def test_data_that_mm_trains_on_is_not_an_error(name, path):
    edit, boxes = TAKEN[name]
    coco_folder.change(path, edit)
    assert [one for one in check_file(path) if one.error] == []
    assert count_trained(path) == boxes


# By name, an edit and a part of the message.
REFUSED = {
    'list': (lambda content: [content], 'it holds a list: write {"images"'),
    'no categories': (lambda content: content.pop('categories') and None,
                      "its 'categories' is not a list of objects"),
    'null annotations': (lambda content: content.update(annotations=None),
                         "its 'annotations' is not a list of objects"),
    'entry of text': (lambda content: content['annotations'].append('x'),
                      "its 'annotations' is not a list of objects"),
    'no name of a category': (lose('categories', 'name'),
                              "category {'id': 1} has no id and name"),
    'no image id': (lose('images', 'id'), 'image None has'),
    'list as image id': (first('images', 'id', [1]), r'image \[1\] has'),
    'width as text': (first('images', 'width', '64'),
                      "width '64' and height 48: mm needs"),
    'width null': (first('images', 'width', None), 'width None'),
    'no height': (lose('images', 'height'), 'height None'),
    'number as file name': (first('images', 'file_name', 12),
                            'image 1 has the file_name 12,'),
    'no annotation id': (lose('annotations', 'id'),
                         r'annotation None of image 1 \(1.png\) has no id: '
                         '1 of 6 annotations'),
    'no image_id': (lose('annotations', 'image_id'),
                    'annotation 1 of image None has no image_id'),
    'no bbox': (lose('annotations', 'bbox'),
                r'annotation 1 of image 1 \(1.png\) has the bbox None'),
    'bbox null': (first('annotations', 'bbox', None), 'the bbox None'),
    'bbox of text': (
        first('annotations', 'bbox', ['1', '2', '9', '9']),
        r"the bbox \['1', '2', '9', '9'\], which is not four"),
    'bbox of an object': (
        first('annotations', 'bbox', dict(x=1, y=1, w=9, h=9)),
        "the bbox {'x': 1"),
    'five numbers': (first('annotations', 'bbox', [1, 2, 3, 4, 5]),
                     r'the bbox \[1, 2, 3, 4, 5\]'),
    'infinite box': (
        first('annotations', 'bbox', [1, 2, float('inf'), 4]),
        'which is not four finite numbers'),
    'area as text': (first('annotations', 'area', '9'),
                     "the area '9', which is not a number"),
    'list as category_id': (first('annotations', 'category_id', [1]),
                            r'has the category_id \[1\]'),
    'no bbox in an unknown category': (
        lambda content: content['annotations'][0].update(
            category_id=9, bbox=None), 'the bbox None'),
    # Where mm trains on something else than was meant.
    'image id twice': (first('images', 'id', 2),
                       'image id 2 is there more than once'),
    'iscrowd as text': (every('annotations', 'iscrowd', '0'),
                        "has iscrowd '0'.*write 0, not '0'"),
    'all image_ids unknown': (every('annotations', 'image_id', 77),
                              'annotation 1 of image 77 has an image_id that'),
    'category_id as text': (
        every('annotations', 'category_id', str),
        "the category_id '1', and the file lists 1, 2: .*bolt, nut have no"),
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
              'all image_ids unknown', 'category_id as text',
              'another numbering',
              'category name twice', 'category id twice')


@pytest.mark.parametrize('name', REFUSED)
def test_what_mm_fails_on_is_an_error(name, path):
    edit, message = REFUSED[name]
    coco_folder.change(path, edit)
    errors = [one.message for one in check_file(path) if one.error]
    assert errors
    assert any(re.search(message, one) for one in errors), errors
    if name not in IN_SILENCE:
        with pytest.raises(Exception):  # noqa: B017
            count_trained(path)


@pytest.mark.parametrize('text, message', [
    (b'\xef\xbb\xbf{}', 'Unexpected UTF-8 BOM'),
    (b'{"info": "\xe9"}', "'utf-8' codec can't decode"),
    (b'{"images": [', 'line 1 column'), (b'', 'line 1 column')])
def test_file_that_is_not_json(text, message, path):
    path.write_bytes(text)
    finding, = check_file(path)
    assert finding.error
    assert message in finding.message


def test_values_are_shown_as_they_are(path):
    coco_folder.change(path, first('annotations', 'bbox', [99, 9, 9, 9]))
    message, = [one.message for one in check_file(path)]
    assert message == (
        f'{path}: annotation 1 of image 1 (1.png) has the bbox [99, 9, 9, 9] '
        'and the area 220 in an image of 64x48: 1 of 6 annotations; mm drops '
        'boxes outside of the image, with NaN or of less than one pixel: '
        'boxes are [x, y, width, height] in pixels')


def test_many_boxes_outside_are_of_another_form(path):
    coco_folder.change(path, every('annotations', 'bbox', [99, 9, 9, 9]))
    assert 'box that mm drops' in [
        one.kind for one in check_file(path) if one.error]


def test_a_changed_file_is_read_again(path):
    assert lacking(str(path), True) == set()
    content = json.loads(path.read_text())
    content['annotations'][0].pop('iscrowd')
    path.write_text(json.dumps(content))
    assert lacking(str(path), True) == {'iscrowd'}
