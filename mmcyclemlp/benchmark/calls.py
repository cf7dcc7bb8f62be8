"""The contenders, and the calls that run them and return their results.

In each function ``small`` selects a small input, ``exact`` double precision.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import CycleNet
from ..backbones.cyclenet import CycleMixer
from ..backbones.fusing import fused_mixer
from ..errors import UserError, first_line
from ..ops import CycleFC

Call = Callable[[], 'list[Tensor]']
Shape = 'tuple[int, int, int, int]'  # (N, H, W, C)

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16,
          'fp16': torch.float16}
# How a contender runs -> the mode of torch.compile. None does not compile.
MODES = {'eager': None, 'graph': None, 'compiled': 'default',
         'max-autotune': 'max-autotune-no-cudagraphs',
         'reduce-overhead': 'reduce-overhead'}
# Backend of torch.compile. Tests set one that compiles nothing.
COMPILER = 'inductor'


class Contender(NamedTuple):
    """A layer or a network, and how it runs.

    Of the kinds, ``'textbook'`` has the paper's formulas in stock operators,
    and ``'linear'`` is ``F.linear``, which moves nothing.
    """

    name: str  # in tables
    kind: str = 'ours'  # or 'textbook', 'linear', 'peer' (of PEERS)
    backend: str | None = None  # of CycleNet
    mode: str = 'eager'  # a key of MODES

    @property
    def label(self) -> str:
        mode = 'CUDA graph' if self.mode == 'graph' else self.mode
        return self.name if mode == 'eager' else f'{self.name}, {mode}'

    @property
    def compiles(self) -> bool:
        return MODES[self.mode] is not None

    @property
    def checked(self) -> bool:
        """Whether its results must be those of the definition."""
        return self.kind not in ('linear', 'peer')

    def runs(self, mode: str) -> Contender:
        """Return the same contender in another mode."""
        return self._replace(mode=mode)


OFFICIAL = Contender('official route', backend='reference')
OURS = Contender('ours')
TRITON = Contender('triton', backend='triton')
TORCH = Contender('torch', backend='torch')
# In double precision, the definition that results are compared with.
TEXTBOOK = Contender('textbook', 'textbook', 'plain')
LINEAR = Contender('F.linear', 'linear')

# Name -> name in timm, and options. An img_size is set to that of the image.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    'Swin-T': ('swin_tiny_patch4_window7_224', dict(img_size=None)),
    'ConvNeXt-T': ('convnext_tiny', {}),
    # The first map of timm's ResNet has stride 2.
    'ResNet-50': ('resnet50', dict(out_indices=(1, 2, 3, 4))),
    'PVTv2-B2': ('pvt_v2_b2', {}),
    'PoolFormer-S36': ('poolformer_s36', {}),
    'InceptionNeXt-T': ('inception_next_tiny', {}),
    'FasterNet-S': ('fasternet_s', {}),
    'RepViT-M1.5': ('repvit_m1_5', {}),
    'PoolFormer-S24': ('poolformer_s24', {}),
}


def draw(shapes: list[tuple[int, ...]], dtype: str, device: torch.device,
         exact: bool = False) -> list[Tensor]:
    """Draw the same tensors at each call, rounded to ``dtype``."""
    torch.manual_seed(0)
    tensors = [torch.randn(shape, device=device).to(DTYPES[dtype])
               for shape in shapes]
    return [t.double() for t in tensors] if exact else tensors


@torch.no_grad()
def randomize(module: nn.Module) -> nn.Module:
    """Draw the same weights for each contender.

    They are larger than those at the start of training, and no bias is 0,
    so that an error in any part changes the result.
    """
    torch.manual_seed(0)
    for each in module.modules():
        for name, weight in each.named_parameters(recurse=False):
            noise = torch.randn_like(weight)
            if weight.dim() > 1:
                weight.copy_(noise / math.sqrt(weight[0].numel()))
            else:  # the weight of a norm, or a bias
                weight.copy_(0.1 * noise + (name == 'weight'))
    return module


def compiled(run: Callable, contender: Contender) -> Callable:
    """Compile a function or module, if the contender is compiled."""
    return torch.compile(
        run, dynamic=False, mode=MODES[contender.mode],
        backend=COMPILER) if contender.compiles else run


def step(run: Callable, inputs: list[Tensor], leaves: list[Tensor],
         backward: bool) -> Call:
    """Return a call of ``run``, with ``backward`` also of its gradients."""
    gradients: list[Tensor] = []

    def call():
        with torch.set_grad_enabled(backward):
            y = run(*inputs)
            y = [y] if isinstance(y, Tensor) else list(y)
            if not backward:
                return y
            if not gradients:
                gradients.extend(t.to(own.dtype) for t, own in zip(draw(
                    [own.shape for own in y], 'fp32', y[0].device), y))
            return [*y, *torch.autograd.grad(
                y, leaves, gradients, materialize_grads=True)]

    return call


class Mixer(CycleMixer):
    """The mixer of a block and its shortcut, as the block runs them."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        backend = self.sfc_h.backend
        if backend in ('plain', 'reference'):
            return shortcut + super().forward(x)
        return fused_mixer(self, x, shortcut, None, backend)


