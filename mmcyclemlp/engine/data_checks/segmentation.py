"""Label maps: files, sizes, and labels against classes and ignore index."""

import os
import os.path as osp
from collections import Counter

import numpy as np
from mmengine.fileio import list_from_file

from .findings import Finding, some
from .images import Sample, absent
from .sources import evaluators, heads


def check_segmentation(source, classes):
    """Check names, files and settings of mmseg's BaseSegDataset kind.

    Args:
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.

    Yields:
        Finding: What is wrong.

    Returns:
        list[Sample]: Images that are used and exist.
    """
    known = source.metainfo.get('classes', classes) or ()
    foreign = set(classes or ()) - set(known)
    if foreign:
        yield Finding(
            'class name that the data set has not',
            f'{source.option}.metainfo.classes has {some(sorted(foreign))}, '
            f"which {source.config['type']} does not have: it takes a choice "
            "of its own classes; use type='BaseSegDataset' for others",
            sorted(foreign))
    yield from _settings(source)
    if not source.reads_like('BaseSegDataset', 'load_data_list'):
        return []
    return (yield from _files(source))


def _settings(source):
    """Data set and transform agree on reduce_zero_label, as mm asserts."""
    reduce = bool(source.get('reduce_zero_label'))
    given = source.transform('LoadAnnotations').get('reduce_zero_label')
    if given is not None and bool(given) != reduce:
        yield Finding(
            'reduce_zero_label',
            f'{source.option}.reduce_zero_label is {reduce}, and the '
            f'LoadAnnotations of its pipeline has {given}: mm would fail in '
            'the first step; make them equal', (source.option, ))


def _files(source):
    images = source.folders.get('img_path')
    labels = source.folders.get('seg_map_path')
    if images is None:
        return []
    suffix, label_suffix = source.get('img_suffix'), source.get(
        'seg_map_suffix')
    listed = source.config.get('ann_file') or ''
    if listed and osp.isfile(source.below_root(listed)):
        listed = source.below_root(listed)
        stems = [line.strip() for line in list_from_file(listed)]
        if not stems:
            yield Finding('no images', f'{listed} lists no images',
                          (listed, ))
        twice = [stem for stem, n in Counter(stems).items() if n > 1]
        if twice:
            yield Finding(
                'duplicate file name',
                f'{listed} has {twice[0]} more than once: {len(twice)} of '
                f'{len(set(stems))} names, which count more than others',
                twice, error=False)
    else:
        listed = images
        stems = _stems(images, suffix)
        if not stems:
            yield Finding(
                'no images',
                f'{images} has no image that ends in {suffix}: set '
                f'{source.option}.img_suffix', (images, ))
    stems = source.subset(stems)
    missing = absent([osp.join(images, stem + suffix) for stem in stems])
    if missing:
        yield Finding(
            'missing image',
            f'{missing[0]} does not exist: {len(missing)} of {len(stems)} '
            f'images that {listed} lists are not there', missing)
        gone = set(missing)
        stems = [stem for stem in stems
                 if osp.join(images, stem + suffix) not in gone]
    if labels is None:
        return [Sample(osp.join(images, stem + suffix)) for stem in stems]
    lacking = absent([osp.join(labels, stem + label_suffix)
                      for stem in stems])
    if lacking:
        yield Finding(
            'missing label map',
            f'{lacking[0]} does not exist: {len(lacking)} of {len(stems)} '
            f'images have no label map; check {source.option}.'
            'seg_map_suffix', lacking)
    if listed == images and source.config.get('indices') is None:
        alone = [osp.join(labels, stem + label_suffix) for stem in sorted(
            set(_stems(labels, label_suffix)) - set(stems))]
        if alone:
            yield Finding(
                'label map without image',
                f'{alone[0]} has no image: {len(alone)} label maps are not '
                'used', alone, error=False)
    gone = set(lacking)
    return [Sample(osp.join(images, stem + suffix), None, label)
            for stem in stems
            for label in [osp.join(labels, stem + label_suffix)]
            if label not in gone]


def _stems(folder, suffix):
    """Names in a folder and below it without their suffix, sorted."""
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        below = osp.relpath(place, folder)
        found.extend(
            osp.normpath(osp.join(below, name))[:-len(suffix)]
            for name in names if name.endswith(suffix))
    return sorted(found)


