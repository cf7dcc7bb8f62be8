"""Check that evaluators read the same data, in a form they can evaluate."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from ..engine.config_nodes import find_type, name_of
from ..errors import UserError
from .coco import chosen, is_coco, loads_masks, report_lacking, used_images
from .masks import UNREAD
from .report import Report, some
from .sources import Source, exists

# Rounding may change the boxes of one object by so many pixels.
_NEAR = 2


class Metric:
    """A metric of a config that names an annotation file.

    Attributes:
        option (str): The key of its file in the config.
        config (dict): Its part of the config.
        sources (list[Source]): The data sets that it evaluates.
    """

    def __init__(self, option, config, kind, sources):
        self.option = f'{option}.ann_file'
        self.config, self.sources = config, sources
        names = {base.__name__ for base in getattr(kind, '__mro__', ())}
        self.path = config['ann_file']
        wanted = config.get('metric', 'bbox')
        self.scores = not config.get('format_only')
        self.segm = self.scores and 'segm' in (
            [wanted] if isinstance(wanted, str) else wanted)
        self.is_coco = 'CocoMetric' in names and 'LVISMetric' not in names

    def twin(self) -> Source | None:
        """Return a data set that reads the same file, if there is one."""
        return next((one for one in self.sources
                     if _same(self.path, one.listed)), None)


def _same(path, other):
    return osp.realpath(path) == osp.realpath(other)


def metrics(cfg: Config, split: str,
            found: Sequence[Source]) -> Iterator[Metric]:
    """Find the metrics of a split that read a file of this machine.

    Args:
        cfg (Config): The config.
        split (str): 'val' or 'test'.
        found (Sequence[Source]): Its data sets.

    Yields:
        Metric: Each of them.
    """
    node = cfg.get(f'{split}_evaluator') or ()
    with METRICS.switch_scope_and_registry(
            cfg.get('default_scope', 'mmengine')) as registry:
        for option, config, at in _listed(node, f'{split}_evaluator'):
            kind = find_type(config.get('type'), registry)
            backend = (config.get('backend_args') or {}).get('backend')
            path = config.get('ann_file')
            if isinstance(path, str) and path and '://' not in path and (
                    backend in (None, 'local')):
                yield Metric(option, config, kind, [
                    one for one in (found if at is None else found[at:at + 1])
                    if one.config.get('ann_file') and not one.remote])


def _listed(node, option, separate=False):
    """Yield option and config of each metric, and the place of its data."""
    if isinstance(node, (list, tuple)):
        for place, one in enumerate(node):
            for name, config, _ in _listed(one, f'{option}[{place}]'):
                yield name, config, place if separate else None
    elif isinstance(node, dict) and node.get('metrics'):
        # MultiDatasetsEvaluator evaluates each data set by one metric.
        yield from _listed(
            node['metrics'], f'{option}.metrics',
            name_of(node.get('type')) == 'MultiDatasetsEvaluator')
    elif isinstance(node, dict):
        yield option, node, None


def check_evaluators(report: Report, cfg: Config, split: str,
                     found: Sequence[Source], read: Callable) -> None:
    """Compare the files of the evaluators with the data of a split.

    Args:
        report (Report): Where to add what is wrong.
        cfg (Config): The config.
        split (str): 'train', 'val' or 'test'.
        found (Sequence[Source]): The data sets of the split.
        read (Callable): ``read_coco``, or one that remembers.
    """
    for metric in metrics(cfg, split, found) if found else ():
        if not exists(report, metric.path, metric.option):
            continue
        try:
            if metric.is_coco:
                _check_coco_metric(report, metric, read)
        except UserError as error:
            report.error('not a COCO file', str(error), (metric.path, ))


def _report_no_image(report, metric, data, total, lost):
    if lost:
        number, name = lost[0][:2]
        report.error(
            'evaluator without image',
            f'{metric.option} names {metric.path}, which has no image of the '
            f'id {number!r} ({name}) of {data}: {len(lost)} of {total} '
            f'images of the data; set {metric.option} to {data}',
            [one[1] for one in lost])


def _check_coco_metric(report, metric, read):
    twin = metric.twin()
    file = read(metric.path if twin is None else twin.listed,
                metric.segm or twin is not None and loads_masks(twin))
    pairs = []  # file and used images of each data set
    for source in metric.sources:
        if is_coco(source) and osp.isfile(source.listed):
            data = file if _same(source.listed, metric.path) else read(
                source.listed, loads_masks(source))
            classes = _classes(source)
            pairs.append((data, classes, [
                data.images[at] for at in used_images(source, data, classes)
            ]))
    count = Counter(one[0] for _, _, used in pairs for one in used)
    twice = [one for one, number in count.items() if number > 1]
    if twice:
        report.error(
            'image id in two data sets',
            f'{metric.option}: the data sets have images of the id '
            f'{twice[0]!r} more than once: {len(twice)} of {len(count)} ids; '
            'the metric would join their predictions: number the images '
            "anew, or use mmengine's MultiDatasetsEvaluator", twice)
    else:
        same = [data is file or _is_same_data(report, metric, file, data,
                                              classes, used)
                for data, classes, used in pairs]
        if same and all(same) and metric.scores:
            _report_more_images(report, metric, file, count)
    if twin is None:
        for finding in file.findings:
            if finding.error:
                report.add(*finding[:4])
    if metric.scores:
        report_lacking(report, file, ('area', 'iscrowd', 'id'))
    if metric.segm:
        _check_segm(report, metric, file, twin)


def _classes(source):
    try:
        return tuple(source.classes or ())
    except UserError:
        return ()  # the check of the data set reports it


def _report_more_images(report, metric, file, ids):
    """Report images of the evaluator that no data set has."""
    more = [name for number, name, *_ in file.images if number not in ids]
    if more:
        report.remark(
            'evaluator with more images',
            f'{metric.option} names {file.path}, whose image {more[0]!r} is '
            f'not evaluated: {len(more)} of {len(file.images)} images; their '
            'boxes count as not found', more)


def _is_same_data(report, metric, file, data, classes, used):
    """Compare the evaluator's file with the file of a data set."""
    option, there = metric.option, {one[0]: one for one in file.images}
    lost = [one for one in used if one[0] not in there]
    if lost:
        _report_no_image(report, metric, data.path, len(used), lost)
        return False
    order = _order(data, classes)
    other = _order(file, classes, metric.config.get('sort_categories'))
    if order != other:
        report.error(
            'categories of the evaluator',
            f'{option} names {file.path}, which has the classes '
            f'({some(other)}); {data.path} has ({some(order)}), and mm '
            f'numbers labels in that order: set {option} to {data.path}',
            other)
        return False
    boxed, moved = _compare_boxes(file, data, used, classes)
    moved = moved if metric.scores else []
    resized = [one for one in used if one[2:] != there[one[0]][2:]]
    unlike = [one for one in used
              if _stem(one) != _stem(there[one[0]])] or resized
    # Where the boxes are the same, it is the same image renamed.
    if unlike and (not boxed or moved or resized and metric.segm):
        first = unlike[0]
        report.error(
            'evaluator of other images',
            f'{option} names {file.path}, where the image of the id '
            f'{first[0]!r} is {_described(there[first[0]])}; in {data.path} '
            f'it is {_described(first)}: {len(unlike)} of {len(used)} '
            f'images; set {option} to {data.path}',
            [one[1] for one in unlike])
        return False
    if len(moved) > len(boxed) / 2:
        report.error(
            'evaluator of other annotations',
            f'{option} names {file.path}, where the image {moved[0][1]!r} '
            f'has other boxes than in {data.path}: {len(moved)} of '
            f'{len(boxed)} images with boxes; set {option} to {data.path}',
            [one[1] for one in moved])
        return False
    return True


