"""Data that is missing or named wrongly, found before a run starts.

mm drops the ground truth of categories it does not find, and answers a class
count that does not fit in the middle of a step.
"""

import inspect
import json
import os
import os.path as osp
from functools import cache
from pathlib import Path

from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from ..backbones import CycleNet
from .errors import UserError


def check_data(cfg, splits):
    """Check the data that a run will read, its class names and counts.

    Args:
        cfg (Config): Config of mmdet, mmseg or mmpretrain, which its
            ``default_scope`` says.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.

    Raises:
        UserError: A file or folder is missing, class names are not those
            of the annotations, or a head has another number of classes.
    """
    scope = cfg.get('default_scope', 'mmengine')
    if scope == 'mmpretrain':
        _check_classification(cfg, splits)
        return
    with DATASETS.switch_scope_and_registry(scope) as registry:
        for split in splits:
            loader = cfg.get(f'{split}_dataloader')
            if loader is None:
                continue
            for dataset in _leaves(loader.dataset):
                classes = _check_dataset(dataset, split, registry)
                if classes is not None:
                    _check_heads(cfg.model, len(classes), classes, split)
            for evaluator in _evaluators(cfg, split):
                if evaluator.get('ann_file'):
                    _check_exists(evaluator['ann_file'],
                                  f'{split}_evaluator.ann_file')


def _evaluators(cfg, split):
    evaluators = cfg.get(f'{split}_evaluator') or []
    return (evaluators if isinstance(evaluators, (list, tuple))
            else [evaluators])


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
    kind = _kind(dataset, split, registry)
    metainfo = getattr(kind, 'METAINFO', {})
    classes = _class_names(dataset, split, metainfo)
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


def _kind(dataset, split, registry):
    """Class of a dataset."""
    kind = registry.get(dataset['type'])
    if kind is None:
        raise UserError(
            f"{split}_dataloader.dataset.type is '{dataset['type']}', which "
            'no installed library knows: check the name and custom_imports')
    return kind


def _class_names(dataset, split, metainfo):
    """Names that the config gives, else those that the dataset has."""
    classes = (dataset.get('metainfo') or {}).get(
        'classes', metainfo.get('classes'))
    if isinstance(classes, str):
        if osp.isfile(classes):
            return list_from_file(classes)
        raise UserError(
            f'metainfo.classes of {split}_dataloader is the text '
            f"'{classes}': write a tuple of names, ('{classes}', ), or "
            'an existing file with a name a line')
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


def _check_classification(cfg, splits):
    """Data in a folder a class, or in a list of names and labels."""
    number, option = _count_of_classes(cfg.model)
    if number is None:
        return
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    if preprocessor.get('num_classes', number) != number:
        raise UserError(
            f'data_preprocessor.num_classes is {preprocessor.num_classes}, '
            f'but {option} is {number}: make them equal')
    known = {}
    with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
        for split in splits:
            loader = cfg.get(f'{split}_dataloader')
            for dataset in _leaves(loader.dataset) if loader else ():
                _check_labelled(dataset, split, registry, number, option,
                                known)
            for evaluator in _evaluators(cfg, split) if loader else ():
                topk = evaluator.get('topk', 1)
                highest = max(topk) if isinstance(topk, (list, tuple)) else (
                    topk)
                if evaluator.get('type') == 'Accuracy' and highest > number:
                    raise UserError(
                        f'{split}_evaluator.topk asks for top-{highest} of '
                        f'{number} classes: set {split}_evaluator.topk=1')


def _count_of_classes(model):
    """How many classes a classifier tells apart, and where that is said."""
    backbone, head = model.get('backbone') or {}, model.get('head') or {}
    if backbone.get('fork_feat', True):
        return head.get('num_classes'), 'model.head.num_classes'
    default = _init_defaults(CycleNet)['num_classes']
    return (backbone.get('num_classes', default),
            'model.backbone.num_classes')