def check_labels(cfg, source, classes, opened, whole):
    """Check the values in label maps.

    Args:
        cfg (Config): The config, for its heads and metrics.
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.
        opened (list[Opened]): Samples with the pixels of their label maps.
        whole (bool): Whether these are all the samples.

    Yields:
        Finding: What is wrong.
    """
    counted = heads(cfg)
    number = len(classes or ()) or min(
        (head['num_classes'] for _, head in counted), default=0)
    opened = [one for one in opened if one.pixels]
    if not number or not opened:
        return
    ignored = _ignored(cfg, source, counted)
    fine = set(range(number))
    if len(set(ignored.values())) == 1:
        fine |= set(ignored.values())
    unlabelled = ', '.join(f'{name} {index}'
                           for name, index in ignored.items())
    table = _as_mm_reads(source)
    seen = Counter()
    wrong = {}
    for one in opened:
        seen.update(one.pixels)
        for value in one.pixels:
            if not 0 <= value < 256 or table[value] not in fine:
                wrong.setdefault(value, []).append(one.sample.label_map)
    for value, files in sorted(wrong.items()):
        yield Finding(
            'label out of range',
            f'{files[0]} has the label {value}'
            f'{_read_as(value, table)}, which is neither a class (0 to '
            f'{number - 1}) nor the ignore index '
            f'({unlabelled}): '
            f'{len(files)} of {len(opened)} label maps that were opened; '
            f'{_remedy(value, number, source)}', files)
    yield from _padding(cfg, source, number, ignored)

    values = {int(table[value]) for value in seen if 0 <= value < 256}
    if source.get('reduce_zero_label') and not wrong and {
            *range(number)} <= set(seen) and number not in seen:
        yield Finding(
            'reduce_zero_label',
            f'{source.option}.reduce_zero_label is True and takes 1 for the '
            f'first of {number} classes, but the label maps that were opened '
            f'have all labels of 0 to {number - 1} and none {number}: 0 looks '
            'like a class; set it to False there and in LoadAnnotations',
            (source.option, ), error=whole and source.split == 'train')
    if whole:
        lacking = [str((classes or range(number))[label])
                   for label in range(number) if label not in values]
        if lacking:
            yield Finding(
                'class without example',
                f'no label map of {source.option} has the classes '
                f'{some(lacking)}', lacking, error=False)
        empty = [one.sample.label_map for one in opened if not any(
            0 <= value < 256 and table[value] < number
            for value in one.pixels)]
        if empty:
            yield Finding(
                'images without ground truth',
                f'{empty[0]} has no pixel of a class: {len(empty)} of '
                f'{len(opened)} label maps ({len(empty) / len(opened):.1%})',
                empty, error=len(empty) == len(opened))


def _ignored(cfg, source, counted):
    """The ignore index of each head, or of each metric, by its name."""
    if source.split == 'train':
        found = {f'{name}.ignore_index': head.get('ignore_index', 255)
                 for name, head in counted}
    else:
        found = {f'{source.split}_evaluator.ignore_index':
                 one.get('ignore_index', 255)
                 for one in evaluators(cfg, source.split)}
    return found or {'ignore_index': 255}


def _as_mm_reads(source):
    """The label that mm makes of each value of a file, (256, )."""
    table = np.arange(256)
    if source.get('reduce_zero_label'):
        table = (table - 1) % 256
        table[255] = 255
    names = (source.config.get('metainfo') or {}).get('classes')
    chosen = source.kind.get_label_map(names) if names is not None and (
        set(names) <= set(source.metainfo.get('classes', names))) else None
    if chosen:
        whole = table.copy()
        for old, new in chosen.items():
            table[whole == old] = new
    return table


def _read_as(value, table):
    if not 0 <= value < 256 or table[value] == value:
        return ''
    return f', which mm reads as {table[value]}'


def _remedy(value, number, source):
    if not 0 <= value < 256:
        return 'mm keeps 8 bits of it; write label maps of 8 bits'
    if source.get('reduce_zero_label'):
        return ('reduce_zero_label=True takes 0 for unlabelled and makes it '
                '255, and 1 for the first class; is that so in these files?')
    if value == number:
        return ('if 0 is unlabelled in these files, set reduce_zero_label='
                f'True (data set and LoadAnnotations); if {value} is, set '
                f'ignore_index={value} in every head and metric and '
                f'seg_pad_val={value} in the data_preprocessor')
    return (f'if {value} is unlabelled, set ignore_index={value} in every '
            'head and metric; else correct the label maps or num_classes')


def _padding(cfg, source, number, ignored):
    """What mm pads label maps with is no label either."""
    preprocessor = cfg.model.get('data_preprocessor') or {}
    padding = preprocessor.get('seg_pad_val', 255)
    odd = [name for name, index in ignored.items() if index != padding]
    if source.split == 'train' and preprocessor.get('size') and odd and (
            padding >= number):
        yield Finding(
            'padding that is no label',
            f'model.data_preprocessor.seg_pad_val is {padding}, but {odd[0]} '
            f'is {ignored[odd[0]]}: a batch with a smaller image would fail; '
            'make them equal', odd)
