"""A copy of a data set that tests plant faults in.

The folder has the layout of demo/draw_data.py. It has drawn images, or real
photographs that were copied to that layout.
"""

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest
from mmengine.config import Config

from mmcyclemlp.data_checks import DataCheck, Look, check_data
from mmcyclemlp.errors import UserError


@dataclass
class Data:
    """A folder that a test may damage, and a config that reads it.

    Attributes:
        folder (Path): The folder.
        cfg (Config): The config.
        number (int): Number of classes.
        seed (int): Index of the image or label map to damage.
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
        """Return an image to damage; in a COCO file, one with boxes."""
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
        """Return an annotation to damage: the largest that is no crowd."""
        return max((one for one in content['annotations']
                    if not one['iscrowd']), key=lambda one: one['area'])

    def change_entry(self, change):
        """Change an annotation, and return its name."""
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
        """Remove the last bytes of a file."""
        content = path.read_bytes()
        assert content[:2] != b'\xff\xd8' or content[-2:] == b'\xff\xd9'
        path.write_bytes(content[:-number] if number else b'')
        return path.name

    def relabel(self, change):
        """Call a function with the path and values of each label map."""
        for path in self.labels():
            change(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))

    def redraw(self, path, change):
        """Change the values of a label map."""
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(path), change(labels))
        return path.name


_config = functools.cache(Config.fromfile)


def on_copy(root, folder, name, classes, void=None):
    """Return Data of a folder, with a config of the demo that reads it.

    Args:
        root (Path): The project.
        folder (Path): The data.
        name (str): 'mask_rcnn' or 'upernet'.
        classes (Sequence[str]): Names of classes.
        void (int | None): Value of pixels without label in label maps; None if
            that is 0 and the first class is 1.
    """
    cfg = copy.deepcopy(_config(root / 'demo' / f'{name}.py'))
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(folder)
        dataset.metainfo = dict(classes=tuple(classes))
        if void is not None:
            dataset.reduce_zero_label = False
            load_annotations(dataset).pop('reduce_zero_label')
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


def on_folder(root, name, folder):
    """Return a config of the demo whose three splits read a folder."""
    cfg = Config.fromfile(root / 'demo' / f'{name}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(folder)
    cfg.val_evaluator = cfg.test_evaluator = dict(
        cfg.val_evaluator,
        ann_file=str(folder / 'annotations' / 'instances_val.json'))
    return cfg


def refuse(cfg, message, splits=('train', 'val')):
    """Assert that the check before a run refuses with this message."""
    with pytest.raises(UserError, match=message) as caught:
        check_data(cfg, splits)
    for line in str(caught.value).split('\n')[1:]:
        assert line.startswith('error: ')


def check_train(data, workers=0):
    """Open all training data, and return the findings."""
    check = DataCheck(data.cfg, ('train', ), Look(workers=workers))
    found = check.run()
    assert check.numbers['train'] == (8, 8)
    return found


def errors(data):
    """Return the errors among these findings."""
    return [one for one in check_train(data) if one.error]


def load_annotations(dataset):
    """Return the LoadAnnotations of the pipeline of a data set."""
    return next(one for one in dataset.pipeline
                if one.type == 'LoadAnnotations')


class Fault(NamedTuple):
    """A fault and the finding that reports it.

    Attributes:
        plant (Callable): Plants it in Data, and returns a part of a name or
            message that must be reported.
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


def count(head):
    """Plant a wrong number of classes in a head."""
    def plant(data):
        node = data.cfg.model
        for key in head.split('.'):
            node = node[key]
        node.num_classes = data.number + 1
        return head

    return plant


HALF_A_JPEG = Fault(lambda data: data.cut(
    data.image(), data.image().stat().st_size // 2), 'undecodable image')
JPEG_WITHOUT_END = Fault(
    lambda data: data.cut(data.image(), 2), 'undecodable image')
