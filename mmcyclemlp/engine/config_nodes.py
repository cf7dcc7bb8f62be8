"""What stands in a config: types, nodes and data sets."""


def name_of(kind):
    """Name of a type in a config: a class, or text with a scope or none."""
    kind = getattr(kind, '__name__', kind)
    return kind.rpartition('.')[2] if isinstance(kind, str) else ''


def loop_of(train_cfg):
    """Name of the training loop that a config asks for.

    Args:
        train_cfg (dict): As the config has it.

    Returns:
        str: Such as ``EpochBasedTrainLoop``.
    """
    return name_of(train_cfg.get('type')) or (
        'EpochBasedTrainLoop' if train_cfg.get('by_epoch', True)
        else 'IterBasedTrainLoop')


def find_type(kind, registry):
    """Find a class as mm does.

    Args:
        kind (str | type): What a config has as ``type``.
        registry (Registry): Where mm looks for it.

    Returns:
        type | None: None if no installed library has it.
    """
    if not isinstance(kind, str):
        return kind
    try:
        return registry.get(kind)
    except Exception:  # mm raises several for names such as '' and '.'
        return None


def unknown_type(option, kind):
    """Message on a ``type`` that was not found."""
    return (f'{option}.type is {kind!r}, which no installed library knows: '
            'check the name and custom_imports')


def is_mm(one):
    """Whether an object is of a class of mm's own.

    Args:
        one (object): A transform, metric or the like.

    Returns:
        bool: False for a class of the user's.
    """
    return type(one).__module__.partition('.')[0] in (
        'mmcv', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain')


def all_nodes(node):
    """All dicts of a config, itself first.

    Args:
        node (dict | list | Any): A part of a config.

    Yields:
        dict: Each dict in it that has a type.
    """
    if isinstance(node, dict):
        if 'type' in node:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for one in node:
            yield from all_nodes(one)


def leaves(dataset):
    """The data sets inside wrappers such as ConcatDataset.

    Args:
        dataset (dict | Dataset): A data set, or its config.

    Returns:
        list: Of the same kind, in order.
    """
    get = (dataset.get if isinstance(dataset, dict)
           else lambda name: getattr(dataset, name, None))
    inner = get('datasets') or get('dataset')
    if inner is None:
        return [dataset]
    inner = inner if isinstance(inner, (list, tuple)) else [inner]
    return [leaf for one in inner for leaf in leaves(one)]


def networks(model):
    """Configs of the networks of the package, wherever they are in a model."""
    return (node for node in all_nodes(model)
            if name_of(node['type']).startswith(('CycleNet', 'CycleMLP_')))
