"""One call of a contender: what is timed."""

from __future__ import annotations

import contextlib
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import cycle_fc
from ..ops.reference import offset_classes
from .contenders import MODES, TEXTBOOK, build_net, build_peer, plain_cycle_fc
from .timing import elapsed

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16,
          'fp16': torch.float16}
LAYOUTS = {'contiguous': torch.contiguous_format,
           'channels_last': torch.channels_last}
# Backend of torch.compile. Tests name one that compiles nothing.
COMPILER = 'inductor'


def draw(shapes, dtype, device, exact) -> list[Tensor]:
    """The same random tensors at each call, rounded to ``dtype``."""
    torch.manual_seed(0)
    tensors = [torch.randn(shape, device=device).to(dtype)
               for shape in shapes]
    return [t.double() for t in tensors] if exact else tensors


def run_net(net, x) -> list[Tensor]:
    maps = net(x)
    return list(maps.values() if isinstance(maps, dict) else maps)


def compiled(module, contender):
    """The module, under torch.compile if the contender is compiled."""
    if not contender.compiles:
        return module
    # Networks of one class share the code to which results are attached.
    torch._dynamo.config.cache_size_limit = 64
    return torch.compile(module, dynamic=False, mode=MODES[contender.mode],
                         backend=COMPILER)


def captured(call):
    """The call as a CUDA graph."""
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


def with_grads(forward, inputs, dy, backward):
    """A call of ``forward``, with the gradients of all inputs or none."""

    def call():
        with torch.set_grad_enabled(backward):
            y = forward()
            grads = torch.autograd.grad(y, inputs, dy) if backward else ()
        return [y, *grads]

    return call


def only_first(call):
    """The call, of whose results only the first can be compared."""
    return lambda: call()[:1]


def dense_kernel(weight, kernel_size) -> Tensor:
    """(O, C, 1, 1) -> (O, C, 3, 3), which convolves to the same result."""
    dense = weight.new_zeros(*weight.shape[:2], 3, 3)
    for group, dy, dx in offset_classes(weight.shape[1], kernel_size):
        dense[:, group, 1 + dy, 1 + dx] = weight[:, group, 0, 0]
    return dense


@torch.no_grad()
def dense_mixer(mixer, x) -> tuple[Tensor, Tensor]:
    """A mixer as one convolution, which is right for the image ``x`` alone.

    Args:
        mixer: A CycleMixer whose ``mlp_c`` has no bias.
        x: (1, H, W, C).

    Returns:
        (C, C, 3, 3) kernel and (C, ) bias, in single precision.
    """
    mixer = mixer.float()
    kernels = torch.stack([
        dense_kernel(mixer.sfc_h.weight, (1, 3)),
        dense_kernel(mixer.sfc_w.weight, (3, 1)),
        dense_kernel(mixer.mlp_c.weight[..., None, None], (1, 1))])
    biases = torch.stack([mixer.sfc_h.bias, mixer.sfc_w.bias,
                          torch.zeros_like(mixer.sfc_h.bias)])
    mean = F.conv2d(x.permute(0, 3, 1, 2).float(), kernels.sum(0),
                    biases.sum(0), padding=1).mean((2, 3))
    # (3, C): how much each branch weighs.
    a = mixer.reweight(mean).reshape(-1, 3).softmax(1).t()
    kernel = (a[:, :, None, None, None] * kernels).sum(0)
    bias = (a * biases).sum(0)
    proj = mixer.proj
    return (torch.einsum('po,ocij->pcij', proj.weight, kernel),
            proj.weight @ bias + proj.bias)


def convolve(x, kernel, bias):
    """(N, H, W, C) -> (N, H, W, O)."""
    padding = [side // 2 for side in kernel.shape[2:]]
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=padding)
    return y.permute(0, 2, 3, 1)


def make_op(device, shape, dtype, backward, contender, small=False,
            exact=False):
    """A call of cycle_fc, or of what stands for it, on the same map."""
    n, height, width, c = (2, 9, 11, shape[3]) if small else shape
    x, dy, weight, bias = draw(
        [(n, height, width, c)] * 2 + [(c, c), (c, )], DTYPES[dtype],
        device, exact)
    if contender.kind == 'dense':
        weight = dense_kernel(weight[..., None, None], (1, 3))[:, :, 1:2]
        weight = weight.contiguous(memory_format=torch.channels_last)
    inputs = [t.requires_grad_(backward) for t in (x, weight, bias)]
    fc = (plain_cycle_fc if contender.kind == 'textbook' else
          partial(cycle_fc, backend=contender.backend))

    def run(x, weight, bias):
        y = fc(x.permute(0, 3, 1, 2), weight[..., None, None], bias, (1, 3))
        return y.permute(0, 2, 3, 1)

    functions = dict(linear=F.linear, dense=convolve)
    run = compiled(functions.get(contender.kind, run), contender)
    call = with_grads(lambda: run(x, weight, bias), inputs, dy, backward)
    return only_first(call) if contender.kind == 'dense' else call


