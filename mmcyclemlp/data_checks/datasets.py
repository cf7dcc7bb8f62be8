"""Check data sets as mm builds them: images, label maps and boxes."""

from __future__ import annotations

import difflib
import os
import os.path as osp
from collections import Counter
from collections.abc import Collection, Sequence
from xml.etree import ElementTree

from mmengine.dataset import BaseDataset
from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS

from ..engine.config_nodes import is_mm
from ..errors import UserError, describe
from .images import Sample, absent
from .report import Report, some
from .sources import Source, init_defaults


def build(source: Source, scope: str) -> object:
    """Build a data set as mm does.

    Args:
        source (Source): Its part of the config.
        scope (str): Scope of the registry.

    Raises:
        UserError: It cannot be built; the message says why.
    """
    config = dict(source.config)
    if 'serialize_data' in init_defaults(source.kind):
        # mm fails to serialize a data set without images.
        config['serialize_data'] = False
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            return registry.build(config)
    except Exception as error:  # of any data set, also the user's
        raise UserError(f'{source.option} cannot be built: '
                        f'{describe(error)}') from error


def list_samples(report: Report, source: Source,
                 dataset: BaseDataset) -> list[Sample]:
    """List the images of a data set, and report those that are missing.

    Args:
        report (Report): Where to add what is wrong.
        source (Source): Its part of the config.
        dataset (BaseDataset): The data set as mm builds it.

    Returns:
        list[Sample]: Images that exist.
    """
    infos = _infos(dataset)
    if not infos:
        if not report.wrong:  # an error before is the reason
            report.error('no images', f'{source.option} has no images: '
                         f'{_why_empty(source)}', (source.option, ))
        return []
    labeled = source.is_a('BaseSegDataset') and any(
        type(one).__name__ == 'LoadAnnotations' or not is_mm(one)
        for one in dataset.pipeline.transforms)
    samples = [
        Sample(info['img_path'], _size(info),
               info.get('seg_map_path') if labeled else None, place,
               _reach(info))
        for place, info in enumerate(infos)
        if isinstance(info.get('img_path'), str)]
    if not samples:
        report.remark(
            'not checked', f'not checked: {source.kind.__name__}, whose '
            'images are not one file each', (source.option, ))
        return []
    twice = [path for path, number in Counter(
        one.image for one in samples).items() if number > 1]
    if twice:
        report.remark(
            'duplicate file name',
            f'{source.option} has {twice[0]} more than once: {len(twice)} of '
            f'{len(samples)} images, which count more than others, each with '
            'its own annotations only', twice)
    samples = _existing(report, source, dataset, samples)
    if labeled:
        _report_unused_maps(report, source, infos)
    return samples