def build_layer(question: str, channels: int, contender: Contender
                ) -> nn.Module:
    """Build CycleFC, or the mixer of a block."""
    if question == 'mixer':
        layer = Mixer(channels, nn.GELU, backend=contender.backend)
    elif contender.kind == 'linear':
        layer = nn.Linear(channels, channels)
    else:
        layer = CycleFC(channels, channels, (1, 3), backend=contender.backend)
    return randomize(layer)


def make_layer(question: str, device: torch.device, shape: Shape, dtype: str,
               backward: bool, contender: Contender, small: bool = False,
               exact: bool = False) -> Call:
    """Return a call of CycleFC, or of a block's mixer and its shortcut."""
    n, height, width, c = (2, 9, 11, shape[3]) if small else shape
    x, shortcut = draw([(n, height, width, c)] * 2, dtype, device, exact)
    inputs = [x, shortcut] if question == 'mixer' else [
        x if contender.kind == 'linear' else x.permute(0, 3, 1, 2)]
    # The weights are rounded to the dtype in either case.
    layer = build_layer(question, c, contender).to(device, DTYPES[dtype])
    if exact:
        layer.double()
    leaves = [t.requires_grad_(backward)
              for t in (*inputs, *layer.parameters())]
    return step(compiled(layer, contender), inputs, leaves, backward)


def build_peer(name: str, size: tuple[int, int], train: bool) -> nn.Module:
    """Build a key of ``PEERS``, in its form for inference or for training.

    A UserError says why timm cannot.
    """
    model, options = PEERS[name]
    if 'img_size' in options:
        options = dict(options, img_size=size)
    try:
        net = importlib.import_module('timm').create_model(
            model, features_only=True, **options)
        return net if train else importlib.import_module(
            'timm.utils').reparameterize_model(net.eval())
    # RuntimeError: torchvision was built for another torch, or timm is old.
    except (ImportError, RuntimeError) as error:
        raise UserError(f'timm: {first_line(error)}') from error


def make_net(device: torch.device, arch: str | dict, size: tuple[int, int],
             batch: int, dtype: str, train: bool, contender: Contender,
             small: bool = False, exact: bool = False) -> Call:
    """Return a call of a network: inference, or forward and backward pass."""
    if small:
        batch, size = 2, (72, 104)
    x, = draw([(batch, 3, *size)], dtype, device, exact)
    net = (build_peer(contender.name, size, train) if contender.kind == 'peer'
           else randomize(CycleNet(
               arch, fork_last3=False, backend=contender.backend)))
    net.to(device)
    if not train:
        net.eval().to(DTYPES[dtype])
    elif not exact:
        x = x.float()
    if exact:
        net.double()
    run = compiled(net, contender)
    if contender.mode == 'graph':
        net.requires_grad_(False)
        # Of a module, each replay would also pass the parameters.
        run = torch.cuda.make_graphed_callables(net.forward, (x, ))
    if train and dtype != 'fp32' and not exact:
        run = torch.autocast(device.type, DTYPES[dtype])(run)
    return step(run, [x], list(net.parameters()), train)
