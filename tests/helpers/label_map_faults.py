"""Faults of label maps and segmentors, and the findings that report them."""

import numpy as np

from .spoiled_data import (
    HALF_A_JPEG,
    JPEG_WITHOUT_END,
    Fault,
    count,
    load_annotations,
)


def _remove_label(data):
    path = data.label()
    path.unlink()
    return path.name


def _leave_label_alone(data):
    path = data.image()
    path.unlink()
    return f'{path.stem}.png'


def _label(value, dtype=None):
    """Return a function that plants a value in a corner of a label map."""
    def change(labels):
        labels = labels.astype(dtype or labels.dtype)
        labels[:9, :9] = value
        return labels

    return lambda data: data.redraw(data.label(), change)


def _above(data):
    return _label(data.number + 3)(data)


def _reduce_by_transform(data):
    load_annotations(data.train).reduce_zero_label = not data.train.get(
        'reduce_zero_label')
    return 'train_dataloader.dataset'


def _reduce_wrongly(data):
    """Make 0 the first class in the files, and 255 unlabeled."""
    for path in data.labels():
        data.redraw(path, lambda labels: np.where(
            labels >= data.number, 255, labels).astype('uint8') if (
                not data.train.reduce_zero_label) else labels - 1)
    data.train.reduce_zero_label = True
    load_annotations(data.train).reduce_zero_label = True
    for head in (data.cfg.model.decode_head, data.cfg.model.auxiliary_head):
        head.ignore_index = 255
    data.cfg.model.data_preprocessor.seg_pad_val = 255
    return 'train_dataloader.dataset'


def _do_not_reduce(data):
    """Make 1 the first class in the files, and 0 unlabeled."""
    if not data.train.reduce_zero_label:
        for path in data.labels():
            data.redraw(path, lambda labels: np.where(
                labels >= data.number, 0, labels + 1).astype('uint8'))
    data.train.reduce_zero_label = False
    load_annotations(data.train).reduce_zero_label = False
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
    """Plant the name of a missing image in a list."""
    stems = [path.stem for path in data.images()] + ['gone']
    (data.folder / 'train.txt').write_text('\n'.join(stems))
    data.train.ann_file = 'train.txt'
    return 'gone.jpg'


def _list_twice(data):
    stems = [path.stem for path in data.images()]
    (data.folder / 'train.txt').write_text('\n'.join([*stems, stems[1]]))
    data.train.ann_file = 'train.txt'
    return stems[1]


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
        count('decode_head'), 'class count of a head'),
    'count of auxiliary head': Fault(
        count('auxiliary_head'), 'class count of a head'),
    'foreign class': Fault(
        _foreign, 'class name that the data set does not have'),
    'missing label map': Fault(_remove_label, 'missing label map'),
    'label map alone': Fault(
        _leave_label_alone, 'label map without image', False),
    'missing image of a list': Fault(_list, 'missing image'),
    'name twice in a list': Fault(_list_twice, 'duplicate file name', False),
    'half a jpeg': HALF_A_JPEG,
    'jpeg without end': JPEG_WITHOUT_END,
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
    'padding': Fault(_pad_another, 'padding that is not a label', False),
    'data set and transform': Fault(
        _reduce_by_transform, 'pipeline that fails'),
    'zero is a class': Fault(_reduce_wrongly, 'reduce_zero_label'),
    'zero is no class': Fault(_do_not_reduce, 'label out of range'),
    'empty label map': Fault(_void, 'images without ground truth', False),
    'class without pixel': Fault(
        _lose_label, 'class without example', False),
}