def _existing(report, source, dataset, samples):
    """Return samples whose files exist.

    A transform of the user before mm's that loads a file may name another
    file, so nothing is reported then.
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
            report.error(
                f'missing {kind}',
                f'{missing[0]!r} does not exist: {len(missing)} of '
                f'{len(paths)} {kind}s that {source.option} lists are '
                f'missing; {_hint(source, kind, missing, paths)}', missing)
            gone = set(missing)
            samples = [one for one in samples
                       if getattr(one, file) not in gone]
    return samples


def _hint(source, kind, missing, paths):
    """Return what to do about missing files."""
    if '\\' in missing[0] and osp.sep == '/':
        return "write '/' in place of '\\'"
    folder, name = osp.split(missing[0])
    there = os.listdir(folder or '.') if osp.isdir(folder or '.') else ()
    other = next((one for one in there if one.lower() == name.lower()), None)
    if other is not None:
        return f'there is {other}: upper and lower case differ'
    if 2 * len(missing) < len(paths):
        return 'add it, or leave out its image'
    # mmseg lists names without suffix, below the folder.
    return (f'check {source.option}.data_prefix, '
            f'{"img_suffix" if kind == "image" else "seg_map_suffix"} and '
            f'the names in {source.listed or "the folder"}')


def _report_unused_maps(report, source, infos):
    """Report label maps without image, where mm lists a folder."""
    folder = source.folders.get('seg_map_path')
    if not folder or source.config.get('indices') is not None or (
            source.config.get('ann_file')):
        return
    used = {info.get('seg_map_path') for info in infos}
    paths = (osp.join(folder, name) for name in list_dir_or_file(
        folder, list_dir=False, suffix=source.get('seg_map_suffix'),
        recursive=True))
    unused = sorted(path for path in paths if path not in used)
    if unused:
        report.remark(
            'label map without image', f'{unused[0]} has no image that ends '
            f'in {source.get("img_suffix")}: {len(unused)} label maps are '
            'not used', unused)


def _infos(dataset):
    if dataset.data_list and (
            type(dataset).get_data_info is BaseDataset.get_data_info):
        return dataset.data_list
    return [dataset.get_data_info(place) for place in range(len(dataset))]


def _size(info):
    size = info.get('width'), info.get('height')
    return size if all(size) else None  # 0 where an XML file has no size


def _box(instance):
    """Return the sides of a box, 0 for other forms such as polygons."""
    box = instance.get('bbox')
    return (0, 0, 0, 0) if box is None or len(box) != 4 else box


def _reach(info):
    """Return the largest x and y of boxes."""
    boxes = [_box(one) for one in info.get('instances') or ()]
    return tuple(max((box[side] for box in boxes), default=0)
                 for side in (2, 3))


def _why_empty(source):
    suffix = source.get('img_suffix')
    if suffix and not source.listed:
        return (f'{source.folders.get("img_path")} has no image that ends '
                f'in {suffix}: set {source.option}.img_suffix')
    return (f'{source.listed or source.root} lists none, or filter_cfg and '
            'metainfo.classes leave none')


def check_instances(report: Report, source: Source, dataset: BaseDataset,
                    classes: Sequence[str],
                    known: Collection[str] = ()) -> set[str]:
    """Check the boxes of a data set of mmdet.

    Args:
        report (Report): Where to add what is wrong.
        source (Source): Its part of the config.
        dataset (BaseDataset): The data set as mm builds it.
        classes (Sequence[str]): Its class names.
        known (Collection[str]): Class names that a split before it has
            boxes of. Default: ().

    Returns:
        set[str]: Class names that it has boxes of.
    """
    infos = _infos(dataset)
    # mm ignores some, such as the difficult ones of VOC.
    boxes = [(info.get('img_path'), one) for info in infos
             for one in info.get('instances') or ()
             if not one.get('ignore_flag')]
    counts = Counter(one.get('bbox_label') for _, one in boxes)
    _check_boxes(report, source, boxes, counts, len(classes))
    lacking = [name for label, name in enumerate(classes)
               if not counts[label]]
    names = _xml_names(infos)
    wrong = _misspelled(source, [name for name in lacking
                                 if name not in known], names, classes)
    if wrong:
        report.error(
            'class name without object',
            f'{source.option} has no object of its classes {some(wrong)}; '
            f'its files have objects named {some(names)}. mm drops objects '
            f'of other names: set {source.option}.metainfo='
            'dict(classes=...) to the names in the files', wrong)
    elif not any(counts.values()):
        report.add(
            'images without ground truth',
            f'{source.option} has no box of its classes ({some(classes)}): '
            'there is nothing to learn', (source.option, ),
            error=source.split == 'train')
    elif lacking:
        report.remark(
            'class without example',
            f'{source.option} has no box of the classes {some(lacking)}',
            lacking)
    return {name for label, name in enumerate(classes) if counts[label]}


def _check_boxes(report, source, boxes, counts, number):
    beyond = [label for label in counts
              if label is None or not 0 <= label < number]
    if beyond:
        report.error(
            'label out of range',
            f'{source.option} has the label {beyond[0]!r}, and there are '
            f'{number} classes: labels are 0 to {number - 1}', beyond)
    inverted = [image for image, one in boxes if _is_inverted(one)]
    if inverted:
        report.error(
            'box of negative size',
            f'{inverted[0]} has a box whose right or lower side comes first: '
            f'{len(inverted)} boxes of {source.option}; the loss would be '
            'NaN: correct xmin, ymin, xmax, ymax', inverted)


def _misspelled(source, lacking, names, classes):
    """Return classes without boxes that have another name in the files."""
    foreign = [name.casefold() for name in names if name not in classes]
    return [name for name in lacking if foreign and (
        # In evaluation it may be a rare class.
        source.split == 'train' or difflib.get_close_matches(
            name.casefold(), foreign, 1, .7))]


def _is_inverted(instance):
    left, top, right, bottom = _box(instance)
    return right < left or bottom < top


def _xml_names(infos):
    """Return the names of objects in XML files, the most frequent first."""
    names = Counter()
    for info in infos:
        path = info.get('xml_path')
        if path:
            names.update(
                one.text for one in ElementTree.parse(path).iterfind(
                    'object/name') if one.text)
    return [name for name, _ in names.most_common()]
