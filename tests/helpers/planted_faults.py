"""Faults to plant in a data set, and by what they are to be found.

A data set lies in a folder as demo/draw_data.py lays it out: drawn, or real
photographs copied to that form.
"""

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.config import Config


@dataclass
class Data:
    """A folder that a fault may spoil, with a config that reads it.

    Attributes:
        folder (Path): The folder.
        cfg (Config): The config.
        number (int): Classes.
        seed (int): Which image or entry is spoilt.
    """

    folder: Path
    cfg: Config
    number: int
    seed: int = 1

    @property
    def train(self):
        return self.cfg.train_dataloader.dataset

    def images(self, split='train'):
        return sorted((self.folder / 'images' / split).iterdir())

    def labels(self, split='train'):
        return sorted((self.folder / 'annotations' / split).iterdir())

    def image(self, split='train'):
        """An image that is spoilt; of a COCO file, one with boxes."""
        path = self.folder / 'annotations' / f'instances_{split}.json'
        if not path.exists():
            return self.images(split)[self.seed]
        content = json.loads(path.read_text())
        entry = self.entry(content)
        name, = (one['file_name'] for one in content['images']
                 if one['id'] == entry['image_id'])
        return self.folder / 'images' / split / name

    def label(self):
        return self.labels()[self.seed]

    @staticmethod
    def entry(content):
        """An annotation that is spoilt: no crowd, of a large thing."""
        return max((one for one in content['annotations']
                    if not one['iscrowd']), key=lambda one: one['area'])

    def change_entry(self, change):
        """Change an annotation; what the change gives is its new name."""
        def apply(content):
            entry = self.entry(content)
            image, = (one for one in content['images']
                      if one['id'] == entry['image_id'])
            change(entry, image)
            return f'annotation {entry["id"]}'

        return self.change(apply)

    def change(self, change, split='train'):
        path = self.folder / 'annotations' / f'instances_{split}.json'
        content = json.loads(path.read_text())
        name = change(content)
        path.write_text(json.dumps(content))
        return name

    def cut(self, path, number):
        """Leave the last bytes of a file out."""
        content = path.read_bytes()
        assert content[:2] != b'\xff\xd8' or content[-2:] == b'\xff\xd9'
        path.write_bytes(content[:-number] if number else b'')
        return path.name

    def redraw(self, path, change):
        """Change the values of a label map."""
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(path), change(labels))
        return path.name


_config = functools.cache(Config.fromfile)


def on_copy(root, folder, name, classes, void=None):
    """A config of the demo on a folder.

    Args:
        root (Path): The project.
        folder (Path): The data.
        name (str): 'mask_rcnn' or 'upernet'.
        classes (Sequence[str]): Names of classes.
        void (int | None): What label maps hold where there is no label;
            None if that is 0 and the first class is 1.
    """
    cfg = copy.deepcopy(_config(root / 'demo' / f'{name}.py'))
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(folder)
        dataset.metainfo = dict(classes=tuple(classes))
        if void is not None:
            dataset.reduce_zero_label = False
            _transform(dataset).pop('reduce_zero_label')
    model = cfg.model
    if name == 'upernet':
        for head in (model.decode_head, model.auxiliary_head):
            head.num_classes = len(classes)
        if void is not None:
            for head in (model.decode_head, model.auxiliary_head):
                head.ignore_index = void
            model.data_preprocessor.seg_pad_val = void
            cfg.val_evaluator.ignore_index = void
    else:
        for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
            head.num_classes = len(classes)
        cfg.val_evaluator.ann_file = str(
            folder / 'annotations' / 'instances_val.json')
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    return Data(folder, cfg, len(classes))


class Fault(NamedTuple):
    """A fault and what is said of it.

    Attributes:
        plant (Callable): Plants it in Data; gives a part of the name that
            is to be reported.
        kind (str): The kind of finding.
        error (bool): Whether that is an error. Default: True.
        split (str): Where it is reported. Default: 'train'.
        needs (int): Classes that the data must have. Default: 1.
    """

    plant: Any
    kind: str
    error: bool = True
    split: str = 'train'
    needs: int = 1


def _set(**values):
    """Set values of an annotation."""
    return lambda data: data.change_entry(
        lambda entry, image: entry.update(values))


def _box(make, area=100):
    return lambda data: data.change_entry(lambda entry, image: entry.update(
        bbox=make(image['width'], image['height']), area=area))


def _corners(data):
    def change(content):
        for entry in content['annotations']:
            x, y, w, h = entry['bbox']
            entry['bbox'] = [x, y, x + w, y + h]
        return 'annotation'

    return data.change(change)


def _polygon(make):
    return lambda data: data.change_entry(lambda entry, image: entry.update(
        segmentation=make(image['width'], image['height'])))


