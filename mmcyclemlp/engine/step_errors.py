"""Find the config keys that cause a failed step.

It looks at the model, at the batch and at the local variables of the
traceback, never at the text of the exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError, describe

_PACKING = 'a transform such as PackDetInputs, PackSegInputs or PackInputs'


def explain(model: nn.Module, step: str, error: Exception, batch: Any = None,
            loader: str | None = None, dataset: Any = None) -> UserError:
    """Describe in one line the exception that a step raised.

    Args:
        model (nn.Module): The whole model, possibly inside DDP.
        step (str): Name of the step for the message.
        error (Exception): The exception, as it was caught.
        batch (Any): The batch, if the data loader returned one.
            Default: None.
        loader (str | None): Name of the data loader in the config.
            Default: None.
        dataset (Dataset | None): Its data set. Default: None.

    Returns:
        UserError: Error with the config keys that cause the failure if they
        are known, and with the part of the model that failed.
    """
    model = getattr(model, 'module', model)
    names = {module: f'model.{name}' for name, module in
             model.named_modules() if name}
    findings = []
    if batch is not None:
        findings += _check_batch(model, names, batch, loader)
        findings += _check_class_weights(names)
    elif dataset is not None:
        findings += _check_packing(dataset, loader)
    place, frame = '', {}
    for frame in _frames(error):
        module = frame.get('self')
        if isinstance(module, nn.Module) and module in names:
            place = f' in {names[module]}'
            findings += _check_batch_norm(
                names[module], module, frame.get('input'))
            findings += _check_in_channels(names, module, frame.get('input'))
    meta = frame.get('img_meta')
    if isinstance(meta, dict) and 'scale_factor' not in meta and (
            loader != 'train_dataloader'):
        findings.append(
            f'{loader}.dataset.pipeline packs no scale_factor, with which '
            'boxes are scaled back: add a Resize transform')
    if isinstance(error, torch.cuda.OutOfMemoryError):
        findings.append(f'the GPU has too little memory: make {loader}.'
                        'batch_size or the images smaller')
    reason = f'{step} fails{place}: {describe(error)}'
    if findings:
        reason = f'{"; ".join(dict.fromkeys(findings))} ({reason})'
    return UserError(reason)


def samples_of(batch: Any) -> list:
    """Return the data samples of a batch, [] if it has no such list."""
    found = batch.get('data_samples') if isinstance(batch, dict) else None
    return list(found) if isinstance(found, (list, tuple)) else []


def has_one_value(value: torch.Tensor) -> bool:
    """Return whether a tensor (B, C, ...) has one value per channel."""
    return value.dim() > 1 and value.numel() == value.shape[1]


def _frames(error: Exception) -> Iterator[dict]:
    """Iterate over the local variables of all calls, from the outermost."""
    place = error.__traceback__
    while place is not None:
        yield place.tb_frame.f_locals
        place = place.tb_next


def _check_batch_norm(name, module, value):
    """Find a batch norm that has one value per channel."""
    if not isinstance(module, _BatchNorm) or not module.training or not (
            isinstance(value, torch.Tensor) and has_one_value(value)):
        return []
    return [f'{name} gets a 1x1 map of one image, but batch norm needs more '
            'than one value per channel: set train_dataloader.batch_size to '
            '2 or more']


def _check_in_channels(names, module, value):
    """Find a layer whose input has another number of channels."""
    if isinstance(module, nn.Conv2d):
        expected, axis = module.in_channels, 1
    elif isinstance(module, nn.Linear):
        expected, axis = module.in_features, -1
    else:
        return []
    if not isinstance(value, torch.Tensor) or value.dim() < 2 or (
            value.shape[axis] == expected):
        return []
    name = names[module]
    owner = next((other for part, other in names.items()
                  if hasattr(part, 'in_channels')
                  and f'{name}.'.startswith(f'{other}.')), name)
    return [f'{name} expects {expected} channels and gets '
            f'{value.shape[axis]}: make {owner}.in_channels equal to the '
            'channels of the layer before']


def _check_class_weights(names):
    """Find class weights of another number than the classes."""
    findings = []
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
        expected = _class_weight_sizes(head, loss)
        if _is_binary(loss):
            if len(weight) > 1:
                findings.append(
                    f'{name}.class_weight has {len(weight)} values, but with '
                    'use_sigmoid=True mmseg expects one: give one value, or '
                    'set use_sigmoid=False')
        elif len(weight) not in expected:
            background = ' and background' if (
                head.num_classes not in expected) else ''
            findings.append(
                f'{name}.class_weight has {len(weight)} values for '
                f'{head.num_classes} classes{background}: give one value for '
                'each')
    return findings


def _is_binary(loss):
    """Return whether a loss is mmseg's cross entropy with a sigmoid."""
    return getattr(loss, 'use_sigmoid', False) and (
        f'{type(loss).__module__}.{type(loss).__name__}'
        == 'mmseg.models.losses.cross_entropy_loss.CrossEntropyLoss')


