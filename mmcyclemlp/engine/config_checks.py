"""Check that a config has what a command needs."""

from __future__ import annotations

import logging

from mmengine.config import Config
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

# Names in mmdet 2.x and mmseg 0.x of what is missing.
_OLD_NAMES = {
    'train_dataloader': ('data', ),
    'val_dataloader': ('data', ),
    'test_dataloader': ('data', ),
    'train_cfg': ('runner', 'total_epochs', 'total_iters'),
    'optim_wrapper': ('optimizer', 'optimizer_config'),
    'val_evaluator': ('evaluation', ),
    'test_evaluator': ('evaluation', ),
}
# Names there that mm ignores, and what replaces them.
_IGNORED = {
    'optimizer_config': 'optim_wrapper.clip_grad',
    'lr_config': 'param_scheduler',
    'checkpoint_config': 'default_hooks.checkpoint',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'total_epochs': 'train_cfg.max_epochs',
}
# Keys that mm needs together.
_PARTS = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
_LIMITS = {
    'EpochBasedTrainLoop': 'max_epochs',
    'IterBasedTrainLoop': 'max_iters',
}


def check_config(cfg: Config, action: str) -> None:
    """Check a config, and report all mistakes in one error.

    Old keys that mm ignores are logged if there is no mistake.

    Args:
        cfg (Config): Config from ``read_config``.
        action (str): 'train', 'test' or 'check'.

    Raises:
        UserError: The config lacks something, or has it in an old form.
    """
    mistakes = _check_model(cfg)
    if action == 'check':
        if not any(cfg.get(keys[0]) for keys in _PARTS.values()):
            mistakes.append(_missing(cfg, ['train_dataloader']))
    else:
        mistakes += _check_parts(cfg, action)
        if action == 'train':
            mistakes += _check_train_cfg(cfg)
        mistakes += _check_hooks_and_scale(cfg)
    for split in _PARTS:
        mistakes += _check_loader(cfg, split)
        if action != 'check' and split != 'train':
            mistakes += _check_evaluator(cfg, f'{split}_evaluator')
    if action != 'check':
        mistakes += _check_types(cfg, action)
    if mistakes:
        raise UserError(f'{cfg.filename}: {"; ".join(mistakes)}')
    for key, new in _IGNORED.items():
        if action == 'train' and key in cfg:
            print_log(f'{cfg.filename}: {key} is of mmdet 2.x or mmseg 0.x '
                      f'and is ignored: use {new}', 'current',
                      logging.WARNING)


def _check_model(cfg: Config) -> list[str]:
    """Check the part of a config that all commands need."""
    model = cfg.get('model')
    if model is None:
        return ['model is missing: add model=dict(type=...)']
    if not isinstance(model, dict):
        return [f'model is a {type(model).__name__}: make it a dict']
    if 'type' not in model:
        return ["model has no type: set model.type, e.g. 'RetinaNet'"]
    return []


def _check_parts(cfg: Config, action: str) -> list[str]:
    """Check keys that mm needs together or not at all."""
    mistakes = []
    for part, keys in _PARTS.items():
        absent = [key for key in keys if cfg.get(key) is None]
        if not absent or part != action and len(absent) == len(keys):
            continue
        if part == action:
            mistakes.append(_missing(cfg, absent))
        else:
            present = [key for key in keys if key not in absent]
            mistakes.append(
                f'{_names(present)} without {_names(absent)}: set all three '
                f'of {", ".join(keys)}, or set all to None')
    if cfg.get('param_scheduler') is not None and (
            action != 'train' and cfg.get('optim_wrapper') is None):
        mistakes.append('param_scheduler without optim_wrapper: set '
                        'param_scheduler to None')
    loop = cfg.get('train_cfg')
    if loop is not None and not isinstance(loop, dict):
        mistakes.append(
            f'train_cfg is a {type(loop).__name__}: make it a dict')
    return mistakes


