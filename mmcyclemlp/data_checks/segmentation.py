"""Check labels of segmentation against classes, heads and ignore index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ..engine.config_nodes import all_nodes, name_of
from ..engine.randomness import seeded
from .images import by_pillow, spread
from .report import Report, some
from .sources import Source, evaluators, heads, is_binary

# Images that run through the whole pipeline, to find out if mm pads them.
_PADDED = 8


def check_own_classes(report: Report, source: Source,
                      classes: Sequence[str] | None) -> None:
    """Check that a data set of mmseg has the classes of the config."""
    known = source.metainfo.get('classes', classes) or ()
    foreign = sorted(set(classes or ()) - set(known))
    if foreign:
        report.error(
            'class name that the data set does not have',
            f'{source.option}.metainfo.classes has {some(foreign)}, which '
            f"{source.config['type']} does not have: select from its own "
            "classes, or use type='BaseSegDataset'", foreign)


def check_binary(report: Report, cfg: Config,
                 classes: Sequence[str]) -> None:
    """Check the heads that tell two classes apart by one channel.

    Args:
        report (Report): Where to add what is wrong.
        cfg (Config): The config, for its heads and metrics.
        classes (Sequence[str]): Class names of a data set.
    """
    for name, head in heads(cfg):
        if not is_binary(head):
            continue
        losses = head.get('loss_decode') or ()
        for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
            if name_of(loss.get('type')) == 'CrossEntropyLoss' and not (
                    loss.get('use_sigmoid')):
                report.error(
                    'one channel without sigmoid',
                    f'{name} has one output channel, where softmax is 1 '
                    f'everywhere: set {name}.loss_decode.use_sigmoid=True, '
                    'or num_classes=2 and no out_channels', (name, ))
        if len(classes) == 1:
            report.add(
                'one class name for two classes',
                f'{name} has one output channel, for the labels 0 and 1, and '
                f'the data has one class name, {classes[0]!r}. IoUMetric '
                'counts both labels as that class: write two names, '
                f"metainfo=dict(classes=('background', {classes[0]!r}))",
                (name, ), any(
                    name_of(metric['type']) == 'IoUMetric'
                    for split in ('val', 'test')
                    for metric in all_nodes(cfg.get(f'{split}_evaluator'))))


def check_labels(report: Report, cfg: Config, source: Source,
                 dataset: BaseDataset, classes: Sequence[str] | None,
                 opened: list, whole: bool) -> None:
    """Check the labels that the pipeline loads.

    Args:
        report (Report): Where to add what is wrong.
        cfg (Config): The config, for its heads and metrics.
        source (Source): The data set.
        dataset (BaseDataset): The data set as mm builds it.
        classes (Sequence[str] | None): Its class names.
        opened (list[Opened]): Samples with the pixels of their label maps.
        whole (bool): Whether these are all the samples.
    """
    counted = heads(cfg)
    number = len(classes or ()) or min(
        (head['num_classes'] for _, head in counted), default=0)
    if any(is_binary(head) for _, head in counted):
        number = max(number, 2)
    opened = [one for one in opened if one.pixels]
    if not number or not opened:
        return
    ignored = _ignored(cfg, source, counted)
    wrong = _report_labels(report, source, opened, number, ignored)
    _check_padding(report, cfg, source, dataset, number, ignored)
    seen = Counter()
    for one in opened:
        seen.update(one.pixels)
    labels = set(range(number))
    if source.get('reduce_zero_label') and not wrong and 255 in seen and (
            labels - set(seen) == {number - 1}):
        report.add(
            'reduce_zero_label',
            f'{source.option}.reduce_zero_label is True, which makes 1 the '
            f'first of {number} classes, but the label maps that were opened '
            f'have all labels of 0 to {number - 1} and none {number}: 0 looks '
            'like a class; set it to False there and in LoadAnnotations',
            (source.option, ), error=whole and source.split == 'train')
    if set(seen) == {0, 255} and number == 2 and not wrong:
        report.error(
            'masks of 0 and 255',
            f'{_name(opened[0])} has the labels 0 and 255, and 255 is the '
            'ignore index, so that no pixel is of the class '
            f'{(classes or labels)[1]}: {len(opened)} label maps were '
            'opened; write 1 in place of 255' + by_pillow(source),
            map(_name, opened))
    elif whole:
        _report_empty(report, source, classes or range(number), seen, opened)


def _name(one):
    return one.sample.label_map or one.sample.image


def _report_labels(report, source, opened, number, ignored):
    """Report labels that are neither a class nor ignored; return them."""
    fine = set(range(number))
    index = set(ignored.values())
    index = index if len(index) == 1 else set()
    changed = [(_name(one), value, kept) for one in opened
               for value, kept in one.lost.items()
               # It does no harm where it becomes the ignore index.
               if kept not in index - fine or not float(value).is_integer()]
    if changed:
        name, value, kept = changed[0]
        files = list(dict.fromkeys(name for name, _, _ in changed))
        report.error(
            'label out of range',
            f'{name} has the label {value!r}, and mm keeps 8 bits of it and '
            f'reads {kept}: {len(files)} of {len(opened)} label maps that '
            'were opened; write whole numbers from 0 to 255', files)
    reduced = bool(source.get('reduce_zero_label'))
    wrong = {}
    for one in opened:
        # These are reported above.
        cut = {kept - reduced for kept in one.lost.values()}
        for value in set(one.pixels) - fine - index - cut:
            wrong.setdefault(value, []).append(_name(one))
    unlabeled = ', '.join(f'{name} {value}'
                          for name, value in ignored.items())
    for value, files in sorted(wrong.items()):
        stored = (f'{value + 1}, which mm reads as {value}'
                  if reduced and 0 <= value < 255 else f'{value}')
        report.error(
            'label out of range',
            f'{files[0]} has the label {stored}, which is neither a class (0 '
            f'to {number - 1}) nor the ignore index ({unlabeled}): '
            f'{len(files)} of {len(opened)} label maps that were opened; '
            f'{_remedy(value, number, source)}', files)
    return wrong


def _ignored(cfg, source, counted):
    """Return the ignore index of each head or metric by its name."""
    if source.split == 'train':
        found = {f'{name}.ignore_index': head.get('ignore_index', 255)
                 for name, head in counted}
    else:
        found = {f'{source.split}_evaluator.ignore_index':
                 one.get('ignore_index', 255)
                 for one in evaluators(cfg, source.split)}
    return found or {'ignore_index': 255}


def _remedy(value, number, source):
    if number == 2 and value == 255:
        return 'write 1 in place of 255' + by_pillow(source)
    if source.get('reduce_zero_label'):
        return ('reduce_zero_label=True reads 0 as unlabeled and 1 as the '
                'first class: set it to False if 0 is a class in these files')
    text = (f'if {value} is unlabeled, set ignore_index={value} in every head '
            f'and metric and seg_pad_val={value} in the data_preprocessor; '
            'else correct the label maps or num_classes')
    return ('if 0 is unlabeled, set reduce_zero_label=True (data set and '
            f'LoadAnnotations); {text}' if value == number else text)


def _check_padding(report, cfg, source, dataset, number, ignored):
    """Check that mm pads label maps with the ignore index."""
    preprocessor = cfg.model.get('data_preprocessor') or {}
    padding = preprocessor.get('seg_pad_val', 255)
    odd = [name for name, index in ignored.items() if index != padding]
    size = preprocessor.get('size')
    if source.split != 'train' or not size or not odd:
        return
    if padding < number:
        error, effect = False, f'mm trains padding as class {padding}'
    else:
        error = _is_padded(dataset, size)
        effect = ('a batch with a smaller image '
                  + ('fails' if error else 'would fail'))
    report.add(
        'padding that is not a label',
        f'model.data_preprocessor.seg_pad_val is {padding}, but {odd[0]} is '
        f'{ignored[odd[0]]}: {effect}; make them equal', odd, error)


def _is_padded(dataset, size):
    """Whether the pipeline makes an image that is smaller than this."""
    for place in spread(range(len(dataset)), _PADDED):
        try:
            with seeded(0, place):
                image = dataset.pipeline(
                    dataset.get_data_info(place))['inputs']
        except Exception:  # it is reported as a pipeline that fails
            continue
        if image.shape[-2] < size[0] or image.shape[-1] < size[1]:
            return True
    return False


def _report_empty(report, source, classes, seen, opened):
    """Report classes and label maps without a pixel to learn from."""
    lacking = [str(name) for label, name in enumerate(classes)
               if label not in seen]
    if lacking:
        report.remark(
            'class without example',
            f'no label map of {source.option} has the classes '
            f'{some(lacking)}', lacking)
    labels = set(range(len(classes)))
    empty = [_name(one) for one in opened if not labels & set(one.pixels)]
    if empty:
        report.add(
            'images without ground truth',
            f'{empty[0]} has no pixel of a class: {len(empty)} of '
            f'{len(opened)} label maps ({len(empty) / len(opened):.1%})',
            empty, error=len(empty) == len(opened))
