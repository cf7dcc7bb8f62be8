"""Weights of CycleNet: read without running code, account for every key.

A file goes through three steps: :func:`read_checkpoint` reads it,
:func:`find_state_dict` recognises its layout, :func:`adapt_state_dict` holds
its keys against a network. :func:`load_pretrained` does all three.
"""

import logging
import os
import pickle
import re
import types
import zipfile
from collections import OrderedDict
from typing import NamedTuple
from urllib.parse import urlparse

import torch

from ..ops import CycleFC, cycle_offsets

logger = logging.getLogger('mmcyclemlp')


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read safely, or does not fit the network."""


class NotCycleNetError(CheckpointError):
    """A checkpoint holds tensors, but no CycleNet."""


# What the pickle of a file of tensors needs. Storages are resolved by
# torch.load itself.
_TENSORS = {
    'collections.OrderedDict': OrderedDict,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
}
# What training scripts leave beside the tensors. None of it is needed, so
# a placeholder takes its place and nothing of theirs is called.
_LEFT_OUT = re.compile(
    r'argparse\.Namespace'
    r'|mmengine\.logging\.history_buffer\.HistoryBuffer'
    r'|numpy(\.core|\._core)?\.\w+(\.\w+)?'
    r'|_codecs\.encode'
    r'|(__builtin__|builtins)\.(getattr|set|slice)'
    r'|pathlib\.\w+')


class _Placeholder:
    """Stands for an object that was not unpickled."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __hash__(self):
        return id(self)


