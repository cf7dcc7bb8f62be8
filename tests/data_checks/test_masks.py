"""Masks that mm fails on, hangs on or drops are reported."""

import pytest
from helpers import coco_folder
from helpers.coco_folder import check_file, count_trained, first


@pytest.fixture
def path(tmp_path):
    return coco_folder.draw(tmp_path)


RUN_LENGTHS = dict(size=[48, 64], counts=[0, 48 * 64])
# A mask, the kind, whether it is an error, and the boxes mm trains on.
MASKS = [
    (RUN_LENGTHS, None, False, 6),
    ([['3', '9', '23', '9', '23', '20']], None, False, 6),
    ([[3, 4, 30, 40]], 'malformed mask', False, 5),
    ([[3, 4, 30, 40, 5]], 'malformed mask', False, 5),
    ([[[3, 4], [30, 4], [30, 40]]], 'malformed mask', False, 5),
    ([RUN_LENGTHS], 'malformed mask', False, 5),
    (dict(size=[48, 64]), 'malformed mask', False, 5),
    ([[3, 9, 23, 9, 23, 20], [1, 2]], 'malformed mask', False, 6),
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
    findings = check_file(path, True)
    assert [(one.kind, one.error) for one in findings] == (
        [(kind, error)] if kind else [])
    if boxes:
        assert count_trained(path, True) == boxes
    elif boxes is None:
        with pytest.raises(Exception):  # noqa: B017
            count_trained(path, True)


def test_masks_of_unused_classes_are_not_checked(path):
    coco_folder.change(path, lambda content: [
        one.update(segmentation=[]) for one in content['annotations']
        if one['category_id'] == 1] and None)
    assert [one.kind for one in check_file(path, True) if one.error] == [
        'missing mask']
    assert not any(one.error for one in check_file(path, True,
                                                classes=('nut', )))
