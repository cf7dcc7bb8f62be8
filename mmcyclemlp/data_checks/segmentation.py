"""Labels of segmentation against classes, heads and ignore index."""

from collections import Counter

from ..engine.config_nodes import all_nodes, name_of
from ..engine.randomness import seeded
from .findings import Finding, some
from .images import by_pillow, spread
from .sources import evaluators, heads, is_binary

# Images that are put through the whole pipeline to see whether mm pads them.
_PADDED = 8


def check_segmentation(source, classes):
    """Check the settings of mmseg's BaseSegDataset kind.

    Args:
        source (Source): The data set.
        classes (Sequence[str] | None): Its class names.

    Yields:
        Finding: What is wrong.
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
    reduce = bool(source.get('reduce_zero_label'))
    given = source.transform('LoadAnnotations').get('reduce_zero_label')
    if given is not None and bool(given) != reduce:
        yield Finding(
            'reduce_zero_label',
            f'{source.option}.reduce_zero_label is {reduce}, and the '
            f'LoadAnnotations of its pipeline has {given}: mm would fail in '
            'the first step; make them equal', (source.option, ))


def check_binary(cfg, classes):
    """Check the heads that tell two classes apart by one channel.

    Args:
        cfg (Config): The config, for its heads and metrics.
        classes (Sequence[str]): Class names of a data set.

    Yields:
        Finding: What is wrong.
    """
    for name, head in heads(cfg):
        if not is_binary(head):
            continue
        losses = head.get('loss_decode') or ()
        for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
            if name_of(loss.get('type')) == 'CrossEntropyLoss' and not (
                    loss.get('use_sigmoid')):
                yield Finding(
                    'one channel without sigmoid',
                    f'{name} has one output channel, of which softmax makes '
                    f'1 everywhere: set {name}.loss_decode.use_sigmoid=True, '
                    'or num_classes=2 and no out_channels', (name, ))
        if len(classes) == 1:
            yield Finding(
                'one class name for two classes',
                f'{name} has one output channel, for the labels 0 and 1, and '
                f'the data has one class name, {classes[0]!r}. IoUMetric '
                'counts both labels as that class: give two names, '
                f"metainfo=dict(classes=('background', {classes[0]!r}))",
                (name, ), any(
                    name_of(metric['type']) == 'IoUMetric'
                    for split in ('val', 'test')
                    for metric in all_nodes(cfg.get(f'{split}_evaluator'))))


def check_labels(cfg, source, dataset, classes, opened, whole):
    """Check the labels as the pipeline gives them.

    Args:
        cfg (Config): The config, for its heads and metrics.
        source (Source): The data set.
        dataset (BaseDataset): The same as mm builds it.
        classes (Sequence[str] | None): Its class names.
        opened (list[Opened]): Samples with the pixels of their label maps.
        whole (bool): Whether these are all the samples.

    Yields:
        Finding: What is wrong.
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
    fine = set(range(number))
    if len(set(ignored.values())) == 1:
        fine |= set(ignored.values())
    for harmless in (False, True):
        yield from _lost(opened, fine - set(range(number)), harmless)
    wrong = {}
    for one in opened:
        # What is reported as cut to 8 bits is not reported again.
        cut = {kept - bool(source.get('reduce_zero_label'))
               for kept in one.lost.values()}
        for value in set(one.pixels) - fine - cut:
            wrong.setdefault(value, []).append(_name(one))
    unlabelled = ', '.join(f'{name} {index}'
                           for name, index in ignored.items())
    for value, files in sorted(wrong.items()):
        yield Finding(
            'label out of range',
            f'{files[0]} has the label {_stored(value, source)}, which is '
            f'neither a class (0 to {number - 1}) nor the ignore index '
            f'({unlabelled}): {len(files)} of {len(opened)} label maps that '
            f'were opened; {_remedy(value, number, wrong, source)}', files)
    yield from _padding(cfg, source, dataset, number, ignored)
    seen = Counter()
    for one in opened:
        seen.update(one.pixels)
    yield from _zero(source, number, seen, wrong, whole)
    yield from _absent(source, classes or range(number), seen, opened,
                       ignored, wrong, whole)


def _name(one):
    return one.sample.label_map or one.sample.image


def _stored(value, source):
    """A label, and what the file has in its place."""
    if source.get('reduce_zero_label') and 0 <= value < 255:
        return f'{value + 1}, which mm reads as {value}'
    return f'{value}'


