"""Which keys of a config are to blame for a step that failed.

Found by looking at the model, at the batch and at the frames of the
exception, never at its text.
"""

import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError, describe


def explain(model, step, error, batch=None, loader=None, dataset=None):
    """Turn what a step raised into one line.

    Args:
        model (nn.Module): The whole model, perhaps in what distributes it.
        step (str): What failed.
        error (Exception): As it was caught.
        batch (Any): What the data loader gave, if it did. Default: None.
        loader (str | None): Name of the data loader in the config.
            Default: None.
        dataset (Dataset | None): Its data set. Default: None.

    Returns:
        UserError: With the keys of the config that are to blame, or with
        the part of the model that failed.
    """
    model = getattr(model, 'module', model)
    names = {module: f'model.{name}' for name, module in
             model.named_modules() if name}
    findings = []
    if batch is not None:
        findings += _of_batch(model, names, batch, loader)
        findings += _class_weights(names)
    elif dataset is not None:
        findings += _unpacked(dataset, loader)
    place, frame = '', {}
    for frame in _frames(error):
        module = frame.get('self')
        if isinstance(module, nn.Module) and module in names:
            place = f' in {names[module]}'
            findings += _norm(names[module], module, frame.get('input'))
            findings += _input_channels(names, module, frame.get('input'))
    meta = frame.get('img_meta')
    if isinstance(meta, dict) and 'scale_factor' not in meta and (
            loader != 'train_dataloader'):
        findings.append(
            f'{loader}.dataset.pipeline packs no scale_factor, which boxes '
            'are scaled back by: add a Resize transform')
    if isinstance(error, torch.cuda.OutOfMemoryError):
        findings.append(f'the GPU has too little memory: make {loader}.'
                        'batch_size or the images smaller')
    reason = f'{step} fails{place}: {describe(error)}'
    if findings:
        reason = f'{"; ".join(dict.fromkeys(findings))} ({reason})'
    return UserError(reason)


def samples_of(batch):
    """The data samples of a batch, [] if it is of another form."""
    found = batch.get('data_samples') if isinstance(batch, dict) else None
    return list(found) if isinstance(found, (list, tuple)) else []


def one_value(value):
    """Whether a batch has one value per channel."""
    return value.dim() > 1 and value.numel() == value.shape[1]


def _frames(error):
    """Local variables of all calls that an exception passed, outer first."""
    place = error.__traceback__
    while place is not None:
        yield place.tb_frame.f_locals
        place = place.tb_next


def _norm(name, module, value):
    """A batch norm that has one value for each channel."""
    if not isinstance(module, _BatchNorm) or not module.training or not (
            isinstance(value, torch.Tensor) and one_value(value)):
        return
    yield (f'{name} gets a map of 1x1 of one image, and batch norm needs '
           'more than one value per channel: set train_dataloader.'
           'batch_size to 2 or more')


def _input_channels(names, module, value):
    """A layer that gets another number of channels than it takes."""
    if isinstance(module, nn.Conv2d):
        takes, axis = module.in_channels, 1
    elif isinstance(module, nn.Linear):
        takes, axis = module.in_features, -1
    else:
        return
    if not isinstance(value, torch.Tensor) or value.dim() < 2 or (
            value.shape[axis] == takes):
        return
    name = names[module]
    owner = next((other for part, other in names.items()
                  if hasattr(part, 'in_channels')
                  and f'{name}.'.startswith(f'{other}.')), name)
    yield (f'{name} takes {takes} channels and gets {value.shape[axis]}: '
           f'make {owner}.in_channels fit what is before it')


def _class_weights(names):
    """Weights of classes that are not one for each."""
    by_name = {name: module for module, name in names.items()}
    for name, loss in by_name.items():
        weight = getattr(loss, 'class_weight', None)
        if not isinstance(weight, (list, tuple, torch.Tensor)) or not len(
                getattr(weight, 'shape', [0])):
            continue
        parent = name.rpartition('.')[0]
        while parent and not hasattr(by_name.get(parent), 'num_classes'):
            parent = parent.rpartition('.')[0]
        head = loss if hasattr(loss, 'num_classes') else by_name.get(parent)
        if head is None:
            continue
        expected = _outputs(head, loss)
        if _is_binary(loss):
            if len(weight) > 1:
                yield (f'{name}.class_weight has {len(weight)} values, and '
                       'with use_sigmoid=True mmseg takes one: give one, or '
                       'set use_sigmoid=False')
        elif len(weight) not in expected:
            background = ' and background' if (
                head.num_classes not in expected) else ''
            yield (f'{name}.class_weight has {len(weight)} values for '
                   f'{head.num_classes} classes{background}: give one value '
                   'for each')


def _is_binary(loss):
    """Whether it is mmseg's cross entropy with a sigmoid."""
    return getattr(loss, 'use_sigmoid', False) and (
        f'{type(loss).__module__}.{type(loss).__name__}'
        == 'mmseg.models.losses.cross_entropy_loss.CrossEntropyLoss')


