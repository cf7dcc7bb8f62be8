"""Build the call of a contender: it takes nothing and returns its results.

In each function ``small`` selects a small input, ``exact`` double precision.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from functools import partial
from typing import Callable

import torch
from torch import Tensor, nn

from ..backbones import CycleNet
from ..backbones.cyclenet import CycleMixer
from ..backbones.fusing import fused_mixer
from ..ops import CycleFC
from .contenders import MODES, PEERS, Contender, LeftOut, first_line

Call = Callable[[], 'list[Tensor]']
Shape = 'tuple[int, int, int, int]'  # (N, H, W, C)

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16,
          'fp16': torch.float16}
LAYOUTS = {'contiguous': torch.contiguous_format,
           'channels_last': torch.channels_last}
# Backend of torch.compile. Tests set one that compiles nothing.
COMPILER = 'inductor'


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


def build_peer(name: str, size: tuple[int, int], train: bool) -> nn.Module:
    """Build another network with timm, for inference with fused layers.

    Raises:
        LeftOut: timm cannot be imported or build it.
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
        raise LeftOut(f'timm: {first_line(error)}') from error


def compiled(run: Callable, contender: Contender) -> Callable:
    """Compile a function or module, if the contender is compiled."""
    if not contender.compiles:
        return run
    # Networks of one class share the code that results are cached for.
    torch._dynamo.config.cache_size_limit = 64
    return torch.compile(run, dynamic=False, mode=MODES[contender.mode],
                         backend=COMPILER)


def captured(call: Call) -> Call:
    """Capture a call in a CUDA graph, and return its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay():
        graph.replay()
        return results

    return replay


def step(run: Callable, inputs: list[Tensor], leaves: list[Tensor],
         backward: bool, autocast: Callable = contextlib.nullcontext) -> Call:
    """Return a call of ``run``, with ``backward`` also of its gradients.

    Args:
        run: Takes the inputs and returns a tensor or several.
        inputs: Its inputs.
        leaves: What gradients are computed of.
        backward: Whether to compute them.
        autocast: Returns the context of the forward pass.
    """
    gradients: list[Tensor] = []

    def call():
        with torch.set_grad_enabled(backward):
            with autocast():
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


class MixerWithShortcut(nn.Module):
    """The mixer of a block as the block runs it."""

    def __init__(self, channels: int, backend: str | None) -> None:
        super().__init__()
        self.mixer = CycleMixer(channels, nn.GELU, backend=backend)
        self.backend = backend

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if self.backend in ('plain', 'reference'):
            return shortcut + self.mixer(x)
        return fused_mixer(self.mixer, x, shortcut, None, self.backend)


def build_layer(question: str, channels: int, contender: Contender
                ) -> nn.Module:
    """Build CycleFC, or the mixer of a block."""
    if question == 'mixer':
        layer = MixerWithShortcut(channels, contender.backend)
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


def make_net(device: torch.device, arch: str | dict, size: tuple[int, int],
             batch: int, dtype: str, train: bool, contender: Contender,
             small: bool = False, exact: bool = False,
             layout: str = 'contiguous') -> Call:
    """Return a call of a network: inference, or forward and backward pass.

    ``layout`` is a key of ``LAYOUTS``.
    """
    if small:
        batch, size = 2, (72, 104)
    x, = draw([(batch, 3, *size)], dtype, device, exact)
    net = (build_peer(contender.name, size, train)
           if contender.kind == 'peer' else randomize(CycleNet(
               arch, fork_last3=False, backend=contender.backend)))
    net.to(device)
    autocast = contextlib.nullcontext
    if not train:
        net.eval().to(DTYPES[dtype])
    elif not exact:
        x = x.float()
        if dtype != 'fp32':
            autocast = partial(torch.autocast, device.type, DTYPES[dtype])
    if exact:
        net.double()
    net.to(memory_format=LAYOUTS[layout])
    call = step(compiled(net, contender),
                [x.contiguous(memory_format=LAYOUTS[layout])],
                list(net.parameters()), train, autocast)
    return captured(call) if contender.mode == 'graph' else call
