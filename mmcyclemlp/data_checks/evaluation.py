"""What only the evaluation needs, and whether it is of the same data."""

import os.path as osp
from collections import Counter

import numpy as np
from mmengine.registry import METRICS

from ..engine.config_nodes import find_type, name_of
from ..errors import UserError
from .coco import chosen, is_coco, lacks, used_images
from .coco_file import parse
from .findings import Finding, some
from .masks import LEFT_OUT, UNREAD, many
from .sources import check_exists

# Boxes of one thing may differ by what rounding changes, in pixels.
_NEAR = 2


class Metric:
    """A metric of a config that names an annotation file.

    Attributes:
        option (str): Where the config has it.
        config (dict): What the config says of it.
        names (set): Of its class and those that it is made from.
        sources (list): The data sets that it is given.
    """

    def __init__(self, option, config, kind, sources):
        self.option, self.config, self.sources = option, config, sources
        self.names = {base.__name__ for base in getattr(kind, '__mro__', ())}
        self.path = config['ann_file']
        wanted = config.get('metric', 'bbox')
        self.wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        self.scores = not config.get('format_only')
        self.segm = self.scores and 'segm' in self.wanted
        self.is_coco = ('CocoMetric' in self.names
                        and 'LVISMetric' not in self.names)

    def twin(self):
        """A data set that reads the same file, or None."""
        return next((one for one in self.sources if _same(
            self.path, one.below_root(one.config['ann_file']))), None)


def _same(path, other):
    return osp.realpath(path) == osp.realpath(other)


def metrics(cfg, split, found):
    """Metrics of a split that read an annotation file of this machine.

    Args:
        cfg (Config): The config.
        split (str): 'val' or 'test'.
        found (Sequence[Source]): Its data sets.

    Yields:
        Metric: Each of them.
    """
    given = cfg.get(f'{split}_evaluator') or ()
    with METRICS.switch_scope_and_registry(
            cfg.get('default_scope', 'mmengine')) as registry:
        for option, config, at in _listed(given, f'{split}_evaluator'):
            kind = find_type(config.get('type'), registry)
            backend = (config.get('backend_args') or {}).get('backend')
            path = config.get('ann_file')
            if isinstance(path, str) and path and '://' not in path and (
                    backend in (None, 'local')):
                yield Metric(option, config, kind, [
                    one for one in (found if at is None else found[at:at + 1])
                    if one.config.get('ann_file') and not one.remote])


def _listed(given, option, separate=False):
    """Option and config of each metric, and which data set it is for."""
    if isinstance(given, (list, tuple)):
        for place, one in enumerate(given):
            for name, config, _ in _listed(one, f'{option}[{place}]'):
                yield name, config, place if separate else None
    elif isinstance(given, dict) and given.get('metrics'):
        # This one gives each data set to the metric of the same place.
        yield from _listed(given['metrics'], f'{option}.metrics',
                           'MultiDatasets' in str(given.get('type')))
    elif isinstance(given, dict):
        yield option, given, None


def check_evaluators(cfg, split, found, read):
    """Compare the files of the evaluators with the data of a split.

    Args:
        cfg (Config): The config.
        split (str): 'train', 'val' or 'test'.
        found (Sequence[Source]): The data sets of the split.
        read (Callable): ``read_coco``, or one that remembers.

    Yields:
        Finding: What is wrong.
    """
    yield from _without_file(cfg, split, found)
    for metric in metrics(cfg, split, found) if found else ():
        option = f'{metric.option}.ann_file'
        missing = list(check_exists(metric.path, option))
        if missing:
            yield from missing
            continue
        try:
            if metric.is_coco:
                yield from _coco(metric, option, read)
            elif metric.names & {'LVISMetric', 'CocoPanopticMetric'}:
                yield from _images_alone(metric, option)
        except UserError as error:
            yield Finding('not a COCO file', str(error), (metric.path, ))


def _without_file(cfg, split, found):
    """A CocoMetric gets its ground truth from a file or from the samples."""
    given = cfg.get(f'{split}_evaluator') or ()
    files = [one.below_root(one.config['ann_file']) for one in found
             if one.config.get('ann_file')]
    packed = [one.transform('PackDetInputs') for one in found]
    for option, config, _ in _listed(given, f'{split}_evaluator'):
        if name_of(config.get('type')) == 'CocoMetric' and not (
                config.get('ann_file') or config.get('format_only')) and any(
                step and 'instances' not in step.get('meta_keys', ())
                for step in packed):
            yield Finding(
                'evaluator without file',
                f'{option} has no ann_file, and the data has no instances in '
                'the meta_keys of PackDetInputs: set '
                f'{option}.ann_file{" to " + files[0] if files else ""}',
                (option, ))