def _outputs(head, loss):
    """Numbers of weights that may fit the outputs of a head."""
    if not getattr(loss, 'use_sigmoid', False):
        for name in ('fc_cls', 'cls_embed'):
            count = getattr(getattr(head, name, None), 'out_features', None)
            if count is not None:
                return {count}
        if hasattr(head, 'cls_out_channels'):
            return {head.cls_out_channels}
    return {head.num_classes, getattr(head, 'out_channels', None)}


def _unpacked(dataset, loader):
    """A pipeline that does not end in what mm's models take."""
    while not hasattr(dataset, 'pipeline'):
        inner = getattr(dataset, 'datasets', None) or [
            getattr(dataset, 'dataset', None)]
        if inner[0] is None:
            return
        dataset = inner[0]
    steps = getattr(dataset.pipeline, 'transforms', dataset.pipeline)
    last = type(steps[-1]).__name__ if steps else 'nothing'
    if 'Pack' not in last:
        yield (f'{loader}.dataset.pipeline ends in {last}: end it with '
               f'{_PACKING}')


_PACKING = 'a transform such as PackDetInputs, PackSegInputs or PackInputs'


def _of_batch(model, names, batch, loader):
    """What the batch has that the model does not take."""
    pipeline = f'{loader}.dataset.pipeline'
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(batch, (list, tuple)) or isinstance(batch, dict) and (
            'inputs' not in batch and hasattr(preprocessor, 'mean')):
        yield f'{pipeline} gives no inputs: end it with {_PACKING}'
        return
    samples = samples_of(batch)
    if samples and not any(map(_has_truth, samples)):
        yield (f'{pipeline} gives no annotations: add LoadAnnotations, and '
               'pack what it loads')
    if loader == 'train_dataloader' and _lack_masks(names, samples):
        yield (f'{pipeline} gives no masks: set with_mask=True in '
               'LoadAnnotations')
    yield from _channels(model, batch, loader)
    for sample in samples:
        found = list(_labels(names, sample))
        if found:
            yield found[0]
            return


def _channels(model, batch, loader):
    """Images of another number of channels than the model takes."""
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    if not isinstance(inputs, (list, tuple, torch.Tensor)):
        return
    gives = {len(image) for image in inputs
             if isinstance(image, torch.Tensor)}
    preprocessor = getattr(model, 'data_preprocessor', None)
    mean = getattr(preprocessor, 'mean', None)
    backbone = getattr(model, 'backbone', None) or nn.Identity()
    takes = next((one.in_channels for one in backbone.modules()
                  if isinstance(one, nn.Conv2d)), None)
    count = len(mean.view(-1)) if isinstance(mean, torch.Tensor) else 1
    if count > 1 and gives - {count}:
        # Where the normalization is mmengine's, it is of 1 or 3 values.
        few = isinstance(preprocessor, ImgDataPreprocessor)
        yield (f'model.data_preprocessor.mean has {count} values, and '
               f'{loader} gives images of {max(gives - {count})} channels: '
               + ('set mean and std to one value, or to None and normalize '
                  'in a transform' if few else
                  'give mean and std one value for each')
               + ', and set model.backbone.in_channels')
    elif takes is not None and gives - {takes}:
        yield (f'model.backbone.in_channels is {takes}, and {loader} gives '
               f'images of {max(gives - {takes})} channels: set it')


def _lack_masks(names, samples):
    """Whether a mask head gets no masks to learn from."""
    found = [one.gt_instances for one in samples if 'gt_instances' in one]
    return bool(found) and not any('masks' in one for one in found) and any(
        name.endswith('.mask_head') for name in names.values())


def _has_truth(sample):
    if not isinstance(sample, BaseDataElement):
        return True  # of a form that is not known
    return any(name.startswith('gt_') and (
        not isinstance(value, BaseDataElement) or len(value.keys()))
        for name, value in sample.items())


def _labels(names, sample):
    """Labels that no output of a head is for."""
    if not isinstance(sample, BaseDataElement):
        return
    found = {}
    if 'gt_instances' in sample and 'labels' in sample.gt_instances:
        found['bbox_head'] = sample.gt_instances.labels
    if 'gt_sem_seg' in sample and 'data' in sample.gt_sem_seg:
        found['decode_head'] = sample.gt_sem_seg.data
    if isinstance(sample.get('gt_label'), torch.Tensor):
        found['head'] = sample.gt_label
    for module, name in names.items():
        head = name.rpartition('.')[2]
        labels = found.get('decode_head' if head == 'auxiliary_head'
                           else head)
        count = getattr(module, 'num_classes', None)
        if labels is None or not isinstance(count, int) or count < 2:
            continue
        labels = labels[labels != getattr(module, 'ignore_index', -1)]
        if len(labels) and int(labels.max()) >= count:
            yield (f'{sample.get("img_path", "an image")} has label '
                   f'{int(labels.max())}, and {name}.num_classes is {count}: '
                   f'labels go from 0 to {count - 1}')
