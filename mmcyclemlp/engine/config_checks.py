"""See that a config has what a command asks of it."""

import logging

from mmengine.logging import print_log
from mmengine.registry import (
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    VISUALIZERS,
)

from ..errors import UserError
from .config_nodes import find_type, loop_of, name_of, unknown_type

# What mmdet 2.x and mmseg 0.x called what is missing.
_OLD_NAMES = {
    'train_dataloader': ('data', ),
    'val_dataloader': ('data', ),
    'test_dataloader': ('data', ),
    'train_cfg': ('runner', 'total_epochs', 'total_iters'),
    'optim_wrapper': ('optimizer', 'optimizer_config'),
    'val_evaluator': ('evaluation', ),
    'test_evaluator': ('evaluation', ),
}
_IGNORED = {
    'optimizer_config': 'optim_wrapper.clip_grad',
    'lr_config': 'param_scheduler',
    'checkpoint_config': 'default_hooks.checkpoint',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'total_epochs': 'train_cfg.max_epochs',
}
# Keys that mm takes together.
_PARTS = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
_LIMITS = {
    'EpochBasedTrainLoop': 'max_epochs',
    'IterBasedTrainLoop': 'max_iters',
}


def check_config(cfg, action):
    """Report in one error all that a config lacks or has in an old form.

    Old keys that mm ignores are logged when nothing is missing.

    Args:
        cfg (Config): As ``read_config`` returns it.
        action (str): 'train', 'test' or 'check'.

    Raises:
        UserError: Something has to be changed in the config.
    """
    mistakes = [*_model(cfg)]
    if action == 'check':
        if not any(cfg.get(keys[0]) for keys in _PARTS.values()):
            mistakes.append(_missing(cfg, ['train_dataloader']))
    else:
        mistakes += _parts(cfg, action)
        mistakes += _hooks_and_scale(cfg)
    for split in _PARTS:
        mistakes += _loader(cfg, split)
        if action != 'check' and split != 'train':
            mistakes += _evaluator(cfg, f'{split}_evaluator')
    if action != 'check':
        mistakes += _unknown_types(cfg, action)
    if mistakes:
        raise UserError(f'{cfg.filename}: {"; ".join(mistakes)}')
    for key, new in _IGNORED.items():
        if action == 'train' and key in cfg:
            print_log(f'{cfg.filename}: {key} is of mmdet 2.x or mmseg 0.x '
                      f'and is ignored: use {new}', 'current',
                      logging.WARNING)


def _model(cfg):
    """Mistakes in what all commands need."""
    model = cfg.get('model')
    if model is None:
        yield 'model is missing: add model=dict(type=...)'
    elif not isinstance(model, dict):
        yield f'model is a {type(model).__name__}: make it a dict'
    elif 'type' not in model:
        yield "model has no type: set model.type, e.g. 'RetinaNet'"


def _parts(cfg, action):
    """Mistakes in keys that mm takes together or not at all."""
    for part, keys in _PARTS.items():
        absent = [key for key in keys if cfg.get(key) is None]
        if not absent or part != action and len(absent) == len(keys):
            continue
        if part == action:
            yield _missing(cfg, absent)
        else:
            there = [key for key in keys if key not in absent]
            yield (f'{_names(there)} without {_names(absent)}: set all three '
                   f'of {", ".join(keys)}, or set all to None')
    if cfg.get('param_scheduler') is not None and (
            action != 'train' and cfg.get('optim_wrapper') is None):
        yield ('param_scheduler without optim_wrapper: set param_scheduler '
               'to None')
    loop = cfg.get('train_cfg')
    if loop is not None and not isinstance(loop, dict):
        yield f'train_cfg is a {type(loop).__name__}: make it a dict'
    elif loop is not None and action == 'train':
        limit = _LIMITS.get(loop_of(loop))
        if limit and limit not in loop:
            yield f'train_cfg has no {limit}: set train_cfg.{limit}'