def _class_weight_sizes(head, loss):
    """Return the numbers of class weights that may fit a head."""
    if not getattr(loss, 'use_sigmoid', False):
        for name in ('fc_cls', 'cls_embed'):
            count = getattr(getattr(head, name, None), 'out_features', None)
            if count is not None:
                return {count}
        if hasattr(head, 'cls_out_channels'):
            return {head.cls_out_channels}
    return {head.num_classes, getattr(head, 'out_channels', None)}


def _check_packing(dataset, loader):
    """Check that the pipeline ends in a transform that packs its results."""
    # Not `leaves`: the pipeline of MultiImageMixDataset packs, not that of
    # its inner data set.
    while not hasattr(dataset, 'pipeline'):
        inner = getattr(dataset, 'datasets', None) or [
            getattr(dataset, 'dataset', None)]
        if inner[0] is None:
            return []
        dataset = inner[0]
    steps = getattr(dataset.pipeline, 'transforms', dataset.pipeline)
    last = type(steps[-1]).__name__ if steps else 'nothing'
    if 'Pack' in last:
        return []
    return [f'{loader}.dataset.pipeline ends in {last}: end it with '
            f'{_PACKING}']


def _check_batch(model, names, batch, loader):
    """Find what the model does not accept in a batch."""
    pipeline = f'{loader}.dataset.pipeline'
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(batch, (list, tuple)) or isinstance(batch, dict) and (
            'inputs' not in batch and hasattr(preprocessor, 'mean')):
        return [f'{pipeline} returns no inputs: end it with {_PACKING}']
    findings = []
    samples = samples_of(batch)
    if samples and not any(map(_has_annotations, samples)):
        findings.append(f'{pipeline} returns no annotations: add '
                        'LoadAnnotations, and pack what it loads')
    if loader == 'train_dataloader' and _lack_masks(names, samples):
        findings.append(f'{pipeline} returns no masks: set with_mask=True '
                        'in LoadAnnotations')
    findings += _check_image_channels(model, batch, loader)
    for sample in samples:
        found = _check_labels(names, sample)
        if found:
            return [*findings, found[0]]
    return findings


def _check_image_channels(model, batch, loader):
    """Find images with another number of channels than the model expects."""
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    if not isinstance(inputs, (list, tuple, torch.Tensor)):
        return []
    found = {len(image) for image in inputs
             if isinstance(image, torch.Tensor)}
    preprocessor = getattr(model, 'data_preprocessor', None)
    mean = getattr(preprocessor, 'mean', None)
    backbone = getattr(model, 'backbone', None) or nn.Identity()
    expected = next((one.in_channels for one in backbone.modules()
                     if isinstance(one, nn.Conv2d)), None)
    count = len(mean.view(-1)) if isinstance(mean, torch.Tensor) else 1
    if count > 1 and found - {count}:
        # mmengine's preprocessor accepts 1 or 3 values.
        fix = ('set mean and std to one value, or to None and normalize in '
               'a transform'
               if isinstance(preprocessor, ImgDataPreprocessor)
               else 'give mean and std one value for each')
        return [f'model.data_preprocessor.mean has {count} values, but '
                f'{loader} returns images of {max(found - {count})} '
                f'channels: {fix}, and set model.backbone.in_channels']
    if expected is not None and found - {expected}:
        return [f'model.backbone.in_channels is {expected}, but {loader} '
                f'returns images of {max(found - {expected})} channels: '
                'set it to this number']
    return []


def _lack_masks(names, samples):
    """Return whether there is a mask head, but no masks to train it."""
    found = [one.gt_instances for one in samples if 'gt_instances' in one]
    return bool(found) and not any('masks' in one for one in found) and any(
        name.endswith('.mask_head') for name in names.values())


def _has_annotations(sample):
    if not isinstance(sample, BaseDataElement):
        return True  # unknown, so that nothing is reported
    return any(name.startswith('gt_') and (
        not isinstance(value, BaseDataElement) or len(value.keys()))
        for name, value in sample.items())


def _check_labels(names, sample):
    """Find labels for which a head has no output."""
    if not isinstance(sample, BaseDataElement):
        return []
    findings, by_head = [], {}
    if 'gt_instances' in sample and 'labels' in sample.gt_instances:
        by_head['bbox_head'] = sample.gt_instances.labels
    if 'gt_sem_seg' in sample and 'data' in sample.gt_sem_seg:
        by_head['decode_head'] = sample.gt_sem_seg.data
        by_head['auxiliary_head'] = sample.gt_sem_seg.data
    if isinstance(sample.get('gt_label'), torch.Tensor):
        by_head['head'] = sample.gt_label
    for module, name in names.items():
        labels = by_head.get(name.rpartition('.')[2])
        count = getattr(module, 'num_classes', None)
        if labels is None or not isinstance(count, int) or count < 2:
            continue
        labels = labels[labels != getattr(module, 'ignore_index', -1)]
        if len(labels) and int(labels.max()) >= count:
            findings.append(
                f'{sample.get("img_path", "an image")} has label '
                f'{int(labels.max())}, but {name}.num_classes is {count}: '
                f'labels must be 0 to {count - 1}')
    return findings
