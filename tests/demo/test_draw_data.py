"""Drawn data has the right classes, sizes and occlusion."""

import json

import cv2
import numpy as np


def test_boxes_masks_and_labels_agree(drawn_data):
    from pycocotools.coco import COCO

    coco = COCO(drawn_data / 'annotations' / 'instances_train.json')
    assert len(coco.imgs) == 8 and len(coco.anns) > 15
    for entry in coco.anns.values():
        mask = coco.annToMask(entry).astype(bool)
        y, x = np.nonzero(mask)
        box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert box == entry['bbox'] and mask.sum() == entry['area']
        label = cv2.imread(
            str(drawn_data / 'annotations' / 'train' /
                f'{entry["image_id"]:04d}.png'), cv2.IMREAD_UNCHANGED)
        # Label maps: 0 unlabeled, 1 and 2 the grounds, then the shapes.
        assert (label[mask] == entry['category_id'] + 2).all()


def test_same_seed_same_data(drawn_data, run_python, tmp_path):
    run_python('demo/draw_data.py', tmp_path, '--train', 8, '--val', 4)
    for split in ('train', 'val'):
        name = f'annotations/instances_{split}.json'
        assert json.loads((tmp_path / name).read_text()) == json.loads(
            (drawn_data / name).read_text())


def test_labels_cover_all_classes_and_have_unlabeled_pixels(drawn_data):
    labels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
              for path in (drawn_data / 'annotations' / 'train').iterdir()]
    assert set(np.unique(labels)) == set(range(8))