def _check_labelled(dataset, split, registry, number, option, known):
    """Check a dataset of mmpretrain's CustomDataset kind.

    Args:
        number (int): Classes that the model has.
        option (str): Where it says so.
        known (dict): Names of class folders by folder, of the datasets
            before this one; the dataset's is added.
    """
    kind = _kind(dataset, split, registry)
    bases = {base.__name__ for base in kind.__mro__}
    unlabelled = not dataset.get('with_label', True) or (
        'ImageNet' in bases and dataset.get('split') == 'test')
    if 'CustomDataset' not in bases or unlabelled:
        return
    place = f'{split}_dataloader.dataset'
    names = dataset.get('classes') or _class_names(
        dataset, split, getattr(kind, 'METAINFO', {}))
    if isinstance(names, str):
        _check_exists(names, f'{place}.classes')
        names = list_from_file(names)
    if names and len(names) != number:
        raise UserError(
            f'{place} of type {dataset["type"]} has {len(names)} class names '
            f'({_some(names)}), but {option} is {number}: make them equal; '
            "type='CustomDataset' has none of its own")

    root = dataset.get('data_root') or ''
    if '://' in root:
        return
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path') or ''
    folder = osp.expanduser(osp.join(root, prefix))
    _check_exists(folder, f'{place}.data_prefix')
    ann_file = dataset.get('ann_file') or ''
    if not ann_file and dataset.get('split'):
        # Where ImageNet looks for one.
        listed = osp.join('meta', f'{dataset["split"]}.txt')
        ann_file = listed if osp.exists(osp.join(root, listed)) else ''
    if ann_file:
        ann_file = osp.expanduser(osp.join(root, ann_file))
        _check_exists(ann_file, f'{place}.ann_file')
        _check_list(ann_file, folder, number, option)
        return
    extensions = tuple(dataset.get('extensions') or _init_defaults(kind).get(
        'extensions') or kind.IMG_EXTENSIONS)
    folders = _check_class_folders(folder, extensions, number, option, place)
    if names and list(names) != folders and set(names) == set(folders):
        raise UserError(
            f'{place}: labels number the folders in sorted order '
            f'({_some(folders)}): give the class names in that order')
    for other, theirs in known.items():
        if theirs != folders:
            odd = sorted(set(folders) ^ set(theirs))
            raise UserError(
                f'{folder} and {other} have not the same class folders '
                f'({_some(odd)} in one alone), so that a label would mean '
                'different classes: make them the same')
    known[folder] = folders


def _check_list(ann_file, folder, number, option):
    """Every line is an image that exists and a label that the model has."""
    names = []
    try:
        lines = list_from_file(ann_file)
    except UnicodeDecodeError as error:
        raise UserError(f'{ann_file} is no text in UTF-8: {error}') from error
    for place, line in enumerate(lines, 1):
        parts = line.strip().rsplit(' ', 1)
        label = parts[-1]
        if len(parts) != 2 or not label.lstrip('-').isdecimal():
            raise UserError(
                f"{ann_file}, line {place}: '{line}' is not the name of an "
                'image, a blank and a label')
        if not 0 <= int(label) < number:
            raise UserError(
                f'{ann_file}, line {place}: label {label} is none of 0 to '
                f'{number - 1}, which {option}={number} allows')
        names.append(parts[0])
    if not names:
        raise UserError(f'{ann_file} lists no images')
    # Folders are read once: to ask for each image takes minutes.
    inside = {
        sub: set(os.listdir(osp.join(folder, sub)))
        if osp.isdir(osp.join(folder, sub)) else set()
        for sub in {osp.dirname(name) for name in names}
    }
    lacking = [name for name in names
               if osp.basename(name) not in inside[osp.dirname(name)]]
    if lacking:
        raise UserError(
            f"'{osp.join(folder, lacking[0])}' does not exist: {len(lacking)} "
            f'of {len(names)} images that {ann_file} lists are not there')


def _check_class_folders(folder, extensions, number, option, place):
    """One folder a class, none of them empty; give their names."""
    folders = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir())
    if len(folders) != number:
        raise UserError(
            f'{folder} has {len(folders)} class folders ({_some(folders)}), '
            f'but {option} is {number}: make them equal' if folders else
            f'{folder} has no class folders: set {place}.ann_file to a list '
            'of its images, "name label" a line')
    empty = [
        name for name in folders if not any(
            file.lower().endswith(extensions)
            for _, _, files in os.walk(osp.join(folder, name))
            for file in files)
    ]
    if empty:
        raise UserError(
            f'{osp.join(folder, empty[0])} has no image '
            f'({", ".join(sorted(extensions))}): {len(empty)} of '
            f'{len(folders)} class folders are empty')
    return folders


def _some(names):
    names = [str(name) for name in names]
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
