"""What the data set that mm builds has: images, label maps and boxes."""

import difflib
import os
import os.path as osp
from collections import Counter
from xml.etree import ElementTree

from mmengine.dataset import BaseDataset
from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS, TRANSFORMS

from ..engine.config_nodes import is_mm, name_of
from ..errors import describe
from .findings import Finding, some
from .images import Sample, absent
from .sources import init_defaults


def build(source, scope):
    """Build a data set as mm does.

    Args:
        source (Source): What the config says of it.
        scope (str): Of the registry.

    Yields:
        Finding: Why it cannot be built, or not be checked.

    Returns:
        BaseDataset | None: The data set.
    """
    config = dict(source.config)
    if 'serialize_data' in init_defaults(source.kind):
        # mm joins nothing to an array, and fails.
        config['serialize_data'] = False
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            dataset = registry.build(config)
    except Exception as error:  # of the config: the user's own Python
        place, reason = _culprit(source, scope) or (source.option, error)
        yield Finding(
            'data set that cannot be built',
            f'{place} cannot be built: {describe(reason)}', (source.option, ))
        return None
    if isinstance(dataset, BaseDataset):
        return dataset
    yield Finding(
        'not checked', f'not checked: {source.kind.__name__}, which is not '
        "a data set of mmengine's BaseDataset", (source.option, ),
        error=False)
    return None


def _culprit(source, scope):
    """The first transform that cannot be built, and why."""
    for place, step in enumerate(source.config.get('pipeline') or ()):
        if not isinstance(step, dict):
            continue  # a function, which mm takes as it is
        try:
            with TRANSFORMS.switch_scope_and_registry(scope) as registry:
                registry.build(step)
        except Exception as error:  # of a transform: the user's own Python
            name = name_of(step.get('type'))
            return f'{source.option}.pipeline[{place}] ({name})', error
    return None


def list_samples(source, dataset):
    """List the images of a data set, and report those that are missing.

    Yields:
        Finding: What is wrong.

    Returns:
        list[Sample]: Images that exist.
    """
    infos = _infos(dataset)
    if not infos:
        yield _nothing(source)
        return []
    labelled = source.is_a('BaseSegDataset') and any(
        type(one).__name__ == 'LoadAnnotations' or not is_mm(one)
        for one in dataset.pipeline.transforms)
    samples = [
        Sample(info['img_path'], _size(info),
               info.get('seg_map_path') if labelled else None, place,
               _reach(info))
        for place, info in enumerate(infos)
        if isinstance(info.get('img_path'), str)]
    if not samples:
        yield Finding(
            'not checked', f'not checked: {source.kind.__name__}, whose '
            'images are not one file each', (source.option, ), error=False)
        return []
    yield from _doubles(source, samples)
    samples = yield from _existing(source, dataset, samples)
    if labelled:
        yield from _alone(source, infos)
    return samples


def _existing(source, dataset, samples):
    """Samples whose files are there.

    A transform of the user's, before mm's that loads a file, may name another
    file.
    """
    for kind, file, loader in (
            ('image', 'image', 'LoadImageFromFile'),
            ('label map', 'label_map', 'LoadAnnotations')):
        names = [type(one).__name__ for one in dataset.pipeline.transforms]
        end = names.index(loader) + 1 if loader in names else None
        if not all(map(is_mm, dataset.pipeline.transforms[:end])):
            continue
        paths = [getattr(one, file) for one in samples
                 if getattr(one, file) is not None]
        missing = absent(paths)
        if missing:
            yield Finding(
                f'missing {kind}',
                f'{missing[0]!r} does not exist: {len(missing)} of '
                f'{len(paths)} {kind}s that {source.option} lists are not '
                f'there; {_hint(source, kind, missing, paths)}', missing)
            gone = set(missing)
            samples = [one for one in samples
                       if getattr(one, file) not in gone]
    return samples


def _hint(source, kind, missing, paths):
    """What to do about files that are not there."""
    if '\\' in missing[0] and osp.sep == '/':
        return "write '/' in place of '\\'"
    folder, name = osp.split(missing[0])
    there = os.listdir(folder or '.') if osp.isdir(folder or '.') else ()
    other = next((one for one in there if one.lower() == name.lower()), None)
    if other is not None:
        return f'there is {other}: upper and lower case differ'
    if 2 * len(missing) < len(paths):
        return ('add it, or leave its image out' if kind == 'label map'
                else 'add it, or leave it out')
    option, listed = source.option, source.config.get('ann_file')
    if listed and source.is_a('BaseSegDataset'):
        return (f'{source.below_root(listed)} has one name per line, without '
                f'suffix, below {option}.data_prefix')
    return f'check {option}.' + (
        'data_prefix' if kind == 'image' else 'seg_map_suffix')


def _alone(source, infos):
    """Label maps in a folder whose images are read as they lie there."""
    folder = source.folders.get('seg_map_path')
    if not folder or source.config.get('indices') is not None or (
            source.config.get('ann_file')):
        return
    used = {info.get('seg_map_path') for info in infos}
    paths = (osp.join(folder, name) for name in list_dir_or_file(
        folder, list_dir=False, suffix=source.get('seg_map_suffix'),
        recursive=True))
    alone = sorted(path for path in paths if path not in used)
    if alone:
        yield Finding(
            'label map without image',
            f'{alone[0]} has no image: {len(alone)} label maps are not used',
            alone, error=False)