def _lost(opened, ignored, harmless):
    """Values of label files that mm's cast to 8 bits changes.

    Those that it makes the ignore index are harmless.
    """
    found = [(_name(one), value, kept) for one in opened
             for value, kept in one.lost.items() if harmless == (
                 kept in ignored and float(value).is_integer())]
    if found:
        name, value, kept = found[0]
        files = list(dict.fromkeys(name for name, _, _ in found))
        yield Finding(
            'label out of range',
            f'{name} has the label {value!r}, and mm keeps 8 bits of it and '
            f'reads {kept}: {len(files)} of {len(opened)} label maps that '
            'were opened; ' + (
                'that is the ignore index' if harmless else
                'write whole numbers from 0 to 255'), files, not harmless)


def _zero(source, number, seen, wrong, whole):
    if source.get('reduce_zero_label') and not wrong and 255 in seen and {
            *range(number - 1)} <= set(seen) and number - 1 not in seen:
        yield Finding(
            'reduce_zero_label',
            f'{source.option}.reduce_zero_label is True and takes 1 for the '
            f'first of {number} classes, but the label maps that were opened '
            f'have all labels of 0 to {number - 1} and none {number}: 0 looks '
            'like a class; set it to False there and in LoadAnnotations',
            (source.option, ), error=whole and source.split == 'train')


def _absent(source, classes, seen, opened, ignored, wrong, whole):
    """Classes and maps without a pixel to learn from."""
    number = len(classes)
    index = next(iter(ignored.values()))
    if number == 2 and not wrong and set(seen) == {0, 255} and index == 255:
        yield Finding(
            'masks of 0 and 255',
            f'{_name(opened[0])} has the labels 0 and 255, and 255 is the '
            f'ignore index, so that no pixel is of the class {classes[1]}: '
            f'{len(opened)} label maps were opened; write 1 in place of 255'
            + by_pillow(source),
            [_name(one) for one in opened])
        return
    if not whole:
        return
    lacking = [str(classes[label]) for label in range(number)
               if label not in seen]
    if lacking:
        yield Finding(
            'class without example',
            f'no label map of {source.option} has the classes '
            f'{some(lacking)}', lacking, error=False)
    empty = [_name(one) for one in opened if not any(
        0 <= value < number for value in one.pixels)]
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


def _remedy(value, number, wrong, source):
    if number == 2 and value == 255:
        return ('write 1 in place of 255, the second class'
                + by_pillow(source))
    if source.get('reduce_zero_label'):
        return ('reduce_zero_label=True takes 0 for unlabelled and makes it '
                '255, and 1 for the first class; is that so in these files?')
    if value == number:
        return ('if 0 is unlabelled in these files, set reduce_zero_label='
                f'True (data set and LoadAnnotations); if {value} is, set '
                f'ignore_index={value} in every head and metric and '
                f'seg_pad_val={value} in the data_preprocessor')
    if len(wrong) > 1:
        return ('if these are shades or indices of other classes, map them '
                'to 0, 1, 2, ... or correct num_classes')
    return (f'if {value} is unlabelled, set ignore_index={value} in every '
            f'head and metric and seg_pad_val={value} in the '
            'data_preprocessor; else correct the label maps or num_classes')


def _padding(cfg, source, dataset, number, ignored):
    """What mm pads label maps with is no label either."""
    preprocessor = cfg.model.get('data_preprocessor') or {}
    padding = preprocessor.get('seg_pad_val', 255)
    odd = [name for name, index in ignored.items() if index != padding]
    size = preprocessor.get('size')
    if source.split != 'train' or not size or not odd:
        return
    if padding < number:
        error, effect = False, f'what is padded is trained as class {padding}'
    else:
        error = _is_padded(dataset, size)
        effect = ('a batch with a smaller image '
                  + ('fails' if error else 'would fail'))
    yield Finding(
        'padding that is no label',
        f'model.data_preprocessor.seg_pad_val is {padding}, but {odd[0]} is '
        f'{ignored[odd[0]]}: {effect}; make them equal', odd, error)


def _is_padded(dataset, size):
    """Whether the pipeline gives an image that is smaller than this."""
    for place in spread(range(len(dataset)), _PADDED):
        try:
            with seeded(0, place):
                image = dataset.pipeline(
                    dataset.get_data_info(place))['inputs']
        except Exception:  # reported as a pipeline that fails
            continue
        if image.shape[-2] < size[0] or image.shape[-1] < size[1]:
            return True
    return False
