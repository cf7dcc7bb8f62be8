"""Look up types, parts of models and data sets in a config.

This module imports no mm library, so that commands that need only torch can
use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.registry import Registry


def name_of(kind: Any) -> str:
    """Return the name of a type in a config, without scope or module.

    Args:
        kind (str | type | None): What a config has as ``type``.

    Returns:
        str: Such as ``RetinaNet``; empty if there is no type.
    """
    kind = getattr(kind, '__name__', kind)
    return kind.rpartition('.')[2] if isinstance(kind, str) else ''


def loop_of(train_cfg: dict) -> str:
    """Return the name of the training loop of a config.

    Args:
        train_cfg (dict): The ``train_cfg`` of the config.

    Returns:
        str: Such as ``EpochBasedTrainLoop``.
    """
    return name_of(train_cfg.get('type')) or (
        'EpochBasedTrainLoop' if train_cfg.get('by_epoch', True)
        else 'IterBasedTrainLoop')


def find_type(kind: Any, registry: Registry) -> Any:
    """Find a class as mm does.

    Args:
        kind (str | type): What a config has as ``type``.
        registry (Registry): Registry that mm builds it from.

    Returns:
        type | None: The class; None if no installed library has it.
    """
    if not isinstance(kind, str):
        return kind
    try:
        return registry.get(kind)
    except Exception:  # mm raises several types for names such as '' and '.'
        return None


def unknown_type(option: str, kind: str) -> str:
    """Return the message about a ``type`` that was not found."""
    return (f'{option}.type is {kind!r}, which no installed library has: '
            'check the name and custom_imports')


def is_mm(one: Any) -> bool:
    """Return whether the class of an object is from an mm library.

    Args:
        one (object): A transform, metric or the like.

    Returns:
        bool: False for a class of the user.
    """
    return type(one).__module__.partition('.')[0] in (
        'mmcv', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain')


def all_nodes(node: Any) -> Iterator[dict]:
    """Iterate over all dicts of a config that have a type.

    Args:
        node (dict | list | Any): A part of a config.

    Yields:
        dict: Each such dict, a parent before its children.
    """
    if isinstance(node, dict):
        if 'type' in node:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for one in node:
            yield from all_nodes(one)


def leaves(dataset: Any) -> list:
    """Return the data sets inside wrappers such as ConcatDataset.

    Args:
        dataset (dict | Dataset): A data set, or its config.

    Returns:
        list: Data sets, or their configs, in order.
    """
    inner = _get(dataset, 'datasets') or _get(dataset, 'dataset')
    if inner is None:
        return [dataset]
    inner = inner if isinstance(inner, (list, tuple)) else [inner]
    return [leaf for one in inner for leaf in leaves(one)]


def networks(model: dict) -> Iterator[dict]:
    """Iterate over the configs of all CycleNets in the config of a model."""
    return (node for node in all_nodes(model)
            if name_of(node['type']).startswith(('CycleNet', 'CycleMLP_')))


def is_classifier(model: Any) -> bool:
    """Return whether a model is a classifier with a CycleNet.

    All weights of such a model are in the backbone.

    Args:
        model (dict | nn.Module): A model or a CycleNet, or its config.

    Returns:
        bool: Whether the CycleNet has a head (``fork_feat=False``).
    """
    if isinstance(model, dict):  # test-time augmentation wraps the model
        model = model.get('module', model)
    backbone = _get(model, 'backbone') or model
    return _get(backbone, 'fork_feat') is False


def _get(node, name):
    return (node.get(name) if isinstance(node, dict)
            else getattr(node, name, None))
