"""Data of classifiers: a folder a class, or a list of names and labels."""

import os
import os.path as osp

from mmengine.fileio import list_from_file

from ..backbones import CycleNet
from .findings import Finding, some
from .images import Sample, absent
from .sources import check_exists, evaluators, init_defaults


def check_classifier(cfg, splits):
    """Check what a classifier and its metrics say of the classes.

    Yields:
        Finding: What is wrong.
    """
    number, option = count_of_classes(cfg.model)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    if preprocessor.get('num_classes', number) != number:
        yield Finding(
            'class count of a head',
            f'data_preprocessor.num_classes is {preprocessor.num_classes}, '
            f'but {option} is {number}: make them equal',
            ('data_preprocessor', ))
    for split in splits:
        for evaluator in evaluators(cfg, split):
            topk = evaluator.get('topk', 1)
            highest = max(topk) if isinstance(topk, (list, tuple)) else topk
            if evaluator.get('type') == 'Accuracy' and highest > number:
                yield Finding(
                    'metric of more classes',
                    f'{split}_evaluator.topk asks for top-{highest} of '
                    f'{number} classes: set {split}_evaluator.topk=1',
                    (f'{split}_evaluator', ), split=split)


def count_of_classes(model):
    """How many classes a classifier tells apart, and where that is said."""
    backbone, head = model.get('backbone') or {}, model.get('head') or {}
    if backbone.get('fork_feat', True):
        return head.get('num_classes'), 'model.head.num_classes'
    default = init_defaults(CycleNet)['num_classes']
    return (backbone.get('num_classes', default),
            'model.backbone.num_classes')


def check_labelled(source, number, option, known, whole):
    """Check a data set of mmpretrain's CustomDataset kind.

    Args:
        source (Source): The data set.
        number (int): Classes that the model has.
        option (str): Where it says so.
        known (dict): Names of class folders by folder, of the data sets
            before this one; the data set's is added.
        whole (bool): Whether to list all images of class folders, or one of
            each.

    Yields:
        Finding: What is wrong.

    Returns:
        list[Sample]: Its images.
    """
    unlabelled = not source.config.get('with_label', True) or (
        source.is_a('ImageNet') and source.config.get('split') == 'test')
    if not source.is_a('CustomDataset') or unlabelled:
        return []
    names = yield from _class_names(source, number, option)
    if source.remote:
        return []
    folder, ann_file = _places(source)
    missing = list(check_exists(folder, f'{source.option}.data_prefix'))
    if ann_file:
        missing += check_exists(ann_file, f'{source.option}.ann_file')
    if missing:
        yield from missing
        return []
    if ann_file:
        return (yield from _check_list(source, ann_file, folder, number,
                                       option))
    folders, samples = yield from _check_class_folders(
        source, folder, number, option, whole)
    yield from _compare_folders(source, folder, folders, names, known)
    known[folder] = folders
    return samples


def _class_names(source, number, option):
    """Class names that the config gives, and whether they are enough."""
    names = source.config.get('classes') or source.classes
    if isinstance(names, str):
        missing = list(check_exists(names, f'{source.option}.classes'))
        yield from missing
        names = None if missing else list_from_file(names)
    if names and len(names) != number:
        yield Finding(
            'class count of a head',
            f'{source.option} of type {source.config["type"]} has '
            f'{len(names)} class names ({some(names)}), but {option} is '
            f"{number}: make them equal; type='CustomDataset' has none of "
            'its own', (source.option, ))
    return names


def _places(source):
    """The folder of the images, and the list of them, '' if there is none."""
    config = source.config
    prefix = config.get('data_prefix') or config.get('split') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path') or ''
    ann_file = config.get('ann_file') or ''
    if not ann_file and config.get('split'):
        # Where ImageNet looks for one.
        listed = osp.join('meta', f'{config["split"]}.txt')
        ann_file = listed if osp.exists(source.below_root(listed)) else ''
    return osp.expanduser(source.below_root(prefix)), ann_file and (
        osp.expanduser(source.below_root(ann_file)))


def _compare_folders(source, folder, folders, names, known):
    """Class folders number the labels, in the same order everywhere."""
    if names and list(names) != folders and set(names) == set(folders):
        yield Finding(
            'order of classes',
            f'{source.option}: labels number the folders in sorted order '
            f'({some(folders)}): give the class names in that order',
            (source.option, ))
    other = next((one for one in known if known[one] != folders), None)
    if other is not None:
        odd = sorted(set(folders) ^ set(known[other]))
        yield Finding(
            'class folders that differ',
            f'{folder} and {other} have not the same class folders '
            f'({some(odd)} in one alone), so that a label would mean '
            'different classes: make them the same', odd)


def _check_list(source, ann_file, folder, number, option):
    """Every line is an image that exists and a label that the model has."""
    try:
        lines = list_from_file(ann_file)
    except UnicodeDecodeError as error:
        yield Finding('malformed list', f'{ann_file} is no text in UTF-8: '
                      f'{error}', (ann_file, ))
        return []
    paths, malformed, beyond = [], [], []
    for place, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.lstrip('-').isdecimal():
            malformed.append((place, line))
            continue
        if not 0 <= int(label) < number:
            beyond.append((place, label))
        paths.append(osp.join(folder, name))
    if malformed:
        place, line = malformed[0]
        yield Finding(
            'malformed list',
            f"{ann_file}, line {place}: '{line}' is not the name of an "
            f'image, a blank and a label: {len(malformed)} of {len(lines)} '
            'lines', [f'line {place}' for place, _ in malformed])
    if beyond:
        place, label = beyond[0]
        yield Finding(
            'label out of range',
            f'{ann_file}, line {place}: label {label} is none of 0 to '
            f'{number - 1}, which {option}={number} allows: {len(beyond)} of '
            f'{len(lines)} lines', [f'line {place}' for place, _ in beyond])
    if not lines:
        yield Finding('no images', f'{ann_file} lists no images',
                      (ann_file, ))
    paths = source.subset(paths)
    lacking = absent(paths)
    if lacking:
        yield Finding(
            'missing image',
            f"'{lacking[0]}' does not exist: {len(lacking)} "
            f'of {len(paths)} images that {ann_file} lists are not there',
            lacking)
    gone = set(lacking)
    return [Sample(path) for path in paths if path not in gone]


def _check_class_folders(source, folder, number, option, whole):
    """One folder a class, none of them empty; give names and samples."""
    extensions = tuple(
        source.config.get('extensions') or init_defaults(source.kind).get(
            'extensions') or source.kind.IMG_EXTENSIONS)
    folders = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir())
    if len(folders) != number:
        yield Finding(
            'class folders',
            f'{folder} has {len(folders)} class folders ({some(folders)}), '
            f'but {option} is {number}: make them equal' if folders else
            f'{folder} has no class folders: set {source.option}.ann_file to '
            'a list of its images, "name label" a line', (folder, ))
    samples, empty = [], []
    for name in folders:
        images = _images(osp.join(folder, name), extensions)
        found = [Sample(path) for path in
                 (images if whole else [next(images, None)]) if path]
        samples.extend(found)
        if not found:
            empty.append(name)
    if empty:
        yield Finding(
            'class without example',
            f'{osp.join(folder, empty[0])} has no image '
            f'({", ".join(sorted(extensions))}): {len(empty)} of '
            f'{len(folders)} class folders are empty', empty)
    return folders, samples


def _images(folder, extensions):
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if name.lower().endswith(extensions):
                yield osp.join(place, name)
