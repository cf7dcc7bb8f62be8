"""Read and build the model that a command names: an arch, or a config.

This module needs torch alone. mm is imported only for a config.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ..backbones import CycleNet
from ..backbones.account import is_out_norm
from ..backbones.weights import adapt_state_dict, find_backbone
from ..checkpoint_files import read_checkpoint
from ..errors import CheckpointError, UserError, describe, first_line

ARCHS = ', '.join(CycleNet.arch_settings)
# With BGR images, as mm loads them.
_RELEASED = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                 to_rgb=True)


class Normalization(NamedTuple):
    """How the images of a model are normalized.

    Attributes:
        mean (list[float] | None): One number for all channels or one for
            each. None leaves images as they are.
        std (list[float] | None): The same.
        swap (bool): Whether the order of the channels is reversed first.
        order (str): Order that the network gets, 'RGB' or 'BGR'.
    """

    mean: list[float] | None
    std: list[float] | None
    swap: bool
    order: str


def is_arch(name: str) -> bool:
    """Return whether a name is an arch, such as 'b1', and not a config."""
    return name in CycleNet.arch_settings


def read_model_config(name: str, options: dict | None = None) -> Any:
    """Read the config of a model; make one for an arch.

    Args:
        name (str): An arch such as 'b1', or path or name of a config.
        options (dict | None): Values that override the config, by keys such
            as 'model.backbone.in_channels'. Default: None.

    Returns:
        Config | dict: Of an arch a dict with ``model.backbone`` and the
        ``data_preprocessor`` of the released weights.

    Raises:
        UserError: There is no such config, or an option does not fit.
    """
    if not is_arch(name):
        from ..engine.config import read_config

        return read_config(name, options=options)
    backbone = dict(type=CycleNet, arch=name)
    for key, value in (options or {}).items():
        parent, _, setting = key.rpartition('.')
        if parent != 'model.backbone':
            raise UserError(
                f'--cfg-options: {key} cannot be set for the arch {name}, '
                'only model.backbone.NAME can')
        backbone[setting] = value
    return dict(model=dict(backbone=backbone), data_preprocessor=_RELEASED)


def normalization_of(cfg: Any) -> Normalization:
    """Return how a config normalizes images.

    Args:
        cfg (Config | dict): As :func:`read_model_config` returns it.

    Returns:
        Normalization: From ``data_preprocessor``, which mmpretrain has
        beside the model.
    """
    settings = cfg['model'].get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    mean, std = settings.get('mean'), settings.get('std')
    to_rgb = bool(settings.get('bgr_to_rgb') or settings.get('to_rgb'))
    return Normalization(
        None if mean is None else list(mean),
        None if std is None else list(std),
        to_rgb or bool(settings.get('rgb_to_bgr')),
        'RGB' if to_rgb else 'BGR')


def is_backbone_alone(cfg: Any) -> bool:
    """Return whether the backbone is the whole model.

    This is so for an arch and for a classifier, whose mm head has no
    parameters.

    Args:
        cfg (Config | dict): As :func:`read_model_config` returns it.
    """
    return cfg.get('default_scope') in (None, 'mmengine', 'mmpretrain')


def build_model(cfg: Any, part: str | None = None) -> nn.Module:
    """Build the model of a config.

    Args:
        cfg (Config | dict): As :func:`read_model_config` returns it.
        part (str | None): 'backbone' to build that alone. Default: None.

    Returns:
        nn.Module: In eval mode, with BN in place of SyncBN.

    Raises:
        UserError: The model cannot be built.
    """
    settings = cfg['model'] if part is None else cfg['model'].get(part)
    if settings is None:
        raise UserError(f'the config has no model.{part}')
    try:
        if settings['type'] is CycleNet:
            return CycleNet(**{key: value for key, value in settings.items()
                               if key != 'type'}).eval()
        from mmengine.model import revert_sync_batchnorm
        from mmengine.registry import MODELS, init_default_scope

        scope = cfg.get('default_scope') or 'mmengine'
        # A backbone does not need mmpretrain, which not every machine can
        # import.
        init_default_scope(
            'mmengine' if part and scope == 'mmpretrain' else scope)
        return revert_sync_batchnorm(MODELS.build(settings)).eval()
    except UserError:
        raise
    except Exception as error:  # of the model: the user's own Python
        raise UserError(
            f'the model cannot be built: {describe(error)}') from error


def build_backbone(cfg: Any, checkpoint: str | None = None,
                   trusted: bool = False) -> CycleNet:
    """Build the backbone of a config, without its output norms' weights.

    Args:
        cfg (Config | dict): As :func:`read_model_config` returns it.
        checkpoint (str | None): File or URL of any kind that
            :func:`~mmcyclemlp.load_pretrained` takes. None leaves the
            weights random. Default: None.
        trusted (bool): Whether code in the file may be run. Default: False.

    Returns:
        CycleNet: In eval mode. Output norms stay as they are initialized,
        since files of detectors and of classifiers have different ones.

    Raises:
        UserError: The backbone cannot be built, or is not a CycleNet.
        CheckpointError: The file cannot be read or does not fit.
    """
    if cfg['model'].get('backbone'):
        cfg['model']['backbone']['init_cfg'] = None
    model = build_model(cfg, 'backbone')
    if not isinstance(model, CycleNet):
        raise UserError(f'the backbone is a {type(model).__name__}; without '
                        'the rest of its model only a CycleNet can be used')
    if checkpoint is None:
        return model
    content = read_checkpoint(checkpoint, trusted=trusted)
    try:
        state = {key: value
                 for key, value in find_backbone(content).tensors.items()
                 if not is_out_norm(key)}
        adapt_state_dict(state, model)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from None
    model.load_state_dict(state, strict=False)
    return model


def find_device(name: str | None = None) -> str:
    """Check that a device can be used.

    Args:
        name (str | None): Such as 'cpu' or 'cuda:0', as torch takes it.
            None for a GPU if there is one. Default: None.

    Returns:
        str: Its name.

    Raises:
        UserError: It cannot be used.
    """
    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # torch raises several types
        choices = ('cpu, cuda or cuda:NUMBER' if torch.cuda.is_available()
                   else 'cpu, since there is no GPU')
        raise UserError(
            f'--device {name}: {first_line(error).rstrip(".")}; use '
            f'{choices}') from error
    return name