def _check_train_cfg(cfg: Config) -> list[str]:
    """Check that mm's training loops have a length."""
    loop = cfg.get('train_cfg')
    limit = isinstance(loop, dict) and _LIMITS.get(loop_of(loop))
    if limit and limit not in loop:
        return [f'train_cfg has no {limit}: set train_cfg.{limit}']
    return []


def _check_types(cfg: Config, action: str) -> list[str]:
    """Check that mm finds all types."""
    mistakes = []
    parts = ('train', 'val') if action == 'train' else ('test', )
    options = [(f'{part}_cfg', LOOPS) for part in parts]
    options += [(f'{part}_evaluator', METRICS) for part in parts[-1:]]
    if action == 'train':
        options += [('optim_wrapper', OPTIM_WRAPPERS),
                    ('optim_wrapper.optimizer', OPTIMIZERS),
                    ('param_scheduler', PARAM_SCHEDULERS)]
    options += [('default_hooks', HOOKS), ('custom_hooks', HOOKS),
                ('model', MODELS), ('visualizer', VISUALIZERS)]
    for option, registry in options:
        with registry.switch_scope_and_registry(
                cfg.get('default_scope', 'mmengine')) as found:
            for name, kind in _types(option, _get(cfg, option)):
                if find_type(kind, found) is None:
                    mistakes.append(unknown_type(name, kind))
    return mistakes


def _get(cfg, option):
    first, *others = option.split('.')
    node = cfg.get(first)
    for key in others:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _types(option, node):
    """Iterate over names and types of a part of a config."""
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
            'the form of mmdet 2.x or mmseg 0.x, rewrite the config for '
            'mmdet 3.x or mmseg 1.x (their docs have a migration page, and '
            'python -m mmcyclemlp print_config lists configs to start '
            'from)')


def _names(keys):
    *first, last = keys
    return f'{", ".join(first)} and {last}' if first else last


def _check_hooks_and_scale(cfg: Config) -> list[str]:
    """Check optional keys."""
    mistakes = []
    hooks = cfg.get('default_hooks')
    if hooks is not None and not isinstance(hooks, dict):
        mistakes.append(
            f'default_hooks is a {type(hooks).__name__}: make it a dict')
    scale = cfg.get('auto_scale_lr') or {}
    if scale.get('enable') and 'base_batch_size' not in scale:
        mistakes.append(
            'auto_scale_lr is enabled without auto_scale_lr.base_batch_size:'
            ' set the batch size that the learning rate is for')
    return mistakes


def _check_loader(cfg: Config, split: str) -> list[str]:
    """Check the data loader of a split."""
    key = f'{split}_dataloader'
    loader = cfg.get(key)
    if isinstance(loader, (list, tuple)):
        # A loop of the user may accept several data loaders.
        loop = cfg.get(f'{split}_cfg')
        if name_of((loop or {}).get('type')) in (
                '', 'ValLoop', 'TestLoop', *_LIMITS):
            return [f"{key} is a list: make it one dict, with dataset="
                    "dict(type='ConcatDataset', datasets=[...])"]
        return []
    if not isinstance(loader, dict):
        return []
    if 'dataset' not in loader:
        return [f'{key} has no dataset: set {key}.dataset']
    mistakes = []
    if isinstance(loader.dataset, (list, tuple)):
        mistakes.append(f"{key}.dataset is a list: make it dict(type="
                        "'ConcatDataset', datasets=[...])")
    elif isinstance(loader.dataset, dict) and 'type' not in loader.dataset:
        mistakes.append(f'{key}.dataset has no type: set {key}.dataset.type')
    if 'sampler' not in loader:
        mistakes.append(f"{key} has no sampler: set {key}.sampler=dict(type="
                        f"'DefaultSampler', shuffle={split == 'train'})")
    return mistakes


def _check_evaluator(cfg: Config, key: str) -> list[str]:
    """Check an evaluator, which may be a list."""
    found = cfg.get(key)
    return [f'{key} has no type: set {key}.type'
            for one in (found if isinstance(found, (list, tuple))
                        else [found])
            if isinstance(one, dict) and not {'type', 'metrics'} & set(one)]
