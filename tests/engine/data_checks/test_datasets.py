"""Data sets other than COCO's are checked by what mm builds of them."""

import coco_folder
import cv2
import numpy as np
import pytest
from mmdet.datasets import BaseDetDataset
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from mmcyclemlp.engine.data_checks import DataCheck, Look

OBJECT = ('<object><name>{}</name><difficult>0</difficult><bndbox><xmin>3'
          '</xmin><ymin>4</ymin><xmax>30</xmax><ymax>28</ymax></bndbox>'
          '</object>')


@DATASETS.register_module()
class OwnBoxes(BaseDetDataset):
    label = 0

    def load_data_list(self):
        return [dict(img_path=f'{self.data_root}/{name}.jpg', img_id=name,
                     width=64, height=48, instances=[dict(
                         bbox=[1, 2, 30, 20], bbox_label=self.label,
                         ignore_flag=0)]) for name in 'abc']


@DATASETS.register_module()
class OwnWrongLabels(OwnBoxes):
    label = 2


@DATASETS.register_module()
class NoDatasetOfMM(Dataset):
    def __init__(self, pipeline):
        self.pipeline = pipeline


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'list.txt').write_text('a\nb\nc')
    for name in 'abc':
        cv2.imwrite(str(tmp_path / f'{name}.jpg'),
                    np.full((48, 64, 3), ord(name), np.uint8))
        (tmp_path / f'{name}.xml').write_text(
            '<annotation><size><width>64</width><height>48</height></size>'
            + OBJECT.format('bolt') + OBJECT.format('nut') + '</annotation>')
    return tmp_path


def look_at(dataset, split='train'):
    check = DataCheck(Config({
        'default_scope': 'mmdet', 'model': {},
        f'{split}_dataloader': dict(dataset=dataset)}), (split, ), Look())
    return list(check.run()), check.numbers.get(split)


def xml(folder, classes, **others):
    return dict(
        type='XMLDataset', data_root=f'{folder}/', ann_file='list.txt',
        ann_subdir='', img_subdir='', data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=classes), pipeline=PIPELINE, **others)


PIPELINE = [dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', ))]


def test_right_names_in_xml_files(folder):
    assert look_at(xml(folder, ('bolt', 'nut'))) == ([], (3, 3))


@pytest.mark.parametrize('empty', [True, False])
@pytest.mark.parametrize('classes', [
    ('bolt', 'Nut'), ('Bolt', 'Nut'), ('screw', 'nuts')])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_names_that_xml_files_do_not_have(split, classes, empty, folder):
    found, _ = look_at(xml(folder, classes, filter_cfg=dict(
        filter_empty_gt=empty), test_mode=split == 'val'), split)
    error = next(one for one in found if one.error)
    assert error.kind == 'class name without object'
    assert 'named bolt, nut' in error.message
    # screw is like no name in the files: in val it may be a rare class.
    assert set(error.names) == set(classes) - {'bolt'} - (
        {'screw'} if split == 'val' else set())


def test_a_rare_class_is_a_remark(folder):
    found, _ = look_at(xml(folder, ('bolt', 'nut', 'gear')))
    assert [(one.kind, one.error) for one in found] == [
        ('class without example', False)]


def test_a_missing_image_of_xml_files(folder):
    (folder / 'b.jpg').unlink()
    found, _ = look_at(xml(folder, ('bolt', 'nut')))
    error, = (one for one in found if one.error)
    assert error.kind == 'missing image' and 'b.jpg' in error.message


def test_a_broken_xml_file_ends_in_one_line(folder):
    (folder / 'b.xml').write_text('<annotation>')
    found, _ = look_at(xml(folder, ('bolt', 'nut')))
    error, = found
    assert error.kind == 'data set that cannot be built'
    assert 'ParseError' in error.message and '\n' not in error.message


def test_backslashes_in_names_of_files(tmp_path):
    path = coco_folder.draw(tmp_path)
    cfg = coco_folder.config(path)
    assert look_at(cfg.train_dataloader.dataset)[1] == (3, 3)

    def turn(content):
        for one in content['images']:
            one['file_name'] = f'.\\{one["file_name"]}'

    coco_folder.change(path, turn)
    found, _ = look_at(cfg.train_dataloader.dataset)
    error, = (one for one in found if one.error)
    assert error.kind == 'missing image'
    assert "write '/' in place of '\\'" in error.message


def own(folder, kind):
    return dict(type=kind, data_root=str(folder), pipeline=PIPELINE,
                metainfo=dict(classes=('bolt', )))


def test_a_data_set_class_of_the_user(folder):
    assert look_at(own(folder, 'OwnBoxes')) == ([], (3, 3))
    (folder / 'c.jpg').write_bytes(b'')
    found, _ = look_at(own(folder, 'OwnBoxes'))
    assert found[0].kind == 'undecodable image'


def test_labels_of_a_data_set_class_of_the_user(folder):
    found, _ = look_at(own(folder, 'OwnWrongLabels'))
    assert found[0].kind == 'label out of range'
    assert 'the label 2' in found[0].message and found[0].error


def test_what_is_not_checked_is_said(folder):
    (found, ), numbers = look_at(dict(type='NoDatasetOfMM', pipeline=[]))
    assert 'not checked: NoDatasetOfMM' in found.message
    assert not found.error and numbers is None