def _restricted_pickle(path, allow):
    """A ``pickle`` for torch.load that admits tensors and ``allow`` only."""
    # Made anew for each file: a pickle could set attributes on them.
    placeholder = type('_Placeholder', (_Placeholder, ), {})

    class Unpickler(pickle.Unpickler):

        def find_class(self, module, name):
            full_name = f'{module}.{name}'
            if full_name in allow:
                return allow[full_name]
            if full_name in _TENSORS:
                return _TENSORS[full_name]
            if module == 'torch' and isinstance(
                    getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if _LEFT_OUT.fullmatch(full_name):
                return placeholder
            raise CheckpointError(
                f'{path} is refused: its pickle asks for {full_name}, which '
                'weights do not need and which could run code. Get the '
                'weights from a source you trust, or as .safetensors')

    restricted = types.ModuleType('restricted_pickle')
    restricted.Unpickler = Unpickler
    restricted.load = lambda file, **kwargs: Unpickler(file, **kwargs).load()
    return restricted


def _download(url):
    """Path of the file behind a URL, in torch.hub's cache."""
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        logger.info('downloading %s to %s', url, path)
        try:
            torch.hub.download_url_to_file(url, path, progress=False)
        except OSError as error:
            raise CheckpointError(
                f'{url} could not be downloaded ({error}). Get it by other '
                f'means and save it as {path}, or give its path in place of '
                'the URL') from error
    return path


def read_checkpoint(source, allow=None):
    """Read a checkpoint to CPU memory without running any code from it.

    PyTorch's own ``weights_only`` refuses the ``argparse.Namespace`` of the
    official files and cannot be taught it before torch 2.5, so the file is
    read through an unpickler of its own, the same on every torch: tensors
    and plain containers are built, known by-products of training are left
    out, everything else is refused.

    Args:
        source (str | PathLike): Path or http(s) URL of a PyTorch file or a
            ``.safetensors``.
        allow (dict | None): Further harmless objects to build, by their
            full name. Default: None.

    Returns:
        dict: What the file holds.

    Raises:
        CheckpointError: No such file, not a checkpoint, or one whose
            pickle asks for more than tensors need; says what.
    """
    source = os.fspath(source)
    is_url = source.startswith(('http://', 'https://'))
    path = _download(source) if is_url else os.path.expanduser(source)
    if not os.path.isfile(path):
        raise CheckpointError(f'there is no checkpoint file {source}')
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            if any(name.endswith('/constants.pkl') for name in names):
                raise CheckpointError(
                    f'{source} is a TorchScript program, not a checkpoint: '
                    'save its state_dict() and load that')
        # Safe in spite of weights_only=False: see _restricted_pickle.
        return torch.load(
            path, map_location='cpu', weights_only=False,
            pickle_module=_restricted_pickle(source, allow or {}))
    except CheckpointError:
        raise
    except ImportError as error:
        raise CheckpointError(
            f'{source} needs a package: pip install safetensors') from error
    except Exception as error:  # torch and pickle raise of any kind
        reason = str(error).split('\n')[0]
        raise CheckpointError(
            f'{source} is damaged or not a checkpoint: '
            f'{type(error).__name__}: {reason}') from error


def find_state_dict(checkpoint, prefix=None):
    """Find the backbone's tensors in any of the layouts they come in.

    Args:
        checkpoint (dict): The official layout (under ``model``), an mm
            checkpoint (under ``state_dict``) of the backbone or of a whole
            model, or a bare state dict.
        prefix (str | None): Where in a whole model the backbone lies.
            None finds it by its stem. Default: None.

    Returns:
        tuple[dict, str]: Tensors by official key, and the layout's name.

    Raises:
        CheckpointError: There is no CycleNet in it.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'a checkpoint is a dict, this is a {type(checkpoint).__name__}')
    state, layout = checkpoint, 'bare state dict'
    for key, name in (('state_dict', 'mm'), ('model', 'official')):
        if isinstance(checkpoint.get(key), dict):
            state, layout = checkpoint[key], f'{name} layout'
            break
    state = {key: value for key, value in state.items()
             if isinstance(value, torch.Tensor)}
    if not state:
        raise CheckpointError(
            "no tensors under 'state_dict', under 'model' or bare; the "
            f'checkpoint holds {sorted(map(str, checkpoint))[:8]}')
    if all(key.startswith('module.') for key in state):
        state = {key[len('module.'):]: value for key, value in state.items()}
    stem = 'patch_embed.proj.weight'
    if prefix is None:
        found = sorted(key[:-len(stem)] for key in state
                       if key == stem or key.endswith('.' + stem))
        if not found:
            raise NotCycleNetError(
                f'not a CycleNet: no {stem} in it; its keys begin '
                f'{sorted(state)[:4]}')
        if len(found) > 1:
            raise CheckpointError(
                f'several networks in it, at {found}: say which by prefix')
        prefix = found[0]
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    own = {key[len(prefix):]: value for key, value in state.items()
           if key.startswith(prefix)}
    if not own:
        tops = sorted({key.split('.')[0] + '.' for key in state})
        raise CheckpointError(
            f'no key begins with prefix {prefix!r}; they begin {tops}')
    if prefix:
        layout += f', prefix {prefix!r}'
    return own, layout


class LoadReport(NamedTuple):
    """What became of the keys of a file and of the network.

    Attributes:
        loaded (list[str]): Keys taken from the file.
        dropped (list[str]): Keys of the file the network has no use for.
        kept (list[str]): Keys of the network that stay at their initial
            values: output norms, where the file is a classifier's.
    """

    loaded: list
    dropped: list
    kept: list

    def __str__(self):
        text = f'{len(self.loaded)} tensors loaded'
        if self.dropped:
            heads = [key for key in self.dropped
                     if not key.endswith('.offset')]
            text += f'; dropped {len(self.dropped) - len(heads)} offsets'
            text += f' (verified) and {heads}' if heads else ' (verified)'
        if self.kept:
            text += f'; at their initial values: {self.kept}'
        return text


_CLASSIFIER = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')


def adapt_state_dict(state, model):
    """Hold a state dict against a network; strict in both directions.

    Dropped by name: ``head`` and ``norm`` of the classifier where ``model``
    has none, and the ``offset`` buffers of official files, once they are
    found to hold the cycle offsets. Output norms may be absent if the file
    has none at all, as a classifier's. Everything else must match.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for.

    Returns:
        tuple[dict, LoadReport]: Tensors the network takes, and the account.

    Raises:
        CheckpointError: A key is missing, unexpected or of another shape,
            or an offset is not the formula's; names keys and remedy.
    """
    expected = {key: tuple(value.shape)
                for key, value in model.named_parameters()}
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    adapted, dropped, unexpected, reshaped = {}, [], [], []
    for key, value in state.items():
        layer = layers.get(key[:-len('.offset')])
        if key.endswith('.offset') and layer is not None:
            _verify_offset(key, value, layer)
            dropped.append(key)
        elif key in expected:
            adapted[key] = value
            if tuple(value.shape) != expected[key]:
                reshaped.append(f'{key} {tuple(value.shape)} for '
                                f'{expected[key]}')
        elif key in _CLASSIFIER:
            dropped.append(key)
        else:
            unexpected.append(key)
    missing = [key for key in expected if key not in state]
    is_out_norm = re.compile(r'norm\d+\.').match
    kept = []
    if not any(map(is_out_norm, state)):
        kept = [key for key in missing if is_out_norm(key)]
        missing = [key for key in missing if not is_out_norm(key)]
    if missing or unexpected or reshaped:
        raise CheckpointError(
            _misfit(missing, unexpected, reshaped, adapted, state, model))
    return adapted, LoadReport(sorted(adapted), sorted(dropped), kept)


def _verify_offset(key, value, layer):
    offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
    if value.shape != (1, offsets.numel(), 1, 1) or not torch.equal(
            value.flatten().cpu().double(), offsets.flatten().double()):
        raise CheckpointError(
            f'{key} {tuple(value.shape)} does not hold the offsets of a '
            f'CycleFC with kernel {layer.kernel_size}: the weights belong '
            'to another operator')


def _misfit(missing, unexpected, reshaped, adapted, state, model):
    """Say which keys do not fit, and what to do."""
    if not adapted and not unexpected:
        return (
            'the checkpoint holds no tensor for this CycleNet, so nothing '
            'would be loaded. If it is a file of the backbone alone, give it '
            "as backbone=dict(init_cfg=dict(type='Pretrained', "
            'checkpoint=...)); load_from and resume take whole models')
    lines = ['the checkpoint does not fit this CycleNet']
    for what, keys in (('missing', missing), ('unexpected', unexpected),
                       ('of another shape', reshaped)):
        if keys:
            more = f' and {len(keys) - 6} more' if len(keys) > 6 else ''
            lines.append(f'{what}: {", ".join(keys[:6])}{more}')
    arch = _recognise_arch(state, model.arch_settings)
    if any(line.startswith('head.') for line in reshaped):
        lines.append('set num_classes to that of the file')
    elif arch is not None and arch != model.arch:
        lines.append(f'the file is of arch={arch!r}, the network of '
                     f'arch={model.arch!r}: make them agree')
    elif any(re.match(r'norm\d+\.', key) for key in missing + unexpected):
        lines.append('output norms differ: make fork_feat, fork_last3 and '
                     'out_indices those the file was trained with')
    elif any('.mlp_c.bias' in key for key in missing + unexpected):
        lines.append('make qkv_bias that of the file')
    else:
        lines.append('check arch and in_channels, or that the file is of a '
                     'CycleNet at all')
    return '; '.join(lines)


def _recognise_arch(state, arch_settings):
    """Name of the arch whose depths, dims and ratios the tensors have."""
    for name, settings in arch_settings.items():
        depths, dims = settings['depths'], settings['embed_dims']
        blocks = {f'network.{2 * i}.{j}.mlp.fc1.weight': (ratio * dim, dim)
                  for i, (depth, dim, ratio) in enumerate(
                      zip(depths, dims, settings['mlp_ratios']))
                  for j in range(depth)}
        found = {key: tuple(value.shape) for key, value in state.items()
                 if re.fullmatch(r'network\.\d+\.\d+\.mlp\.fc1\.weight', key)}
        if blocks == found:
            return name
    return None


def load_pretrained(model, source, prefix=None):
    """Load a file into a network, strictly, and log the account.

    Args:
        model (CycleNet): The network.
        source (str | PathLike): Path or URL, see :func:`read_checkpoint`.
        prefix (str | None): See :func:`find_state_dict`. Default: None.

    Returns:
        LoadReport: Which keys were loaded, dropped and kept.

    Raises:
        CheckpointError: The file cannot be read safely or does not fit.
    """
    try:
        state, layout = find_state_dict(read_checkpoint(source), prefix)
        _, report = adapt_state_dict(state, model)
    except CheckpointError as error:
        if os.fspath(source) in str(error):
            raise
        raise CheckpointError(f'{source}: {error}') from None
    # Not strict, as output norms may stay: the network itself is.
    model.load_state_dict(state, strict=False)
    logger.info('CycleNet: %s, from %s (%s)', report, source, layout)
    return report
