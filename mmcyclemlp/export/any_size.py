"""What is replaced in a network, so that a trace of it fits any image."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones.cyclenet import CycleBlock, CycleMixer
from ..ops import CycleFC


def for_any_size(module):
    """A copy in which nothing is fixed to the size it is traced at.

    Blocks of CycleNet run on stock operators in it.

    Args:
        module (nn.Module): To export; left alone.

    Returns:
        nn.Module: Gives the same, in eval mode.
    """
    module = copy.deepcopy(module).eval()
    for child in module.modules():
        if isinstance(child, (CycleBlock, CycleMixer, CycleFC)):
            child.backend = 'plain'
    _replace(module)
    return module


def _replace(parent):
    for name, child in parent.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            size = tuple(size) if isinstance(size, (tuple, list)) else (
                size, size)
            # One position is a mean, and None the size that is there.
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

    ONNX can tell means over bins of one size only.

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
        # (bins, length): 1 / n where a bin of n positions has one.
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
    """mmseg's Upsample, which makes Python numbers of the size.

    Args:
        like (nn.Module): The one to stand for.

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
