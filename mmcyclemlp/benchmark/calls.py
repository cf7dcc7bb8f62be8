"""One call of a contender: what is timed."""

from __future__ import annotations

import contextlib
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import cycle_fc
from .contenders import (
    BACKENDS,
    LINEAR,
    PEERS,
    PLAIN,
    build_net,
    build_peer,
    plain_cycle_fc,
)
from .timing import elapsed

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16,
          'fp16': torch.float16}


def draw(shapes, dtype, device, exact) -> list[Tensor]:
    """The same random tensors at each call, rounded to ``dtype``."""
    torch.manual_seed(0)
    tensors = [torch.randn(shape, device=device).to(dtype)
               for shape in shapes]
    return [t.double() for t in tensors] if exact else tensors


def run_net(net, x) -> list[Tensor]:
    maps = net(x)
    return list(maps.values() if isinstance(maps, dict) else maps)


def compiled(module, name):
    """The module, under torch.compile if the name says so."""
    return (torch.compile(module, dynamic=False)
            if name.endswith('compiled') else module)


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


def in_faster_layout(net, x, make_call):
    """The call of a peer in the memory layout that suits it here."""

    def call_in(layout):
        return make_call(net.to(memory_format=layout),
                         x.to(memory_format=layout))

    def seconds(layout):
        call = call_in(layout)
        first = elapsed(call, x.device)
        # The first call may have chosen how to run.
        return elapsed(call, x.device) if first < 0.5 else first

    return call_in(min((torch.contiguous_format, torch.channels_last),
                       key=seconds))


def with_grads(forward, inputs, dy, backward):
    """A call of ``forward``, with the gradients of all inputs or none."""

    def call():
        with torch.set_grad_enabled(backward):
            y = forward()
            grads = torch.autograd.grad(y, inputs, dy) if backward else ()
        return [y, *grads]

    return call


def make_op(device, shape, dtype, backward, name, small=False, exact=False):
    """A call of cycle_fc, or of F.linear on the same map."""
    n, height, width, c = (2, 9, 11, shape[3]) if small else shape
    x, dy, weight, bias = draw(
        [(n, height, width, c)] * 2 + [(c, c), (c, )], DTYPES[dtype],
        device, exact)
    inputs = [t.requires_grad_(backward) for t in (x, weight, bias)]

    def forward():
        if name == LINEAR:
            return F.linear(x, weight, bias)
        fc = (plain_cycle_fc if name == PLAIN else
              partial(cycle_fc, backend=BACKENDS.get(name, name)))
        return fc(x.permute(0, 3, 1, 2), weight[..., None, None], bias,
                  (1, 3)).permute(0, 2, 3, 1)

    return with_grads(forward, inputs, dy, backward)


def make_mixer(device, shape, dtype, backward, name, small=False,
               exact=False):
    """A call of the mixer of a block, with its shortcut."""
    n, height, width, c = (2, 13, 17, shape[3]) if small else shape
    arch = dict(embed_dims=(c, ), depths=(1, ), mlp_ratios=(4, ))
    net = build_net(arch, name, device, out_indices=(0, ))
    mixer = net.network[0][0].attn.to(DTYPES[dtype])
    if exact:
        mixer.double()
    x, shortcut, dy = draw([(n, height, width, c)] * 3, DTYPES[dtype],
                           device, exact)
    inputs = [t.requires_grad_(backward)
              for t in (x, shortcut, *mixer.parameters())]
    mixer = compiled(mixer, name)
    return with_grads(lambda: mixer(x, shortcut), inputs, dy, backward)


def make_net(device, arch, size, batch, dtype, train, name, small=False,
             exact=False, choose_layout=True):
    """A call of a network: inference, or a training step but its update.

    A peer is tried in both memory layouts, where ``choose_layout``.
    """
    if small:
        batch, size = 2, (72, 104)
    half = DTYPES[dtype]
    x, = draw([(batch, 3, *size)], half, device, exact)
    net = (build_peer(name, size).to(device) if name in PEERS
           else build_net(arch, name, device))
    if train:
        # The weights stay in single precision, the products are in half.
        x = x if exact else x.float()
    else:
        net.eval().to(half)
    if exact:
        net.double()

    weights = list(net.parameters())

    def make_call(net, x):
        @torch.set_grad_enabled(train)
        def call():
            with (torch.autocast(device.type, half)
                  if train and not exact and dtype != 'fp32'
                  else contextlib.nullcontext()):
                maps = run_net(net, x)
            if not train:
                return maps
            loss = sum((y + torch.linspace(
                -1, 1, y.shape[1], device=y.device)[:, None, None]
                ).square().mean() for y in maps)
            return [*maps, *torch.autograd.grad(
                loss, weights, materialize_grads=True)]

        return call

    if name in PEERS and choose_layout:
        return in_faster_layout(net, x, make_call)
    call = make_call(compiled(net, name), x)
    return captured(call) if name.endswith('graph') else call