def _infos(dataset):
    if dataset.data_list and (
            type(dataset).get_data_info is BaseDataset.get_data_info):
        return dataset.data_list
    return [dataset.get_data_info(place) for place in range(len(dataset))]


def _size(info):
    size = info.get('width'), info.get('height')
    return size if all(size) else None  # 0 where an XML file has no size


def _box(instance):
    """Sides of a box; 0 for what is no box, such as a polygon."""
    box = instance.get('bbox')
    return (0, 0, 0, 0) if box is None or len(box) != 4 else box


def _reach(info):
    """Largest x and y of boxes."""
    boxes = [_box(one) for one in info.get('instances') or ()]
    return tuple(max((box[side] for box in boxes), default=0)
                 for side in (2, 3))


def _nothing(source):
    suffix = source.get('img_suffix')
    listed = source.config.get('ann_file')
    if listed and source.is_a('BaseSegDataset'):
        reason = f'{source.below_root(listed)} lists none'
    elif listed:
        reason = (f'of {source.below_root(listed)}, mm keeps no image: check '
                  'that metainfo.classes names classes that the file has, '
                  'and filter_cfg')
    elif suffix:
        reason = (f'{source.folders.get("img_path")} has no image that ends '
                  f'in {suffix}: set {source.option}.img_suffix')
    else:
        reason = f'check the paths of {source.option}'
    return Finding('no images', f'{source.option} has no images: {reason}',
                   (source.option, ))


def _doubles(source, samples):
    twice = [path for path, number in Counter(
        one.image for one in samples).items() if number > 1]
    if twice and not source.is_a('CocoDataset'):
        yield Finding(
            'duplicate file name',
            f'{source.option} has {twice[0]} more than once: {len(twice)} of '
            f'{len(samples)} images, which count more than others', twice,
            error=False)


def check_instances(source, dataset, classes, known=()):
    """Check the boxes that a data set of mmdet gives.

    Args:
        source (Source): What the config says of it.
        dataset (BaseDataset): As mm builds it.
        classes (Sequence[str]): Its class names.
        known (Collection[str]): Class names that a split before it has
            boxes of. Default: ().

    Yields:
        Finding: What is wrong.

    Returns:
        set[str]: Class names that it has boxes of.
    """
    infos = _infos(dataset)
    counts = Counter(
        one.get('bbox_label') for info in infos
        for one in info.get('instances') or ()
        if not one.get('ignore_flag'))  # such as the difficult ones of VOC
    beyond = [label for label in counts
              if label is None or not 0 <= label < len(classes)]
    if beyond:
        yield Finding(
            'label out of range',
            f'{source.option} gives the label {beyond[0]!r}, and there are '
            f'{len(classes)} classes: labels are 0 to {len(classes) - 1}',
            beyond)
    inverted = [info.get('img_path') for info in infos
                for one in info.get('instances') or ()
                if not one.get('ignore_flag') and _is_inverted(one)]
    if inverted:
        yield Finding(
            'box of negative size',
            f'{inverted[0]} has a box whose right or lower side comes first: '
            f'{len(inverted)} of {source.option}; the loss would be NaN: '
            'correct xmin, ymin, xmax, ymax', inverted)
    lacking = [name for label, name in enumerate(classes)
               if not counts[label]]
    names = _xml_names(infos)
    foreign = [name for name in names if name not in classes]
    wrong = {name: difflib.get_close_matches(
        name.casefold(), [one.casefold() for one in foreign], 1, .7)
        for name in lacking if foreign and name not in known}
    wrong = {name: close for name, close in wrong.items()
             if close or source.split == 'train'}
    if wrong:
        yield Finding(
            'class name without object',
            f'{source.option} has no object of its classes {some(wrong)}; '
            f'its files have objects named {some(names)}. mm drops objects '
            f'of other names: set {source.option}.metainfo='
            'dict(classes=...) to the names in the files', tuple(wrong))
    elif not any(counts.values()):
        yield Finding(
            'images without ground truth',
            f'{source.option} has no box of its classes ({some(classes)}): '
            'there is nothing to learn', (source.option, ),
            error=source.split == 'train')
    elif lacking:
        yield Finding(
            'class without example',
            f'{source.option} has no box of the classes {some(lacking)}',
            lacking, error=False)
    return {name for label, name in enumerate(classes) if counts[label]}


def _is_inverted(instance):
    left, top, right, bottom = _box(instance)
    return right < left or bottom < top


def _xml_names(infos):
    """Names of objects in the XML files of a data set, if it has such."""
    names = Counter()
    for info in infos:
        path = info.get('xml_path')
        if path:
            names.update(
                one.text for one in ElementTree.parse(path).iterfind(
                    'object/name') if one.text)
    return [name for name, _ in names.most_common()]