def _misspell(data):
    classes = data.train.metainfo.classes
    data.train.metainfo.classes = ('sqare', *classes[1:])
    return 'sqare'


def _reorder(data):
    data.train.metainfo.classes = tuple(reversed(data.train.metainfo.classes))
    return data.train.metainfo.classes[-1]


def _count(head):
    def plant(data):
        node = data.cfg.model
        for key in head.split('.'):
            node = node[key]
        node.num_classes = data.number + 1
        return head

    return plant


def _leave_out_count(data):
    # 80 by default.
    data.cfg.model.roi_head.mask_head.pop('num_classes')
    return 'roi_head.mask_head'


def _remove_image(data):
    path = data.image()
    path.unlink()
    return path.name


def _replace_image(data):
    path = data.image()
    path.write_text('<html>404 Not Found</html>')
    return path.name


def _image_size(data):
    def change(content):
        name = data.image().name
        image, = (one for one in content['images']
                  if one['file_name'] == name)
        # Also of an image that has the same sides.
        image['width'] += 7
        return name

    # Masks of run lengths would not fit either.
    def drop(content):
        entries = content['annotations']
        content['annotations'] = [
            one for one in entries if isinstance(one['segmentation'], list)
        ] or entries

    data.change(drop)
    return data.change(change)


def _repeat(key, field, kind):
    """An entry of a list has the value of the one before it."""
    def change(content):
        entries = content[key]
        entries[-1][field] = entries[-2][field]
        return str(entries[-1][field])

    return lambda data: data.change(change)


def _repeat_category(field):
    def change(content):
        content['categories'].append(dict(content['categories'][0]))
        content['categories'][-1][
            'id' if field == 'name' else 'name'] = 77
        return str(content['categories'][0][field])

    return lambda data: data.change(change)


def _empty_most(data):
    def change(content):
        entry = data.entry(content)
        content['annotations'] = [entry]
        return next(one['file_name'] for one in content['images']
                    if one['id'] != entry['image_id'])

    return data.change(change)


def _empty_all(data):
    data.change(lambda content: content['annotations'].clear())
    return ''


def _small(data):
    def change(content):
        image = next(one for one in content['images']
                     if one['file_name'] == data.image().name)
        data.train.filter_cfg.min_size = min(image['width'],
                                             image['height']) + 1
        return image['file_name']

    return data.change(change)


def _lose_class(data):
    name = data.train.metainfo.classes[0]

    def change(content):
        lost, = (one['id'] for one in content['categories']
                 if one['name'] == name)
        content['annotations'] = [one for one in content['annotations']
                                  if one['category_id'] != lost]

    data.change(change)
    return name


def _drop_category(data):
    first, *others = data.train.metainfo.classes
    for dataset in (data.train, data.cfg.val_dataloader.dataset):
        dataset.metainfo.classes = tuple(others)
    for head in (data.cfg.model.roi_head.bbox_head,
                 data.cfg.model.roi_head.mask_head):
        head.num_classes -= 1
    return first


def _share_path(data):
    name = data.image().name

    def change(content):
        content['images'][0]['file_name'] = f'../train/{name}'

    data.change(change, 'val')
    return name


def _share_content(data):
    val = data.image('val')
    val.write_bytes(data.image().read_bytes())
    return val.name


def _share_all(data):
    data.cfg.val_dataloader.dataset.update(
        {key: data.train[key] for key in ('ann_file', 'data_prefix')
         if key in data.train})
    return data.image().name


def _text(data):
    path = data.folder / 'annotations' / 'instances_train.json'
    path.write_bytes(path.read_bytes()[:-1000])
    return path.name


