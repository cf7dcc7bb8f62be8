"""Replace the parts of a network whose trace fits one size alone."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones.cyclenet import CycleBlock
from ..ops import CycleFC


def for_any_size(module: nn.Module) -> nn.Module:
    """Return a copy whose trace fits images of any size.

    Blocks of CycleNet run on stock operators in the copy.

    Args:
        module (nn.Module): The network; not changed.

    Returns:
        nn.Module: In eval mode, with the same outputs.
    """
    module = copy.deepcopy(module).eval()
    for child in module.modules():
        if isinstance(child, (CycleBlock, CycleFC)):
            child.backend = 'plain'
    _replace(module)
    return module


def _replace(parent):
    for name, child in parent.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            size = tuple(size) if isinstance(size, (tuple, list)) else (
                size, size)
            # With 1 it is a mean, and None keeps the size.
            if set(size) != {1} and None not in size:
                setattr(parent, name, AdaptivePool(size))
        elif type(child).__name__ == 'Upsample' and (
                isinstance(child.scale_factor, (int, float))
                and float(child.scale_factor).is_integer()):
            setattr(parent, name, Upsample(child))
        else:
            _replace(child)


class AdaptivePool(nn.Module):
    """nn.AdaptiveAvgPool2d as products of matrices.

    ONNX can pool bins of equal size only.

    Args:
        size (tuple[int, int]): Rows and columns of the output.

    Inputs:
        x (Tensor): (B, C, H, W).
    """

    def __init__(self, size):
        super().__init__()
        self.size = size

    @staticmethod
    def _means(length, bins, like):
        # (bins, length): 1 / n where a bin has n positions.
        i = torch.arange(bins, device=like.device)[:, None]
        first = i * length // bins
        end = ((i + 1) * length + bins - 1) // bins
        at = torch.arange(length, device=like.device)
        inside = ((at >= first) & (at < end)).to(like)
        return inside / (end - first).to(like)

    def forward(self, x):
        rows = self._means(x.shape[2], self.size[0], x)
        columns = self._means(x.shape[3], self.size[1], x)
        return rows @ x @ columns.t()


class Upsample(nn.Module):
    """mmseg's Upsample without Python numbers, which a trace would fix.

    Args:
        like (nn.Module): The module to replace.

    Inputs:
        x (Tensor): (B, C, H, W).
    """

    def __init__(self, like):
        super().__init__()
        self.factor, self.mode = int(like.scale_factor), like.mode
        self.align_corners = like.align_corners

    def forward(self, x):
        return F.interpolate(
            x, size=(x.shape[2] * self.factor, x.shape[3] * self.factor),
            mode=self.mode, align_corners=self.align_corners)
