"""Read the data sets of a config, and the heads that count classes."""

from __future__ import annotations

import inspect
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, MODELS

from ..engine.config_nodes import find_type, leaves, name_of, unknown_type
from ..errors import UserError
from .report import Report, some


@dataclass
class Source:
    """One data set of a config, without the wrappers around it.

    Attributes:
        split (str): 'train', 'val' or 'test'.
        config (dict): Its part of the config.
        kind (type): Its class.
    """

    split: str
    config: dict
    kind: type

    def __post_init__(self):
        self.option = f'{self.split}_dataloader.dataset'
        self.root = self.config.get('data_root') or ''
        self.metainfo = getattr(self.kind, 'METAINFO', {})

    def get(self, name: str) -> Any:
        """Return an argument of the config, else its default."""
        if name in self.config:
            return self.config[name]
        return init_defaults(self.kind).get(name)

    def below_root(self, path: str) -> str:
        """Return a path with ``data_root`` in front."""
        return osp.join(self.root, path)

    @property
    def folders(self) -> dict[str, str]:
        """Folders of ``data_prefix`` by name."""
        prefixes = self.config.get('data_prefix') or {}
        if isinstance(prefixes, str):
            prefixes = dict(img_path=prefixes)
        return {name: self.below_root(prefix)
                for name, prefix in prefixes.items() if prefix is not None}

    @property
    def listed(self) -> str:
        """File of annotations or names, '' if there is none."""
        path = self.config.get('ann_file')
        if not path and self.is_a('ImageNet') and self.config.get('split'):
            path = osp.join('meta', f'{self.config["split"]}.txt')
            if not osp.exists(self.below_root(path)):
                return ''
        return self.below_root(path) if path else ''

    @property
    def remote(self) -> bool:
        """Whether only mm's file backends reach the files."""
        backend = (self.config.get('backend_args') or {}).get('backend')
        return '://' in self.root or backend not in (None, 'local')

    def is_a(self, name: str) -> bool:
        """Whether its class or a base of it has this name."""
        return name in {base.__name__ for base in self.kind.__mro__}

    def reads_like(self, name: str, *methods: str) -> bool:
        """Whether its class has the methods of the base of this name."""
        base = next((base for base in self.kind.__mro__
                     if base.__name__ == name), None)
        return base is not None and all(
            getattr(self.kind, method) is getattr(base, method)
            for method in methods)

    @property
    def classes(self) -> Sequence[str] | None:
        """Class names of the config, else those of its class.

        Raises:
            UserError: mm would ignore them or take a text for names.
        """
        given = dict(self.config.get('metainfo') or {})
        if self.config.get('classes'):  # of mmpretrain
            given['classes'] = self.config['classes']
        own = self.metainfo.get('classes')
        if 'classes' not in given and given.get('CLASSES', own) != own:
            raise UserError(f'{self.option}.metainfo has CLASSES, which mm '
                            'ignores: write classes')
        names = given.get('classes', own)
        if isinstance(names, str):
            if osp.isfile(names):
                return list_from_file(names)
            raise UserError(
                f'metainfo.classes of {self.split}_dataloader is the text '
                f"'{names}': write a tuple of names, ('{names}', ), or "
                'an existing file with one name per line')
        return names

    def subset(self, items: list) -> list:
        """Return the items that ``indices`` selects."""
        indices = self.config.get('indices')
        if indices is None:
            return items
        if isinstance(indices, int):
            return items[:indices] if indices >= 0 else items[indices:]
        return [items[place] for place in indices]

    def unfiltered(self) -> Source:
        """Return the same data set with all of its images."""
        config = {key: value for key, value in self.config.items()
                  if key != 'filter_cfg'}
        return replace(self, config=config)

    def transform(self, name: str) -> dict:
        """Return the first transform of this name, {} if there is none."""
        return next((one for one in self.config.get('pipeline') or ()
                     if name_of(one['type']) == name), {})