def _unknown_types(cfg, action):
    """Types that mm would not find, with the keys that ask for them."""
    parts = ('train', 'val') if action == 'train' else ('test', )
    asked = [(f'{part}_cfg', LOOPS) for part in parts]
    asked += [(f'{part}_evaluator', METRICS) for part in parts[-1:]]
    if action == 'train':
        asked += [('optim_wrapper', OPTIM_WRAPPERS),
                  ('optim_wrapper.optimizer', OPTIMIZERS),
                  ('param_scheduler', PARAM_SCHEDULERS)]
    asked += [('default_hooks', HOOKS), ('custom_hooks', HOOKS),
              ('model', MODELS), ('visualizer', VISUALIZERS)]
    for option, registry in asked:
        with registry.switch_scope_and_registry(
                cfg.get('default_scope', 'mmengine')) as found:
            for name, kind in _types(option, _get(cfg, option)):
                if find_type(kind, found) is None:
                    yield unknown_type(name, kind)


def _get(cfg, option):
    first, *others = option.split('.')
    node = cfg.get(first)
    for key in others:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _types(option, node):
    """Names and types of one part of a config, of a list or dict of them."""
    if isinstance(node, (list, tuple)):
        for place, one in enumerate(node):
            yield from _types(f'{option}[{place}]', one)
    elif isinstance(node, dict) and 'metrics' in node:
        yield from _types(f'{option}.metrics', node['metrics'])
    elif isinstance(node, dict) and 'type' in node:
        yield option, node['type']
    elif option == 'default_hooks' and isinstance(node, dict):
        for key, one in node.items():
            yield from _types(f'{option}.{key}', one)


def _missing(cfg, keys):
    old = sorted({name for key in keys for name in _OLD_NAMES.get(key, ())
                  if name in cfg})
    text = f'{_names(keys)} {"is" if len(keys) == 1 else "are"} missing'
    if not old:
        return f'{text} or None: add {"it" if len(keys) == 1 else "them"}'
    return (f'{text}: {_names(old)} {"is" if len(old) == 1 else "are"} in '
            'the form of mmdet 2.x or mmseg 0.x, write the config anew for '
            'mmdet 3.x or mmseg 1.x (their docs have a migration page, and '
            'print_config lists configs to start from)')


def _names(keys):
    *first, last = keys
    return f'{", ".join(first)} and {last}' if first else last


def _hooks_and_scale(cfg):
    """Mistakes in keys that may be left out."""
    hooks = cfg.get('default_hooks')
    if hooks is not None and not isinstance(hooks, dict):
        yield f'default_hooks is a {type(hooks).__name__}: make it a dict'
    scale = cfg.get('auto_scale_lr') or {}
    if scale.get('enable') and 'base_batch_size' not in scale:
        yield ('auto_scale_lr is enabled without auto_scale_lr.'
               'base_batch_size: set the batch size that the learning rate '
               'is for')


def _loader(cfg, split):
    """Mistakes in the data loader of a split."""
    key = f'{split}_dataloader'
    loader = cfg.get(key)
    if isinstance(loader, (list, tuple)):
        # A loop of the user's own may take several.
        loop = cfg.get(f'{split}_cfg')
        if name_of((loop or {}).get('type')) in (
                '', 'ValLoop', 'TestLoop', *_LIMITS):
            yield (f"{key} is a list: make it one dict, with dataset="
                   "dict(type='ConcatDataset', datasets=[...])")
        return
    if not isinstance(loader, dict):
        return
    if 'dataset' not in loader:
        yield f'{key} has no dataset: set {key}.dataset'
        return
    if isinstance(loader.dataset, (list, tuple)):
        yield (f"{key}.dataset is a list: make it dict(type='ConcatDataset', "
               'datasets=[...])')
    elif isinstance(loader.dataset, dict) and 'type' not in loader.dataset:
        yield f"{key}.dataset has no type: set {key}.dataset.type"
    if 'sampler' not in loader:
        yield (f"{key} has no sampler: set {key}.sampler=dict(type="
               f"'DefaultSampler', shuffle={split == 'train'})")


def _evaluator(cfg, key):
    """Mistakes in an evaluator, which may be a list."""
    found = cfg.get(key)
    for one in found if isinstance(found, (list, tuple)) else [found]:
        if isinstance(one, dict) and not {'type', 'metrics'} & set(one):
            yield f'{key} has no type: set {key}.type'
