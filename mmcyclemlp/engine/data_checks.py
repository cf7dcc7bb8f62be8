"""Data that is missing or named wrongly, found before a run starts.

mm drops the ground truth of categories it does not find, and answers a class
count that does not fit in the middle of a step.
"""

import inspect
import json
import os.path as osp
from functools import cache
from pathlib import Path

from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from .errors import UserError


def check_data(cfg, splits):
    """Check the data that a run will read, its class names and counts.

    Args:
        cfg (Config): Config of mmdet or mmseg with ``default_scope``.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.

    Raises:
        UserError: A file or folder is missing, class names are not those
            of the annotations, or a head has another number of classes.
    """
    scope = cfg.get('default_scope', 'mmengine')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        for split in splits:
            loader = cfg.get(f'{split}_dataloader')
            if loader is None:
                continue
            for dataset in _leaves(loader.dataset):
                classes = _check_dataset(dataset, split, registry)
                if classes is not None:
                    _check_heads(cfg.model, len(classes), classes, split)
            evaluators = cfg.get(f'{split}_evaluator') or []
            for evaluator in (evaluators if isinstance(
                    evaluators, (list, tuple)) else [evaluators]):
                if evaluator.get('ann_file'):
                    _check_exists(evaluator['ann_file'],
                                  f'{split}_evaluator.ann_file')


def _leaves(dataset):
    """Datasets inside wrappers such as ConcatDataset."""
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        return [dataset]
    inner = inner if isinstance(inner, (list, tuple)) else [inner]
    return [leaf for one in inner for leaf in _leaves(one)]


def _check_exists(path, option):
    if '://' not in path and not osp.exists(path):
        raise UserError(
            f'{option} names {path}, which does not exist: put the data '
            f'there or set {option} (and data_root)')


def _check_dataset(dataset, split, registry):
    """Check files and class names; give the classes where known."""
    kind = registry.get(dataset['type'])
    if kind is None:
        raise UserError(
            f"{split}_dataloader.dataset.type is '{dataset['type']}', which "
            'no installed library knows: check the name and custom_imports')
    metainfo = getattr(kind, 'METAINFO', {})
    classes = (dataset.get('metainfo') or {}).get(
        'classes', metainfo.get('classes'))
    if isinstance(classes, str):
        if osp.isfile(classes):
            classes = list_from_file(classes)
        else:
            raise UserError(
                f'metainfo.classes of {split}_dataloader is the text '
                f"'{classes}': write a tuple of names, ('{classes}', ), or "
                'an existing file with a name a line')
    option = f'{split}_dataloader.dataset'
    root = dataset.get('data_root') or ''
    if root:
        _check_exists(root, f'{option}.data_root')
    ann_file = osp.join(root, dataset.get('ann_file') or '')
    if dataset.get('ann_file'):
        _check_exists(ann_file, f'{option}.ann_file')
    folders = {}
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if prefix is not None:
            folders[name] = osp.join(root, prefix)
            _check_exists(folders[name], f'{option}.data_prefix.{name}')

    names = {base.__name__ for base in kind.__mro__}
    if 'CocoDataset' in names and dataset.get('ann_file'):
        _check_coco(ann_file, classes, option)
    if 'BaseSegDataset' in names:
        foreign = set(classes or ()) - set(metainfo.get('classes', classes)
                                           or ())
        if foreign:
            raise UserError(
                f'{option}.metainfo.classes has {_some(sorted(foreign))}, '
                f"which {dataset['type']} does not have: it takes a choice "
                "of its own classes; use type='BaseSegDataset' for others")
    if 'BaseSegDataset' in names and not dataset.get('ann_file'):
        _check_label_files(folders, dataset, metainfo, kind, option)
    return classes


@cache
def _coco_categories(ann_file):
    """Category names of a COCO file, and whether it has images."""
    try:
        with open(ann_file, encoding='utf-8') as file:
            content = json.load(file)
        categories = tuple(one['name'] for one in content['categories'])
        return categories, bool(content['images'])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{ann_file} is not a COCO annotation file '
            f'({type(error).__name__}: {error})') from error


def _check_coco(ann_file, classes, option):
    categories, has_images = _coco_categories(ann_file)
    if not has_images:
        raise UserError(f'{ann_file} lists no images')
    absent = [name for name in classes or () if name not in categories]
    if absent:
        raise UserError(
            f'{ann_file} has no categories {_some(absent)}; it has '
            f'{_some(categories)}. Without a match mmdet would drop their '
            f'ground truth: set {option}.metainfo=dict(classes=...) to the '
            'names in the file')


def _check_label_files(folders, dataset, metainfo, kind, option):
    """Every image of a folder has a label map."""
    images, labels = folders.get('img_path'), folders.get('seg_map_path')
    if images is None:
        return
    defaults = _init_defaults(kind)
    img_suffix = dataset.get('img_suffix', defaults['img_suffix'])
    seg_suffix = dataset.get('seg_map_suffix', defaults['seg_map_suffix'])
    stems = _stems(images, img_suffix)
    if not stems:
        raise UserError(
            f'{images} has no image that ends in {img_suffix}: set '
            f'{option}.img_suffix')
    if labels is not None:
        lacking = sorted(stems - _stems(labels, seg_suffix))
        if lacking:
            raise UserError(
                f'{osp.join(labels, lacking[0] + seg_suffix)} does not '
                f'exist: {len(lacking)} of {len(stems)} images have no '
                f'label map; check {option}.seg_map_suffix')


def _init_defaults(kind):
    """Default arguments of a constructor, its parents' where not its own."""
    defaults = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base):
            for name, parameter in inspect.signature(
                    base.__init__).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def _stems(folder, suffix):
    return {
        path.relative_to(folder).as_posix()[:-len(suffix)]
        for path in Path(folder).rglob(f'*{suffix}')
    }


def _check_heads(model, num_classes, classes, split):
    for name, head in _heads(model, 'model'):
        if head['num_classes'] != num_classes:
            raise UserError(
                f'{name}.num_classes is {head["num_classes"]}, but the '
                f'{split} data has {num_classes} classes ({_some(classes)}): '
                'make them equal')


_HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')


def _heads(node, name):
    """Every head below ``node`` that counts classes, with its name."""
    if isinstance(node, dict):
        kind = name.split('.')[-1].split('[')[0]
        if kind in _HEADS and 'num_classes' in node and (
                not node.get('class_agnostic')):
            yield name, node
        for key, value in node.items():
            yield from _heads(value, f'{name}.{key}')
    elif isinstance(node, (list, tuple)):
        for place, value in enumerate(node):
            yield from _heads(value, f'{name}[{place}]')


def _some(names):
    names = [str(name) for name in names]
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