COCO = {
    'class name': Fault(_misspell, 'class name without category'),
    'class order': Fault(_reorder, 'order of classes', needs=2),
    'class left out': Fault(
        _drop_category, 'category that is no class', False, needs=2),
    'count of box head': Fault(
        _count('roi_head.bbox_head'), 'class count of a head'),
    'count of mask head': Fault(
        _count('roi_head.mask_head'), 'class count of a head'),
    'count by default': Fault(_leave_out_count, 'class count of a head'),
    'truncated json': Fault(_text, 'not a COCO file'),
    'missing image': Fault(_remove_image, 'missing image'),
    'half a jpeg': Fault(
        lambda data: data.cut(
            data.image(), data.image().stat().st_size // 2),
        'undecodable image'),
    'jpeg without end': Fault(
        lambda data: data.cut(data.image(), 2), 'undecodable image'),
    'empty image file': Fault(
        lambda data: data.cut(data.image(), 0), 'undecodable image'),
    'text as image': Fault(_replace_image, 'undecodable image'),
    'size in json': Fault(_image_size, 'image of another size'),
    'no bbox': Fault(_set(bbox=None), 'malformed annotation'),
    'three numbers as bbox': Fault(
        _set(bbox=[1, 2, 3]), 'malformed annotation'),
    'corners as boxes': Fault(_corners, 'box partly outside'),
    'nan in box': Fault(
        _set(bbox=[1., float('nan'), 2., 3.]), 'box of NaN', False),
    'negative box': Fault(
        _box(lambda w, h: [20, 20, -10, 10]), 'box of negative size', False),
    'empty box': Fault(
        _box(lambda w, h: [20, 20, 0, 10]), 'empty box', False),
    'zero area': Fault(
        _box(lambda w, h: [20, 20, 9, 9], area=0), 'empty box', False),
    'box outside': Fault(
        _box(lambda w, h: [w + 5, 10, 10, 10]), 'box outside', False),
    'box partly outside': Fault(
        _box(lambda w, h: [w - 20, 10, 40, 10]), 'box partly outside',
        False),
    'no mask': Fault(_polygon(lambda w, h: []), 'missing mask'),
    'polygon of two points': Fault(
        _polygon(lambda w, h: [[1, 1, 9, 9]]), 'malformed mask', False),
    'polygon of odd length': Fault(
        _polygon(lambda w, h: [[1, 1, 9, 9, 1, 9, 4]]), 'malformed mask',
        False),
    'polygon outside': Fault(
        _polygon(lambda w, h: [[w + 1, 1, w + 9, 1, w + 9, 9]]),
        'mask outside', False),
    'polygon partly outside': Fault(
        _polygon(lambda w, h: [[1, 1, w + 9, 1, w + 9, 9]]),
        'mask partly outside', False),
    'part of a polygon': Fault(
        _polygon(lambda w, h: [[1, 1, 9, 1, 9, 9], [1, 1, 2, 2]]),
        'malformed part of a mask', False),
    'polygon of points': Fault(
        _polygon(lambda w, h: [[[x, x] for x in range(6)]]),
        'unreadable mask'),
    'rle of another size': Fault(
        _polygon(lambda w, h: dict(size=[1, h * w], counts=[h * w])),
        'mask of another size'),
    'rle of another length': Fault(
        _polygon(lambda w, h: dict(size=[h, w], counts=[3, 4])),
        'unreadable mask'),
    'no such image id': Fault(
        _set(image_id=987654), 'annotation of no image', False),
    'no such category': Fault(
        _set(category_id=987), 'unknown category id', False),
    'image id twice': Fault(
        _repeat('images', 'id', 'image'), 'duplicate image id'),
    'file name twice': Fault(
        _repeat('images', 'file_name', 'name'), 'duplicate file name', False),
    'annotation id twice': Fault(
        _repeat('annotations', 'id', 'annotation'),
        'duplicate annotation id'),
    'category name twice': Fault(
        _repeat_category('name'), 'duplicate category name'),
    'category id twice': Fault(
        _repeat_category('id'), 'duplicate category id'),
    'most images empty': Fault(
        _empty_most, 'images without ground truth', False),
    'all images empty': Fault(_empty_all, 'images without ground truth'),
    'small image': Fault(_small, 'small images', False),
    'class without box': Fault(
        _lose_class, 'class without example', False, needs=2),
    'same path': Fault(
        _share_path, 'overlap of train and val', False, 'val'),
    'same content': Fault(
        _share_content, 'overlap of train and val', False, 'val'),
    'all the same': Fault(
        _share_all, 'overlap of train and val', False, 'val'),
}


def _remove_label(data):
    path = data.label()
    path.unlink()
    return path.name


def _leave_label_alone(data):
    path = data.image()
    path.unlink()
    return f'{path.stem}.png'


def _label(value, dtype=None):
    """A corner of a label map gets a value."""
    def change(labels):
        labels = labels.astype(dtype or labels.dtype)
        labels[:9, :9] = value
        return labels

    return lambda data: data.redraw(data.label(), change)


def _above(data):
    return _label(data.number + 3)(data)


def _transform(dataset):
    return next(one for one in dataset.pipeline
                if one.type == 'LoadAnnotations')


def _reduce_by_transform(data):
    _transform(data.train).reduce_zero_label = not data.train.get(
        'reduce_zero_label')
    return 'train_dataloader.dataset'


def _reduce_wrongly(data):
    """0 is the first class in the files, and 255 is unlabelled."""
    for path in data.labels():
        data.redraw(path, lambda labels: np.where(
            labels >= data.number, 255, labels).astype('uint8') if (
                not data.train.reduce_zero_label) else labels - 1)
    data.train.reduce_zero_label = True
    _transform(data.train).reduce_zero_label = True
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.ignore_index = 255
    data.cfg.model.data_preprocessor.seg_pad_val = 255
    return 'train_dataloader.dataset'


def _do_not_reduce(data):
    """1 is the first class in the files, and 0 is unlabelled."""
    if not data.train.reduce_zero_label:
        for path in data.labels():
            data.redraw(path, lambda labels: np.where(
                labels >= data.number, 0, labels + 1).astype('uint8'))
    data.train.reduce_zero_label = False
    _transform(data.train).reduce_zero_label = False
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.ignore_index = 255
    data.cfg.model.data_preprocessor.seg_pad_val = 255
    return '.png'


def _ignore_another(data):
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.ignore_index = 254
    data.cfg.model.data_preprocessor.seg_pad_val = 254
    return '.png'


def _ignore_another_in_val(data):
    data.cfg.val_evaluator.ignore_index = 254
    return '.png'


def _pad_another(data):
    data.cfg.model.data_preprocessor.seg_pad_val = 254
    return 'ignore_index'


def _list(data):
    """A list names an image that is not there."""
    stems = [path.stem for path in data.images()] + ['gone']
    (data.folder / 'train.txt').write_text('\n'.join(stems))
    data.train.ann_file = 'train.txt'
    return 'gone.jpg'


def _list_twice(data):
    stems = [path.stem for path in data.images()]
    (data.folder / 'train.txt').write_text('\n'.join([*stems, stems[1]]))
    data.train.ann_file = 'train.txt'
    return stems[1]


def _share_content_of_labels(data):
    train, val = data.images()[data.seed], data.images('val')[data.seed]
    val.write_bytes(train.read_bytes())
    return val.name


def _void(data):
    void = 0 if data.train.reduce_zero_label else (
        data.cfg.model.decode_head.ignore_index)
    return data.redraw(data.label(), lambda labels: labels * 0 + void)


def _lose_label(data):
    first = int(data.train.reduce_zero_label)
    for path in data.labels():
        data.redraw(path, lambda labels: np.where(
            labels == first, first + 1, labels).astype('uint8'))
    return data.train.metainfo.classes[0]


def _foreign(data):
    data.train.type = 'ADE20KDataset'
    return data.train.metainfo.classes[-1]


LABEL_MAPS = {
    'count of decode head': Fault(
        _count('decode_head'), 'class count of a head'),
    'count of auxiliary head': Fault(
        _count('auxiliary_head'), 'class count of a head'),
    'foreign class': Fault(_foreign, 'class name that the data set has not'),
    'missing label map': Fault(_remove_label, 'missing label map'),
    'label map alone': Fault(
        _leave_label_alone, 'label map without image', False),
    'missing image of a list': Fault(_list, 'missing image'),
    'name twice in a list': Fault(_list_twice, 'duplicate file name', False),
    'half a jpeg': COCO['half a jpeg'],
    'jpeg without end': COCO['jpeg without end'],
    'half a png': Fault(
        lambda data: data.cut(
            data.label(), data.label().stat().st_size // 2),
        'undecodable label map'),
    'png without end': Fault(
        lambda data: data.cut(data.label(), 12), 'undecodable label map'),
    'label map in color': Fault(
        lambda data: data.redraw(
            data.label(), lambda labels: np.stack([labels] * 3, -1)),
        'label map in color'),
    'label map of another size': Fault(
        lambda data: data.redraw(
            data.label(), lambda labels: labels[:-1]),
        'label map of another size'),
    'label too high': Fault(_above, 'label out of range'),
    'label of 16 bits': Fault(_label(300, 'uint16'), 'label out of range'),
    'ignore index': Fault(_ignore_another, 'label out of range'),
    'ignore index of the metric': Fault(
        _ignore_another_in_val, 'label out of range', split='val'),
    'padding': Fault(_pad_another, 'padding that is no label', False),
    'data set and transform': Fault(
        _reduce_by_transform, 'reduce_zero_label'),
    'zero is a class': Fault(_reduce_wrongly, 'reduce_zero_label'),
    'zero is no class': Fault(_do_not_reduce, 'label out of range'),
    'empty label map': Fault(_void, 'images without ground truth', False),
    'class without pixel': Fault(
        _lose_label, 'class without example', False),
    'same content': Fault(
        _share_content_of_labels, 'overlap of train and val', False, 'val'),
    'all the same': Fault(
        _share_all, 'overlap of train and val', False, 'val'),
}
FAULTS = [('mask_rcnn', name) for name in COCO] + [
    ('upernet', name) for name in LABEL_MAPS]


def fault(model, name):
    return (COCO if model == 'mask_rcnn' else LABEL_MAPS)[name]
