"""The op and the mixer as a dense convolution with the same result."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcyclemlp.benchmark import calls
from mmcyclemlp.benchmark.calls import Contender
from mmcyclemlp.benchmark.cases import Case
from mmcyclemlp.ops import cycle_offsets

DENSE = Contender('dense conv', 'dense')


def dense_kernel(weight: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """(O, C, 1, 1) -> (O, C, 3, 3), which convolves to the same result."""
    dense = weight.new_zeros(*weight.shape[:2], 3, 3)
    offsets = cycle_offsets(weight.shape[1], kernel_size).tolist()
    for channel, (dy, dx) in enumerate(offsets):
        dense[:, channel, 1 + int(dy), 1 + int(dx)] = weight[:, channel, 0, 0]
    return dense


@torch.no_grad()
def dense_mixer(mixer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mixer as one convolution, for the image ``x`` alone.

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
    # (3, C): the weight of each branch.
    a = mixer.reweight(mean).reshape(-1, 3).softmax(1).t()
    kernel = (a[:, :, None, None, None] * kernels).sum(0)
    bias = (a * biases).sum(0)
    proj = mixer.proj
    return (torch.einsum('po,ocij->pcij', proj.weight, kernel),
            proj.weight @ bias + proj.bias)


class Dense(torch.nn.Module):
    """A convolution of a map, and a shortcut.

    The map is (N, C, H, W) without a shortcut, (N, H, W, C) with one.
    """

    def __init__(self, kernel: Tensor, bias: Tensor, dtype: torch.dtype
                 ) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(kernel.to(dtype).contiguous(
            memory_format=torch.channels_last))
        self.bias = torch.nn.Parameter(bias.to(dtype))

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        padding = [side // 2 for side in self.kernel.shape[2:]]
        if shortcut is None:
            return F.conv2d(x, self.kernel, self.bias, padding=padding)
        y = F.conv2d(x.permute(0, 3, 1, 2), self.kernel, self.bias,
                     padding=padding)
        return shortcut + y.permute(0, 2, 3, 1)


def make_layer(question: str, device: torch.device, shape, dtype: str,
               backward: bool, contender: Contender, small: bool = False,
               exact: bool = False) -> calls.Call:
    """Return the call of ``calls.make_layer``, or of the convolution."""
    if contender.kind != 'dense':
        return calls.make_layer(question, device, shape, dtype, backward,
                                contender, small, exact)
    layer = calls.build_layer(question, shape[3], contender).to(
        device, calls.DTYPES[dtype])
    x, shortcut = calls.draw([shape] * 2, dtype, device)
    inputs = [x.permute(0, 3, 1, 2)]
    if question == 'mixer':
        inputs = [x, shortcut]
        weights = dense_mixer(layer, x)
    else:
        weights = dense_kernel(
            layer.weight, (1, 3))[:, :, 1:2].detach(), layer.bias.detach()
    module = Dense(*weights, calls.DTYPES[dtype])
    leaves = [t.requires_grad_(backward)
              for t in (*inputs, *module.parameters())]
    call = calls.step(calls.compiled(module, contender), inputs, leaves,
                      backward)
    # The gradients are of other weights, and are not compared.
    return lambda: call()[:1]


def choose_algorithms(case: Case, contender: Contender,
                      device: torch.device, place) -> None:
    """Have cuDNN time its algorithms for a dense convolution.

    What fails here fails again when the contender is set up.
    """
    cudnn = torch.backends.cudnn
    before, cudnn.benchmark = cudnn.benchmark, True
    with contextlib.suppress(RuntimeError):
        call = case.make(contender.runs('eager'))
        # The first convolution of a process loads cuDNN.
        F.conv2d(*torch.zeros(2, 8, 8, 1, 1, device=device))
        with place.alone():
            call()
    cudnn.benchmark = before
