"""Layers of CycleNet that other networks have, too."""

import torch
import torch.nn.functional as F
from torch import nn

from ..ops import is_compiling


class DropPath(nn.Module):
    """Drop the residual branch of whole samples (stochastic depth).

    Huang et al., "Deep Networks with Stochastic Depth" (ECCV 2016,
    https://arxiv.org/abs/1603.09382).

    Args:
        drop_prob (float): Probability that the branch of a sample is
            dropped. The other branches are scaled, so that the expectation
            stays the same. Default: 0.
        skip_lam (float): Divisor of the branch of every sample.
            Default: 1.

    Inputs:
        x (Tensor): (B, ...).
    """

    def __init__(self, drop_prob=0., skip_lam=1.):
        super().__init__()
        self.drop_prob = drop_prob
        self.skip_lam = skip_lam

    def scale(self, x):
        """Draw the factor of each sample.

        Args:
            x (Tensor): (B, ...).

        Returns:
            Tensor | None: (B,), or None where each factor is 1.
        """
        keep = 1 - self.drop_prob if self.training else 1.
        if keep == 1. and self.skip_lam == 1.:
            return None
        factor = x.new_full((x.shape[0], ), 1 / (keep * self.skip_lam))
        return factor if keep == 1. else factor * factor.bernoulli(keep)

    def forward(self, x):
        scale = self.scale(x)
        if scale is None:
            return x
        return x * scale.reshape(-1, *(1, ) * (x.dim() - 1))

    def extra_repr(self):
        return f'drop_prob={self.drop_prob:.3f}, skip_lam={self.skip_lam}'


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        in_features (int): Channels of the input.
        hidden_features (int): Channels between the layers.
        out_features (int): Channels of the output.
        act_layer (Callable): Makes the activation.
        drop (float): Dropout after each layer. Default: 0.

    Inputs:
        x (Tensor): (..., in_features).
    """

    def __init__(self, in_features, hidden_features, out_features, act_layer,
                 drop=0.):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        x = self.drop(self.act(self.fc1(x)))
        return self.drop(self.fc2(x))


class Downsample(nn.Module):
    """Convolution between stages, and at the stem, on (B, H, W, C) maps.

    Args:
        in_channels (int): Channels of input.
        out_channels (int): Channels of output.
        kernel_size (int): Kernel of the convolution.
        stride (int): Stride of the convolution.
        padding (int): Zero padding of the convolution.
        norm_layer (Callable | None): Makes a norm of the output from its
            channels. Default: None.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride,
                 padding, norm_layer=None):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size, stride,
                              padding)
        self.norm = None if norm_layer is None else norm_layer(out_channels)
        # Not read from the convolution, which an adapter may wrap.
        self.patch_size = stride if kernel_size == stride else None
        self.min_size = (
            1 if self.patch_size else kernel_size - 2 * padding)

    def forward(self, x):
        if self.patch_size is not None:
            x = pad_to_multiple(x, self.patch_size)
        # (B, H, W, C) is (B, C, H, W) with channels last: no copy.
        x = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


def make_stem(stem, in_channels, out_channels, norm_layer):
    """Make the stem.

    Args:
        stem (str): ``'conv7'`` or ``'conv4'``.
        in_channels (int): Channels of the image.
        out_channels (int): Channels of the output.
        norm_layer (Callable): Makes a norm from its channels.

    Returns:
        Downsample: The stem, with stride 4.

    Raises:
        ValueError: ``stem`` is neither.
    """
    if stem == 'conv7':
        return Downsample(in_channels, out_channels, 7, 4, 2)
    if stem == 'conv4':
        return Downsample(in_channels, out_channels, 4, 4, 0, norm_layer)
    raise ValueError(f"CycleNet: stem is 'conv7' or 'conv4', got {stem!r}")


class PatchMerging(nn.Module):
    """Swin's step between stages: each 2x2 positions become one.

    Liu et al., "Swin Transformer" (ICCV 2021,
    https://arxiv.org/abs/2103.14030).

    Args:
        in_channels (int): Channels of input.
        out_channels (int): Channels of output.
        norm_layer (Callable): Makes the norm from the channels.
    """

    def __init__(self, in_channels, out_channels, norm_layer):
        super().__init__()
        self.norm = norm_layer(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x):
        x = pad_to_multiple(x, 2)
        # Down the columns first: the order of the weights' channels.
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)
        return self.reduction(self.norm(x))


def pad_to_multiple(x, size):
    """Pad a map with zeros below and to the right.

    Args:
        x (Tensor): (B, H, W, C).
        size (int): Height and width become multiples of it.

    Returns:
        Tensor: (B, H', W', C).
    """
    height, width = x.shape[1:3]
    below, right = -height % size, -width % size
    if torch.jit.is_tracing() or below or right:
        return F.pad(x, (0, 0, 0, right, 0, below))
    return x


def to_nchw(x):
    """Copy (B, H, W, C) to contiguous (B, C, H, W)."""
    if (not x.is_cpu or is_compiling() or torch.jit.is_tracing()
            or x.shape[0] == 0):
        return x.permute(0, 3, 1, 2).contiguous()
    # A CPU transposes matrices some three times as fast as maps.
    images = [image.t().contiguous() for image in x.flatten(1, 2)]
    maps = images[0][None] if len(images) == 1 else torch.stack(images)
    return maps.unflatten(2, x.shape[1:3])
