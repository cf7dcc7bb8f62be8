"""Data sets other than COCO's are checked by what mm builds of them."""

import cv2
import numpy as np
import pytest
from helpers import coco_folder
from mmcv.transforms import BaseTransform
from mmdet.datasets import BaseDetDataset
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from mmcyclemlp.data_checks import DataCheck, Look

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


def test_objects_that_are_all_difficult(folder):
    for path in folder.glob('*.xml'):
        path.write_text(path.read_text().replace(
            '<difficult>0', '<difficult>1'))
    found, _ = look_at(xml(folder, ('bolt', 'nut')))
    error, = (one for one in found if one.error)
    assert error.kind == 'images without ground truth'


def test_xml_files_without_a_size(folder):
    for path in folder.glob('*.xml'):
        path.write_text(path.read_text().replace('>64<', '>0<').replace(
            '>48<', '>0<'))
    assert look_at(xml(folder, ('bolt', 'nut'))) == ([], (3, 3))


def test_an_image_of_another_case(folder):
    (folder / 'b.jpg').rename(folder / 'B.JPG')
    found, _ = look_at(xml(folder, ('bolt', 'nut')))
    error, = (one for one in found if one.error)
    assert 'there is B.JPG: upper and lower case differ' in error.message


@pytest.mark.parametrize('size, error', [
    ((65, 48), False), ((640, 700), False), ((128, 96), True),
    ((32, 48), False)])
def test_a_size_that_is_not_the_image_s(size, error, folder):
    path = folder / 'b.xml'
    path.write_text(path.read_text().replace(
        '>64<', f'>{size[0]}<').replace('>48<', f'>{size[1]}<'))
    (found, ), numbers = look_at(xml(folder, ('bolt', 'nut')))
    assert (found.kind, found.error) == ('image of another size', error)
    assert 'b.jpg is 64x48' in found.message and numbers == (3, 3)
    path.write_text(path.read_text().replace('>30<', '>70<'))
    (found, ), _ = look_at(xml(folder, ('bolt', 'nut')))
    assert found.error == (size != (65, 48))


def test_a_box_whose_sides_are_exchanged(folder):
    path = folder / 'b.xml'
    path.write_text(path.read_text().replace('<xmin>3<', '<xmin>40<', 1))
    found, _ = look_at(xml(folder, ('bolt', 'nut')))
    error, = (one for one in found if one.error)
    assert error.kind == 'box of negative size' and 'b.jpg' in error.message


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


@TRANSFORMS.register_module()
class RenameImage(BaseTransform):
    def transform(self, results):
        results['img_path'] = results['img_path'].replace('.fake', '.jpg')
        return results


@DATASETS.register_module()
class OwnArrays(OwnBoxes):
    """Boxes as arrays, and polygons of eight numbers."""

    def load_data_list(self):
        infos = super().load_data_list()
        for info, box in zip(infos, (
                np.float32([1, 2, 30, 20]), np.arange(8)[::-1], None)):
            info['instances'][0]['bbox'] = box
        return infos


def test_boxes_of_other_forms(folder):
    dataset = own(folder, 'OwnArrays')
    # mmdet's LoadAnnotations takes four numbers each.
    dataset['pipeline'] = [PIPELINE[0], PIPELINE[2]]
    assert look_at(dataset) == ([], (3, 3))


@TRANSFORMS.register_module()
class OwnAugmentation(RenameImage):
    """Does not come before the image is loaded."""


@DATASETS.register_module()
class OwnNames(OwnBoxes):
    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        return dict(info, img_path=info['img_path'].replace('.jpg', '.fake'))


@pytest.mark.parametrize('renamed', [True, False])
def test_images_under_names_that_a_transform_changes(renamed, folder):
    dataset = own(folder, 'OwnNames')
    dataset['pipeline'] = [dict(type='RenameImage'), *PIPELINE] if (
        renamed) else [*PIPELINE[:2], dict(type='OwnAugmentation'),
                       PIPELINE[2]]
    found, numbers = look_at(dataset)
    assert [one.kind for one in found if one.error] == (
        [] if renamed else ['missing image'])
    assert numbers == ((3, 3) if renamed else None)


def test_a_data_set_class_of_the_user(folder):
    assert look_at(own(folder, 'OwnBoxes')) == ([], (3, 3))
    (folder / 'c.jpg').write_bytes(b'')
    found, _ = look_at(own(folder, 'OwnBoxes'))
    assert found[0].kind == 'undecodable image'


def test_labels_of_a_data_set_class_of_the_user(folder):
    found, _ = look_at(own(folder, 'OwnWrongLabels'))
    assert found[0].kind == 'label out of range'
    assert 'the label 2' in found[0].message and found[0].error


def test_unchecked_data_is_reported(folder):
    (found, ), numbers = look_at(dict(type='NoDatasetOfMM', pipeline=[]))
    assert 'not checked: NoDatasetOfMM' in found.message
    assert not found.error and numbers is None