def _images_alone(metric, option):
    """Compare the images of files that are not read as COCO's are."""
    if metric.twin() is not None:
        return
    ids = {str(one.get('id')) for one in parse(metric.path)['images']}
    for source in metric.sources:
        path = source.below_root(source.config['ann_file'])
        if not source.is_a('CocoDataset') or not osp.isfile(path):
            continue
        rows = source.subset(parse(path)['images'])
        lost = [one for one in rows if str(one.get('id')) not in ids]
        if lost:
            yield _no_image(
                option, metric.path, path, len(rows),
                [(one.get('id'), one.get('file_name')) for one in lost])


def _no_image(option, path, data, total, lost):
    number, name = lost[0][:2]
    return Finding(
        'evaluator without image',
        f'{option} names {path}, which has no image of the id {number!r} '
        f'({name}) of {data}: {len(lost)} of {total} images of the data; set '
        f'{option} to {data}', [one[1] for one in lost])


def _coco(metric, option, read):
    twin = metric.twin()
    masks = metric.segm or bool(twin is not None and twin.transform(
        'LoadAnnotations').get('with_mask'))
    file = read(metric.path if twin is None else twin.below_root(
        twin.config['ann_file']), masks)
    compared, unlike = [], []
    for source in metric.sources:
        path = source.below_root(source.config['ann_file'])
        if not is_coco(source) or not osp.isfile(path):
            continue
        data = file if _same(path, metric.path) else read(path, bool(
            source.transform('LoadAnnotations').get('with_mask')))
        classes = _classes(source)
        used = [data.images[at]
                for at in used_images(source, data, classes)]
        compared.append(used)
        unlike += () if data is file else _compare(
            metric, option, file, data, used, classes)
    twice = list(_twice(option, compared))
    yield from twice or unlike
    if twin is None:
        yield from (one for one in file.findings if one.error)
    if compared and metric.scores and not twice and not any(
            one.error for one in unlike):
        yield from _more_images(option, file, compared)
    if metric.scores:
        classes = _classes(metric.sources[0]) if metric.sources else ()
        yield from _needs(metric, option, file, classes, twin)


def _classes(source):
    try:
        return tuple(source.classes or ())
    except UserError:
        return ()  # the check of the data set says so


def _twice(option, compared):
    """Ids that two data sets give."""
    count = Counter(one[0] for used in compared for one in used)
    twice = [one for one, number in count.items() if number > 1]
    if twice:
        yield Finding(
            'image id in two data sets',
            f'{option}: the data sets give an image of the id {twice[0]!r} '
            f'more than once: {len(twice)} of {len(count)} ids; the metric '
            'would join their predictions: number the images anew, or use '
            "mmengine's MultiDatasetsEvaluator", twice)


def _more_images(option, file, compared):
    """Images of the evaluator that no data set gives."""
    given = {one[0] for used in compared for one in used}
    more = [name for number, name, _, _ in file.images
            if number not in given]
    if more:
        yield Finding(
            'evaluator with more images',
            f'{option} names {file.path}, whose image {more[0]!r} is not '
            f'evaluated: {len(more)} of {len(file.images)} images; their '
            'boxes count as not found', more, error=False)


def _compare(metric, option, file, data, used, classes):
    """Compare the evaluator's file with the file of a data set."""
    there = {one[0]: one for one in file.images}
    lost = [one for one in used if one[0] not in there]
    if lost:
        yield _no_image(option, file.path, data.path, len(used), lost)
        return
    order = _order(data, classes)
    other = _order(file, classes, metric.config.get('sort_categories'))
    if order != other:
        yield Finding(
            'categories of the evaluator',
            f'{option} names {file.path}, which has the classes '
            f'({some(other)}); {data.path} has ({some(order)}), and labels '
            f'are numbered by that: set {option} to {data.path}', other)
        return
    changed, moved, boxed = _boxes(file, data, used, classes)
    if not metric.scores:
        changed = moved = []
    renamed = [(one, there[one[0]]) for one in used
               if _stem(one) != _stem(there[one[0]])]
    resized = [(one, there[one[0]]) for one in used
               if one[2:] != there[one[0]][2:]]
    unlike = renamed or resized
    # Where the boxes are the same, it is the same image renamed.
    if unlike:
        one, two = unlike[0]
        yield Finding(
            'evaluator of other images',
            f'{option} names {file.path}, where the image of the id '
            f'{one[0]!r} is {_described(two)}; in {data.path} it is '
            f'{_described(one)}: {len(unlike)} of {len(used)} images; set '
            f'{option} to {data.path}', [one[1] for one, _ in unlike],
            not boxed or bool(moved) or bool(resized and metric.segm))
        if moved:
            return
    if changed:
        most = len(moved) > len(boxed) / 2
        first = (moved if most else changed)[0]
        yield Finding(
            'evaluator of other annotations',
            f'{option} names {file.path}, where the image {first[1]!r} has '
            f'other boxes than in {data.path}: {len(changed)} of '
            f'{len(boxed)} images with boxes'
            + (f'; set {option} to {data.path}' if most else ''),
            [one[1] for one in changed], most)


