"""How each contender is built."""

from __future__ import annotations

import importlib
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones import CycleNet
from ..ops import MixerWeights
from ..ops.reference import cycle_mixer_reference

OFFICIAL, PLAIN, OURS = 'official route', 'textbook', 'ours'
LINEAR = 'F.linear'  # which moves nothing
BACKENDS = {OFFICIAL: 'reference', PLAIN: 'reference', OURS: None}
# Name in the tables -> name in timm; name in torchvision, and its nodes.
_LAYERS = tuple(f'layer{i}' for i in range(1, 5))
_FEATURES = tuple(f'features.{i}' for i in (1, 3, 5, 7))
PEERS = {
    'ResNet-50': ('resnet50', 'resnet50', _LAYERS),
    'Swin-T': ('swin_tiny_patch4_window7_224', 'swin_t', _FEATURES),
    'ConvNeXt-T': ('convnext_tiny', 'convnext_tiny', _FEATURES),
    'PVTv2-B2': ('pvt_v2_b2', None, ()),
    'PoolFormer-S24': ('poolformer_s24', None, ()),
    'PoolFormer-S36': ('poolformer_s36', None, ()),
}


class LeftOut(Exception):
    """Why a contender has no place in this run."""


def is_ours(contender) -> bool:
    """Whether it is held to the definition."""
    return contender not in (LINEAR, *PEERS)


def plain_cycle_fc(x, weight, bias, kernel_size):
    """CycleFC for kernels (1, 3) and (3, 1), from its formula.

    What the backends are held to, in double precision, and what a user
    could write for torch.compile, which makes less of backend 'plain'.
    """
    x = x.permute(0, 2, 3, 1)
    dim = 1 if kernel_size == (3, 1) else 2
    size = x.shape[dim]
    padded = F.pad(x, (0, 0, 1, 1) if dim == 2 else (0, 0, 0, 0, 1, 1))
    place = torch.arange(x.shape[3], device=x.device) % 3
    moved = torch.where(place == 1, padded.narrow(dim, 2, size),
                        padded.narrow(dim, 0, size))
    moved = torch.where(place == 0, x, moved)
    return F.linear(moved, weight.flatten(1), bias).permute(0, 3, 1, 2)


def plain_mixer(mixer, x, shortcut=None, scale=None):
    """The forward of a CycleMixer, as the paper has it."""
    weights = MixerWeights(
        mixer.sfc_h.weight, mixer.sfc_h.bias, mixer.sfc_w.weight,
        mixer.sfc_w.bias, mixer.mlp_c.weight, mixer.mlp_c.bias,
        mixer.proj.weight, mixer.proj.bias)
    y = cycle_mixer_reference(
        x, weights, mixer.reweight, mixer.sfc_h.kernel_size, plain_cycle_fc)
    return y if shortcut is None else shortcut + y


@torch.no_grad()
def build_net(arch, name, device, **options) -> CycleNet:
    """CycleNet of a contender, all with the same weights.

    They are larger than those that training starts with, and no bias is 0,
    so that a mistake in any part is seen in the result.
    """
    name = name.partition(',')[0]
    with torch.device(device):
        net = CycleNet(arch, fork_last3=False,
                       backend=BACKENDS.get(name, name), **options)
    torch.manual_seed(0)
    for key, weight in net.named_parameters():
        noise = torch.randn_like(weight)
        if weight.dim() > 1:
            weight.copy_(noise / math.sqrt(weight[0].numel()))
        else:
            weight.copy_(0.1 * noise + ('norm' in key and 'weight' in key))
    if name == PLAIN:
        for module in net.modules():
            if hasattr(module, 'sfc_h'):
                module.forward = partial(plain_mixer, module)
    return net


def build_peer(name, size) -> nn.Module:
    """Trunk of another network, from timm or else torchvision."""
    in_timm, in_torchvision, nodes = PEERS[name]
    more = dict(img_size=size) if name == 'Swin-T' else {}
    reasons = []
    # RuntimeError: torchvision beside a torch it was not built for.
    try:
        return importlib.import_module('timm').create_model(
            in_timm, features_only=True, **more)
    except (ImportError, RuntimeError) as error:
        reasons.append(f'timm: {first_line(error)}')
    if in_torchvision is None:
        raise LeftOut(f'{reasons[0]}; torchvision has no {name}')
    try:
        models, features = map(importlib.import_module, (
            'torchvision.models', 'torchvision.models.feature_extraction'))
        return features.create_feature_extractor(
            getattr(models, in_torchvision)(weights=None), list(nodes))
    except (ImportError, RuntimeError) as error:
        reasons.append(f'torchvision: {first_line(error)}')
    raise LeftOut('; '.join(reasons))


def first_line(error) -> str:
    lines = str(error).strip().split('\n')
    return lines[0] or type(error).__name__