def sources(cfg: Config, split: str) -> list[Source]:
    """Return the data sets of a split, without wrappers around them.

    Raises:
        UserError: No installed library knows the type of one.
    """
    loaders = cfg.get(f'{split}_dataloader') or []
    if not isinstance(loaders, (list, tuple)):  # for a loop of the user
        loaders = [loaders]
    found = []
    with DATASETS.switch_scope_and_registry(
            cfg.get('default_scope', 'mmengine')) as registry:
        for leaf in (one for loader in loaders
                     for one in leaves(loader.dataset)):
            kind = find_type(leaf['type'], registry)
            if kind is None:
                raise UserError(unknown_type(f'{split}_dataloader.dataset',
                                             leaf['type']))
            found.append(Source(split, leaf, kind))
    return found


def init_defaults(kind: type) -> dict[str, Any]:
    """Return default arguments of a class, also those of its bases."""
    defaults = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base):
            for name, parameter in inspect.signature(
                    base.__init__).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def evaluators(cfg: Config, split: str) -> list[dict]:
    """Return the evaluators of a split as a list."""
    found = cfg.get(f'{split}_evaluator') or []
    return found if isinstance(found, (list, tuple)) else [found]


def exists(report: Report, path: str, option: str) -> bool:
    """Whether a file or folder is there; report it if it is not."""
    if '://' in path or osp.exists(osp.expanduser(path)):
        return True
    report.error(
        'missing file', f'{option} names {path}, which does not exist: put '
        f'the data there or set {option} (and data_root)', (path, ))
    return False


def paths_exist(report: Report, source: Source) -> bool:
    """Whether the paths of a data set are there; report missing ones."""
    option = source.option
    # Where the root is missing, all below it is missing too.
    if source.root and not exists(report, source.root, f'{option}.data_root'):
        return False
    paths = {f'{option}.data_prefix.{name}': folder
             for name, folder in source.folders.items()
             # mmdet's Mask2Former names a folder that it does not read.
             if name != 'seg' or source.kind.__name__ != 'CocoDataset'
             or source.transform('LoadAnnotations').get('with_seg')}
    if source.listed:
        paths = {f'{option}.ann_file': source.listed, **paths}
    found = [exists(report, path, name) for name, path in paths.items()]
    return all(found)


def check_heads(report: Report, cfg: Config, source: Source,
                classes: Sequence[str]) -> None:
    """Check that every head counts the classes that the data has."""
    for name, head in heads(cfg):
        if is_binary(head) and len(classes) in (1, 2):
            continue
        if head['num_classes'] != len(classes):
            report.error(
                'class count of a head',
                f'{name}.num_classes is {head["num_classes"]}, but the '
                f'{source.split} data has {len(classes)} classes '
                f'({some(classes)}): make them equal', (name, ))


def is_binary(head: dict) -> bool:
    """Whether a head of mmseg tells two classes apart by one channel."""
    return 'threshold' in head and 1 in (
        head['num_classes'], head.get('out_channels'))


_HEADS = ('bbox_head', 'mask_head', 'mask_iou_head', 'decode_head',
          'auxiliary_head')


def heads(cfg: Config) -> list[tuple[str, dict]]:
    """Return name and arguments of every head that counts classes.

    Arguments that the config leaves out have their defaults.
    """
    found = []
    with MODELS.switch_scope_and_registry(
            cfg.get('default_scope', 'mmengine')) as registry:
        for name, node in _nodes(cfg.model, 'model'):
            kind = find_type(node['type'], registry)
            found.append((name, {
                **(init_defaults(kind) if kind else {}), **node}))
    return [(name, head) for name, head in found if 'num_classes' in head]


def _nodes(node, name):
    if isinstance(node, dict):
        kind = name.split('.')[-1].split('[')[0]
        if kind in _HEADS and 'type' in node and (
                not node.get('class_agnostic')):
            yield name, node
        for key, value in node.items():
            yield from _nodes(value, f'{name}.{key}')
    elif isinstance(node, (list, tuple)):
        for place, value in enumerate(node):
            yield from _nodes(value, f'{name}[{place}]')