def _stem(image):
    name = image[1].replace('\\', '/')
    return osp.splitext(osp.basename(name))[0]


def _described(image):
    return f'{image[1]!r} of {image[2]:g}x{image[3]:g}'


def _order(file, classes, by_number=False):
    categories = sorted(file.categories) if by_number else file.categories
    return [name for _, name in categories if name in classes]


def _boxes(file, data, used, classes):
    """Images that have other boxes in the evaluator's file.

    Returns:
        tuple[list, list, list]: Images that have any other box, that have
        mostly others, and that have boxes at all.
    """
    theirs, changed, moved, boxed = _by_image(file, classes), [], [], []
    ours = _by_image(data, classes)
    nothing = np.zeros((0, 5))
    for image in used:
        one = ours.get(image[0])
        if one is None:
            continue
        boxed.append(image)
        two = theirs.get(image[0], nothing)
        if np.array_equal(one, two):
            continue
        found = (abs(one[:, None] - two[None]).max(2, initial=0)
                 <= _NEAR).any(1)
        if len(one) != len(two) or not found.all():
            changed.append(image)
        if found.mean() < .5:
            moved.append(image)
    return changed, moved, boxed


def _by_image(file, classes):
    """Boxes by the id of the image, after a number for their class."""
    which = np.flatnonzero(
        chosen(file, classes) & (file.image >= 0) & ~file.crowd
        & np.isfinite(file.boxes).all(1))
    which = which[np.argsort(file.image[which], kind='stable')]
    number = {name: at for at, name in enumerate(classes)}
    labels = np.array([number.get(name, -1) for _, name in file.categories])
    # So far apart that no box of another class is near.
    rows = np.column_stack([labels[file.category[which]] * 1e6,
                            file.boxes[which]]) if len(which) else []
    places, starts = np.unique(file.image[which], return_index=True)
    return {file.images[at][0]: part for at, part in zip(
        places, np.split(rows, starts[1:]))} if len(which) else {}


def _needs(metric, option, file, classes, twin):
    """What COCO's evaluation needs of the annotations."""
    for key in ('area', 'iscrowd', 'id'):
        if key in file.lacking:
            yield lacks(file, key)
    if 'bbox' in file.lacking:
        names = [file.named.name(at) for at in file.lacking['bbox']]
        yield Finding(
            'malformed annotation',
            f'{file.path}: {names[0]} has no bbox of four numbers: '
            f'{len(names)} of {len(file.image)} annotations; the evaluation '
            'would fail on it: correct it', names)
    if metric.wanted != ['proposal_fast']:
        for what, ids in (('image', [one[0] for one in file.images]),
                          ('category', [one[0] for one in file.categories])):
            texts = [one for one in ids if isinstance(one, str)]
            if None in ids or 0 < len(texts) < len(ids):
                odd = None if None in ids else texts[0]
                yield Finding(
                    'ids of several kinds',
                    f'{file.path} has the {what} id {odd!r} beside '
                    f'{next(one for one in ids if one not in texts)!r}: the '
                    'evaluation cannot sort them: write numbers alone, or '
                    'text alone', tuple(ids))
    if metric.segm:
        yield from _masks(option, file, chosen(file, classes), twin)


def _masks(option, file, which, twin):
    said = twin is not None and twin.transform('LoadAnnotations').get(
        'with_mask')
    found = [(at, kind, text) for at, (kind, text) in file.masks.items()
             if which[at] and not (said and file.kept[at])]
    unread = [one for one in found if one[1] in UNREAD]
    if unread:
        names = [file.named.name(at) for at, _, _ in unread]
        yield Finding(
            'annotation that segm cannot evaluate',
            f'{file.path}: {names[0]} has {unread[0][2]}: {len(names)} of '
            f'{len(which)} annotations; the metric segm of {option[:-9]} '
            "needs masks: correct them, or leave 'segm' out", names)
    left_out = [at for at, (kind, _) in file.masks.items()
                if which[at] and kind in LEFT_OUT]
    if left_out:
        names = [file.named.name(at) for at in left_out]
        yield Finding(
            'annotation without mask',
            f'{file.path}: {names[0]} has {file.masks[left_out[0]][1]}: '
            f'{len(names)} of {len(which)} annotations; in a completed copy, '
            'which a run writes to its work_dir, the evaluation ignores what '
            'training leaves out', names, many(len(left_out), len(which)))
