"""What a config says of its data sets and of the heads that count classes."""

import inspect
import os.path as osp
from dataclasses import dataclass, replace

from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, MODELS

from ..engine.config_nodes import find_type, leaves, name_of, unknown_type
from ..errors import UserError
from .findings import Finding, some


@dataclass
class Source:
    """One data set of a config, without the wrappers around it.

    Attributes:
        split (str): 'train', 'val' or 'test'.
        config (dict): What the config says of it.
        kind (type): Its class.
    """

    split: str
    config: dict
    kind: type

    def __post_init__(self):
        self.option = f'{self.split}_dataloader.dataset'
        self.root = self.config.get('data_root') or ''
        self.metainfo = getattr(self.kind, 'METAINFO', {})

    def get(self, name):
        """An argument: what the config gives, else the default."""
        if name in self.config:
            return self.config[name]
        return init_defaults(self.kind).get(name)

    def below_root(self, path):
        return osp.join(self.root, path)

    @property
    def folders(self):
        """Folders by name, as far as the config gives them."""
        return {name: self.below_root(prefix) for name, prefix in (
            self.config.get('data_prefix') or {}).items()
            if prefix is not None}

    @property
    def remote(self):
        """Whether files lie where only mm's file backends reach them."""
        backend = (self.config.get('backend_args') or {}).get('backend')
        return '://' in self.root or backend not in (None, 'local')

    def is_a(self, name):
        return name in {base.__name__ for base in self.kind.__mro__}

    def reads_like(self, name, *methods):
        """Whether it reads its files as the base of this name does."""
        base = next((base for base in self.kind.__mro__
                     if base.__name__ == name), None)
        return base is not None and all(
            getattr(self.kind, method) is getattr(base, method)
            for method in methods)

    @property
    def classes(self):
        """Names that the config gives, else those that the class has."""
        given = self.config.get('metainfo') or {}
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
                'an existing file with a name a line')
        return names

    def subset(self, items):
        """What ``indices`` leaves of a list."""
        indices = self.config.get('indices')
        if indices is None:
            return items
        if isinstance(indices, int):
            return items[:indices] if indices >= 0 else items[indices:]
        return [items[place] for place in indices]

    def unfiltered(self):
        """The same data set with all of its images."""
        config = {key: value for key, value in self.config.items()
                  if key != 'filter_cfg'}
        return replace(self, config=config)

    def transform(self, name):
        """The first transform of this name in the pipeline, {} if none."""
        return next((one for one in self.config.get('pipeline') or ()
                     if name_of(one['type']) == name), {})


def sources(cfg, split):
    """The data sets of a split, inside wrappers such as ConcatDataset.

    Raises:
        UserError: No installed library knows the type of one.
    """
    loaders = cfg.get(f'{split}_dataloader') or []
    if not isinstance(loaders, (list, tuple)):  # of a loop of the user's own
        loaders = [loaders]
    scope = cfg.get('default_scope', 'mmengine')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return [Source(split, leaf, _kind(leaf, split, registry))
                for loader in loaders for leaf in leaves(loader.dataset)]


def _kind(dataset, split, registry):
    kind = find_type(dataset['type'], registry)
    if kind is None:
        raise UserError(unknown_type(f'{split}_dataloader.dataset',
                                     dataset['type']))
    return kind


def init_defaults(kind):
    """Default arguments of a constructor, its parents' where not its own."""
    defaults = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base):
            for name, parameter in inspect.signature(
                    base.__init__).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def evaluators(cfg, split):
    """The evaluators of a split, as a list."""
    found = cfg.get(f'{split}_evaluator') or []
    return found if isinstance(found, (list, tuple)) else [found]


def check_exists(path, option):
    """Yield a finding if a file or folder is not there."""
    if '://' not in path and not osp.exists(path):
        yield Finding(
            'missing file',
            f'{option} names {path}, which does not exist: put the data '
            f'there or set {option} (and data_root)', (path, ))


def check_heads(cfg, source, classes):
    """Every head counts the classes that the data has."""
    for name, head in heads(cfg):
        if is_binary(head) and len(classes) in (1, 2):
            continue
        if head['num_classes'] != len(classes):
            yield Finding(
                'class count of a head',
                f'{name}.num_classes is {head["num_classes"]}, but the '
                f'{source.split} data has {len(classes)} classes '
                f'({some(classes)}): make them equal', (name, ))


def is_binary(head):
    """Whether a head of mmseg tells two classes apart by one channel."""
    return 'threshold' in head and 1 in (
        head['num_classes'], head.get('out_channels'))


_HEADS = ('bbox_head', 'mask_head', 'mask_iou_head', 'decode_head',
          'auxiliary_head')


def heads(cfg):
    """Name and arguments of every head that counts classes.

    Default arguments stand where the config leaves ``num_classes`` and
    ``ignore_index`` out.
    """
    with MODELS.switch_scope_and_registry(
            cfg.get('default_scope', 'mmengine')) as registry:
        found = [(name, {**_defaults(node, registry), **node})
                 for name, node in _nodes(cfg.model, 'model')]
    return [(name, head) for name, head in found if 'num_classes' in head]


def _defaults(node, registry):
    kind = find_type(node['type'], registry)
    return {} if kind is None else init_defaults(kind)


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