def _stem(image):
    return PurePath(image[1].replace('\\', '/')).stem


def _described(image):
    return f'{image[1]!r} of {image[2]:g}x{image[3]:g}'


def _order(file, classes, by_number=False):
    categories = sorted(file.categories) if by_number else file.categories
    return [name for _, name in categories if name in classes]


def _compare_boxes(file, data, used, classes):
    """Return images that have boxes, and those with mostly other boxes."""
    theirs, ours = _by_image(file, classes), _by_image(data, classes)
    boxed = [image for image in used if image[0] in ours]
    nothing = np.zeros((0, 5))
    moved = []
    for image in boxed:
        one, two = ours[image[0]], theirs.get(image[0], nothing)
        near = abs(one[:, None] - two[None]).max(2, initial=0) <= _NEAR
        if near.any(1).mean() < .5:
            moved.append(image)
    return boxed, moved


def _by_image(file, classes):
    """Return (K, 5) a label and K boxes by the id of their image."""
    which = np.flatnonzero(
        chosen(file, classes) & (file.image >= 0) & ~file.crowd
        & np.isfinite(file.boxes).all(1))
    found = {}
    for at in which.tolist():
        name = file.categories[file.category[at]][1]
        # So far apart that no box of another class is near.
        found.setdefault(file.images[file.image[at]][0], []).append(
            [1e6 * classes.index(name), *file.boxes[at]])
    return {image: np.array(rows) for image, rows in found.items()}


def _check_segm(report, metric, file, twin):
    """Report masks that COCO's evaluation cannot read."""
    classes = _classes(metric.sources[0]) if metric.sources else ()
    which = chosen(file, classes)
    if twin is not None and loads_masks(twin):
        which &= ~file.kept  # the check of the data set reports the others
    places = [at for at, (kind, _) in file.masks.items()
              if which[at] and kind in UNREAD]
    if places:
        file.annotations.add_to(
            report, 'annotation that segm cannot evaluate', places,
            file.masks[places[0]][1], f'{metric.option[:-9]}.metric segm '
            "needs masks: correct them, or remove 'segm'")