def make_mixer(device, shape, dtype, backward, contender, small=False,
               exact=False):
    """A call of the mixer of a block, with its shortcut."""
    n, height, width, c = (2, 13, 17, shape[3]) if small else shape
    arch = dict(embed_dims=(c, ), depths=(1, ), mlp_ratios=(4, ))
    dense = contender.kind == 'dense'
    net = build_net(arch, TEXTBOOK if dense else contender, device,
                    out_indices=(0, ))
    mixer = net.network[0][0].attn.to(DTYPES[dtype])
    if exact:
        mixer.double()
    x, shortcut, dy = draw([(n, height, width, c)] * 3, DTYPES[dtype],
                           device, exact)
    weights, run = list(mixer.parameters()), mixer
    if dense:
        kernel, bias = (t.to(DTYPES[dtype]) for t in dense_mixer(mixer, x))
        weights = [
            kernel.contiguous(memory_format=torch.channels_last), bias]

        def run(x, shortcut):
            return shortcut + convolve(x, *weights)

    run = compiled(run, contender)
    inputs = [t.requires_grad_(backward) for t in (x, shortcut, *weights)]
    call = with_grads(lambda: run(x, shortcut), inputs, dy, backward)
    return only_first(call) if dense else call


def make_net(device, arch, size, batch, dtype, train, contender, small=False,
             exact=False, layout='contiguous'):
    """A call of a network: inference, or a training step but its update."""
    if small:
        batch, size = 2, (72, 104)
    net, x, autocast = prepare_net(
        device, arch, size, batch, dtype, train, contender, exact)
    if contender.kind == 'peer':
        net.to(memory_format=LAYOUTS[layout])
        x = x.to(memory_format=LAYOUTS[layout])
    call = make_step(net, compiled(net, contender), x, train, autocast)
    return captured(call) if contender.mode == 'graph' else call


def prepare_net(device, arch, size, batch, dtype, train, contender, exact):
    """A network, its input, and what gives the context of its forward."""
    half = DTYPES[dtype]
    x, = draw([(batch, 3, *size)], half, device, exact)
    net = (build_peer(contender.name, size, train).to(device)
           if contender.kind == 'peer' else
           build_net(arch, contender, device))
    if train:
        # The weights stay in single precision, the products are in half.
        x = x if exact else x.float()
    else:
        net.eval().to(half)
    if exact:
        net.double()
    if train and not exact and dtype != 'fp32':
        return net, x, partial(torch.autocast, device.type, half)
    return net, x, contextlib.nullcontext


def make_step(net: nn.Module, run, x: Tensor, train: bool, autocast):
    """A call of ``run``, which is the network or compiled from it."""
    weights = list(net.parameters())

    def call():
        with torch.set_grad_enabled(train):
            with autocast():
                maps = run_net(run, x)
            if not train:
                return maps
            loss = sum((y + torch.linspace(
                -1, 1, y.shape[1], device=y.device)[:, None, None]
                ).square().mean() for y in maps)
            return [*maps, *torch.autograd.grad(
                loss, weights, materialize_grads=True)]

    return call


def faster_layout(device, arch, size, batch, dtype, train, contender,
                  alone=contextlib.nullcontext) -> str:
    """The memory layout in which a network that is not compiled is faster.

    Both are tried, since it depends on the network and on the device. In
    the context ``alone()`` no other process uses the device.
    """
    net, x, autocast = prepare_net(
        device, arch, size, batch, dtype, train, contender, False)
    seconds = {}
    for name, layout in LAYOUTS.items():
        call = make_step(net.to(memory_format=layout), net,
                         x.to(memory_format=layout), train, autocast)
        # The first call may choose how to run.
        seconds[name] = elapsed(call, device)
        if seconds[name] < 0.5 or device.type == 'cuda':
            with alone():
                seconds[name] = elapsed(call, device)
    return min(seconds, key=seconds.get)
