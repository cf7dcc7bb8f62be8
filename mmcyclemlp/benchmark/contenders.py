"""The contenders: what each is, and how it is built."""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones import CycleNet
from ..ops import MixerWeights
from ..ops.reference import cycle_mixer_reference

# How a contender can run -> the mode of torch.compile, if it is compiled.
MODES = {'eager': None, 'graph': None, 'compiled': 'default',
         'max-autotune': 'max-autotune-no-cudagraphs',
         'reduce-overhead': 'reduce-overhead'}


class Contender(NamedTuple):
    """An op or a network, and the way in which it runs.

    Attributes:
        name: How tables call it.
        kind: ``'ours'``, ``'textbook'`` (the formulas of the paper in stock
            operators), ``'linear'`` (``F.linear``, which moves nothing),
            ``'dense'`` (a dense convolution with the same result) or
            ``'peer'`` (another network, a key of ``PEERS``).
        backend: Backend of ours. None is the default one.
        mode: A key of ``MODES``.
        size: The size of the image, where that is what is compared.
    """

    name: str
    kind: str = 'ours'
    backend: str | None = None
    mode: str = 'eager'
    size: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """Name and mode."""
        mode = 'CUDA graph' if self.mode == 'graph' else self.mode
        return self.name if mode == 'eager' else f'{self.name}, {mode}'

    @property
    def compiles(self) -> bool:
        return MODES[self.mode] is not None

    @property
    def held(self) -> bool:
        """Whether its results are held to the definition."""
        return self.kind in ('ours', 'textbook', 'dense')

    def runs(self, mode: str) -> Contender:
        """The same contender in another mode."""
        return self._replace(mode=mode)


OFFICIAL = Contender('official route', backend='reference')
OURS = Contender('ours')
TRITON = Contender('triton', backend='triton')
TORCH = Contender('torch', backend='torch')
TEXTBOOK = Contender('textbook', 'textbook')
LINEAR = Contender('F.linear', 'linear')
DENSE = Contender('dense conv', 'dense')


class Peer(NamedTuple):
    """Where another network comes from.

    Attributes:
        timm: Its name in timm.
        options: What timm builds it with.
        torchvision: Its name in torchvision, if it is there.
        nodes: The nodes of the graph that give its maps there.
        takes_size: Whether timm has to know the size of the image.
        fuses: Whether it has a form for inference with fewer layers.
    """

    timm: str
    options: dict = {}
    torchvision: str | None = None
    nodes: tuple[str, ...] = ()
    takes_size: bool = False
    fuses: bool = False


_FEATURES = tuple(f'features.{i}' for i in (1, 3, 5, 7))
PEERS = {
    'Swin-T': Peer('swin_tiny_patch4_window7_224', torchvision='swin_t',
                   nodes=_FEATURES, takes_size=True),
    'ConvNeXt-T': Peer('convnext_tiny', torchvision='convnext_tiny',
                       nodes=_FEATURES),
    # Its first map would be of stride 2.
    'ResNet-50': Peer('resnet50', dict(out_indices=(1, 2, 3, 4)), 'resnet50',
                      tuple(f'layer{i}' for i in range(1, 5))),
    'PVTv2-B2': Peer('pvt_v2_b2'),
    'PoolFormer-S36': Peer('poolformer_s36'),
    'InceptionNeXt-T': Peer('inception_next_tiny'),
    'FasterNet-S': Peer('fasternet_s'),
    'RepViT-M1.5': Peer('repvit_m1_5', fuses=True),
    'PoolFormer-S24': Peer('poolformer_s24'),
}


def peer(name: str) -> Contender:
    """The contender that is a key of ``PEERS``."""
    return Contender(name, 'peer')


class LeftOut(Exception):
    """Why a contender has no place in this run."""


def plain_cycle_fc(x, weight, bias, kernel_size):
    """CycleFC for kernels (1, 3) and (3, 1), from its formula.

    The contenders are held to it, in double precision. It is also what a
    user could write for torch.compile, which makes less of backend 'plain'.
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
def build_net(arch: str | dict, contender: Contender,
              device: torch.device | str, **options) -> CycleNet:
    """CycleNet of a contender, all with the same weights.

    They are larger than those that training starts with, and no bias is 0,
    so that a mistake in any part is seen in the result.
    """
    textbook = contender.kind == 'textbook'
    with torch.device(device):
        net = CycleNet(
            arch, fork_last3=False,
            backend='reference' if textbook else contender.backend, **options)
    torch.manual_seed(0)
    for key, weight in net.named_parameters():
        noise = torch.randn_like(weight)
        if weight.dim() > 1:
            weight.copy_(noise / math.sqrt(weight[0].numel()))
        else:
            weight.copy_(0.1 * noise + ('norm' in key and 'weight' in key))
    if textbook:
        for module in net.modules():
            if hasattr(module, 'sfc_h'):
                module.forward = partial(plain_mixer, module)
    return net


def build_peer(name: str, size: tuple[int, int], train: bool) -> nn.Module:
    """Trunk of another network, from timm or else torchvision."""
    peer, reasons = PEERS[name], []
    more = dict(img_size=size) if peer.takes_size else {}
    # RuntimeError: torchvision beside a torch it was not built for.
    try:
        net = importlib.import_module('timm').create_model(
            peer.timm, features_only=True, **peer.options, **more)
        if peer.fuses and not train:
            net = importlib.import_module(
                'timm.utils').reparameterize_model(net.eval())
        return net
    except (ImportError, RuntimeError) as error:
        reasons.append(f'timm: {first_line(error)}')
    if peer.torchvision is None:
        raise LeftOut(f'{reasons[0]}; torchvision has no {name}')
    try:
        models, features = map(importlib.import_module, (
            'torchvision.models', 'torchvision.models.feature_extraction'))
        return features.create_feature_extractor(
            getattr(models, peer.torchvision)(weights=None),
            list(peer.nodes))
    except (ImportError, RuntimeError) as error:
        reasons.append(f'torchvision: {first_line(error)}')
    raise LeftOut('; '.join(reasons))


def first_line(error: BaseException) -> str:
    lines = str(error).strip().split('\n')
    return lines[0] or type(error).__name__
