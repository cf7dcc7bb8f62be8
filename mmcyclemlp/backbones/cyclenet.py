"""CycleNet, the backbone of CycleMLP, in plain PyTorch.

Chen et al., "CycleMLP: A MLP-like Architecture for Dense Prediction", ICLR
2022 (https://arxiv.org/abs/2107.10224); weights by the authors at
https://github.com/ShoufaChen/CycleMLP. Parameter names are those of the
released files. Nothing here needs an mm library: they build the class
through their registries and call ``init_weights()`` as on modules of theirs.
"""

import logging
import math
import os
from functools import partial
from numbers import Integral, Real

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from torch import nn

from ..ops import (
    CycleFC,
    MixerWeights,
    check_backend,
    cycle_mixer,
    is_compiling,
    residual_mlp,
)
from .arch import ARCH_SETTINGS, resolve_arch
from .weights import adapt_state_dict, load_pretrained

logger = logging.getLogger('mmcyclemlp')


class DropPath(nn.Module):
    """Drop the residual branch of whole samples (stochastic depth).

    Gives the factor (B,) that each sample's branch is multiplied by, or
    None where that is 1 for all: branches apply it on their way.

    Args:
        drop_prob (float): Probability that a sample's branch is dropped.
            The others are scaled to keep the expectation. Default: 0.
        skip_lam (float): Divisor of the branch of every sample.
            Default: 1.
    """

    def __init__(self, drop_prob=0., skip_lam=1.):
        super().__init__()
        self.drop_prob = drop_prob
        self.skip_lam = skip_lam

    def forward(self, x):
        keep = 1 - self.drop_prob if self.training else 1.
        if keep == 1. and self.skip_lam == 1.:
            return None
        factor = x.new_full((x.shape[0], ), 1 / (keep * self.skip_lam))
        return factor if keep == 1. else factor * factor.bernoulli(keep)

    def extra_repr(self):
        return f'drop_prob={self.drop_prob:.3f}, skip_lam={self.skip_lam}'


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        in_features (int): Channels of input.
        hidden_features (int): Channels between the layers.
        out_features (int): Channels of output.
        activation (str): A key of ``_ACTIVATIONS``.
        drop (float): Dropout after each layer. Default: 0.
    """

    def __init__(self, in_features, hidden_features, out_features,
                 activation, drop=0.):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = _ACTIVATIONS[activation]()
        self.activation = activation.lower()
        self.fc2 = nn.Linear(hidden_features, out_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class CycleMixer(nn.Module):
    """Token mixer: two CycleFC branches and a pointwise one, re-weighted.

    ``sfc_h`` moves along the width and ``sfc_w`` along the height; the
    names are the keys of the released weights.

    Args:
        dim (int): Channels C of input and output.
        activation (str): Name of the activation of the re-weighting.
        reweight (bool): Whether the branches are weighted by their mean;
            if not, they are summed. Default: True.
        qkv_bias (bool): Whether ``mlp_c`` has a bias. Default: False.
        backend (str | None): See :func:`~mmcyclemlp.ops.cycle_mixer`.
            Default: None.
    """

    def __init__(self, dim, activation, reweight=True, qkv_bias=False,
                 backend=None):
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=qkv_bias)
        self.sfc_h = CycleFC(dim, dim, (1, 3))
        self.sfc_w = CycleFC(dim, dim, (3, 1))
        self.reweight = (
            Mlp(dim, dim // 4, dim * 3, activation) if reweight else None)
        self.proj = nn.Linear(dim, dim)
        self.backend = backend

    def forward(self, x, shortcut=None, scale=None):
        # (B, H, W, C)
        weights = MixerWeights(
            self.sfc_h.weight, self.sfc_h.bias,
            self.sfc_w.weight, self.sfc_w.bias,
            self.mlp_c.weight, self.mlp_c.bias,
            self.proj.weight, self.proj.bias)
        return cycle_mixer(
            x, weights, self.reweight, self.sfc_h.kernel_size,
            shortcut=shortcut, scale=scale, backend=self.backend)


class CycleBlock(nn.Module):
    """Token mixer and MLP, each normalised before and added after.

    Args:
        dim (int): Channels.
        mlp_ratio (float): Hidden channels of the MLP over ``dim``.
        norm_layer (Callable): Makes the norm from the channels.
        activation (str): Name of the activation.
        reweight (bool): See :class:`CycleMixer`. Default: True.
        qkv_bias (bool): Whether ``mlp_c`` has a bias. Default: False.
        drop (float): Dropout rate. Default: 0.
        drop_path (float): Stochastic depth rate. Default: 0.
        skip_lam (float): Divisor of the residual branches. Default: 1.
        with_cp (bool): Whether to recompute the block in the backward
            pass instead of keeping its activations. Default: False.
        backend (str | None): How mixer and MLP run. Default: None.
    """

    def __init__(self, dim, mlp_ratio, norm_layer, activation,
                 reweight=True, qkv_bias=False, drop=0., drop_path=0.,
                 skip_lam=1., with_cp=False, backend=None):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = CycleMixer(dim, activation, reweight, qkv_bias, backend)
        self.drop_path = DropPath(drop_path, skip_lam)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, activation, drop)
        self.with_cp = with_cp
        self.backend = backend

    def _forward(self, x):
        if self.training and self.mlp.drop.p > 0:
            return self._forward_with_dropout(x)
        x = self.attn(self.norm1(x), x, self.drop_path(x))
        mlp = self.mlp
        return residual_mlp(
            self.norm2(x), x, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight,
            mlp.fc2.bias, mlp.activation, scale=self.drop_path(x),
            backend=self.backend)

    def _forward_with_dropout(self, x):
        for branch in (lambda x: self.mlp.drop(self.attn(self.norm1(x))),
                       lambda x: self.mlp(self.norm2(x))):
            scale = self.drop_path(x)
            scale = 1. if scale is None else scale[:, None, None, None]
            x = x + branch(x) * scale
        return x

    def forward(self, x):
        if self.with_cp and torch.is_grad_enabled():
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


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

    def forward(self, x):
        if self.proj.kernel_size == self.proj.stride:
            x = _fill_up(x, self.proj.stride[0])
        # (B, H, W, C) is (B, C, H, W) with channels last: no copy.
        x = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


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
        x = _fill_up(x, 2)
        # Down the columns first: the order of the weights' channels.
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)
        return self.reduction(self.norm(x))


def _fill_up(x, size):
    """Zeros below and to the right, to a multiple of ``size``."""
    height, width = x.shape[1:3]
    below, right = -height % size, -width % size
    if torch.jit.is_tracing() or below or right:
        return F.pad(x, (0, 0, 0, right, 0, below))
    return x


# Types by mm's names; the ops know the activations in lower case.
_NORMS = {'LN': nn.LayerNorm}
_ACTIVATIONS = {
    'GELU': nn.GELU,
    'ReLU': nn.ReLU,
    'SiLU': nn.SiLU,
    'Hardswish': nn.Hardswish,
}


def _kind(cfg, known, name):
    """Type and further keys of an mm style ``dict(type=...)``."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"CycleNet: {name} takes a dict with 'type' one of "
            f'{sorted(known)}, got {cfg!r}')
    return kind, {key: cfg[key] for key in cfg if key != 'type'}


def _check_number(name, value, least, below=math.inf, whole=False):
    if not isinstance(value, Integral if whole else Real) or not (
            least <= value < below):
        raise ValueError(
            f'CycleNet: {name} is a {"whole " * whole}number, {least} or more'
            + (f' and below {below}' if below < math.inf else '')
            + f', got {value!r}')


def _to_nchw(x):
    """(B, H, W, C) -> (B, C, H, W), contiguous."""
    if (not x.is_cpu or is_compiling() or torch.jit.is_tracing()
            or x.shape[0] == 0):
        return x.permute(0, 3, 1, 2).contiguous()
    # A CPU transposes matrices some three times as fast as maps.
    images = [image.t().contiguous() for image in x.flatten(1, 2)]
    maps = images[0][None] if len(images) == 1 else torch.stack(images)
    return maps.unflatten(2, x.shape[1:3])


class CycleNet(nn.Module):
    """CycleMLP backbone with multi-scale outputs, or classifier.

    Any image size works, from 3x3 on (1x1 with ``stem='conv4'``); none
    needs to be a multiple of 32.

    Of T, S and B the authors released weights but never code. Here they
    are read as Swin's dims and depths with Swin's patch merging, and
    mixers that sum their branches: of what was tried, this alone has the
    published counts (28M, 50M, 88M parameters; 4.4, 8.5, 15.2 GMACs). The
    counts do not tell which stem they have, hence ``stem``.

    Args:
        arch (str | dict): ``'b1'`` ... ``'b5'``; ``'t'``, ``'s'``, ``'b'``
            (a reading, see above); or a dict with ``embed_dims``,
            ``depths`` and ``mlp_ratios``, a number a stage, and perhaps
            ``downsample`` (``'conv'``, the default, or
            ``'patch_merging'``) and ``reweight`` (whether the mixer's
            branches are weighted; default True). Default: 'b1'.
        stem (str): ``'conv7'``, 7x7 with stride 4, or ``'conv4'``, 4x4 with
            stride 4 and a norm. Default: 'conv7'.
        in_channels (int): Channels of the image. Default: 3.
        fork_feat (bool): Whether to give a tuple of maps (backbone) or
            logits (classifier). Default: True.
        fork_last3 (bool | None): Whether the output of the first stage
            has no norm, so that no parameter goes unused with heads that
            start at the second stage (RetinaNet). None takes it from the
            environment variable FORK_LAST3 of the official code, where any
            non-empty value means True. Default: None.
        out_indices (Sequence[int]): Stages whose maps are given, from 0.
            Stages after the last of them are not run, and are frozen.
            Default: (0, 1, 2, 3).
        num_classes (int): Classes of the classifier. Default: 1000.
        drop_rate (float): Dropout rate. Default: 0.
        drop_path_rate (float): Stochastic depth rate of the last block;
            it grows linearly from 0 at the first. Default: 0.
        qkv_bias (bool): Whether the pointwise branch of the mixer has a
            bias. Default: False.
        skip_lam (float): Divisor of the residual branches. Default: 1.
        frozen_stages (int): Number of stages to freeze (no gradient, eval
            mode), together with the stem. Norms of the outputs are not
            frozen. 0 and -1 freeze nothing. Default: -1.
        with_cp (bool): Whether to recompute blocks in the backward pass
            to save memory. Default: False.
        norm_cfg (dict): Norm of blocks and outputs.
            Default: dict(type='LN', eps=1e-5).
        act_cfg (dict): Activation. Default: dict(type='GELU').
        backend (str | None): How the blocks run: ``'triton'`` (fused
            kernels, on a GPU), ``'torch'`` (on any device), ``'plain'``
            (textbook blocks of stock operators, to be counted or
            exported), ``'reference'`` (textbook blocks with deformable
            convolutions, as in the official code; slow), or None:
            ``'triton'`` in half precision where it was measured to be
            faster, else ``'torch'``, and ``'plain'`` while torch.jit
            traces. All give the same up to rounding. Default: None.
        init_cfg (dict | None): ``dict(type='Pretrained', checkpoint=...)``
            with a path or URL, read by :meth:`init_weights`; ``prefix``
            names where in a whole model the backbone lies, e.g.
            ``'backbone.'``; ``trusted=True`` is for files of one's own
            that are refused: they may run code. Default: None.

    Inputs:
        x (Tensor): Image of shape (B, in_channels, H, W).

    Returns:
        tuple[Tensor] | Tensor: Contiguous maps (B, embed_dims[i], H_i, W_i)
        of the stages in ``out_indices``, strides 4, 8, 16, 32; with
        ``fork_feat=False`` logits (B, num_classes).

    Raises:
        ValueError: An argument is out of its range; says which.
    """

    arch_settings = ARCH_SETTINGS

    def __init__(self,
                 arch='b1',
                 stem='conv7',
                 in_channels=3,
                 fork_feat=True,
                 fork_last3=None,
                 out_indices=(0, 1, 2, 3),
                 num_classes=1000,
                 drop_rate=0.,
                 drop_path_rate=0.,
                 qkv_bias=False,
                 skip_lam=1.,
                 frozen_stages=-1,
                 with_cp=False,
                 norm_cfg=dict(type='LN', eps=1e-5),  # noqa: B006
                 act_cfg=dict(type='GELU'),  # noqa: B006
                 backend=None,
                 init_cfg=None):
        super().__init__()
        settings = resolve_arch(arch)
        dims = tuple(settings['embed_dims'])
        depths = tuple(settings['depths'])
        ratios = tuple(settings['mlp_ratios'])
        if not isinstance(frozen_stages, Integral) or not (
                -1 <= frozen_stages <= len(dims)):
            raise ValueError(
                f'CycleNet: frozen_stages counts stages, -1 to {len(dims)}, '
                f'got {frozen_stages!r}')
        _check_number('in_channels', in_channels, 1, whole=True)
        _check_number('num_classes', num_classes, 1, whole=True)
        _check_number('drop_rate', drop_rate, 0, below=1)
        _check_number('drop_path_rate', drop_path_rate, 0, below=1)
        _check_number('skip_lam', skip_lam, 1e-6)
        if init_cfg is not None and (
                not isinstance(init_cfg, dict)
                or init_cfg.get('type') != 'Pretrained'
                or 'checkpoint' not in init_cfg
                or set(init_cfg) - {
                    'type', 'checkpoint', 'prefix', 'trusted'}):
            raise ValueError(
                "CycleNet: init_cfg takes dict(type='Pretrained', "
                "checkpoint=...[, prefix='backbone.', trusted=True]), got "
                f'{init_cfg!r}')
        self.arch = arch
        self.backend = check_backend(backend)
        self.embed_dims = dims
        self.num_stages = len(dims)
        self.fork_feat = fork_feat
        self.frozen_stages = frozen_stages
        self.init_cfg = init_cfg

        kind, options = _kind(norm_cfg, _NORMS, 'norm_cfg')
        if set(options) - {'eps', 'elementwise_affine', 'bias'}:
            raise ValueError(
                "CycleNet: norm_cfg takes 'type', 'eps', "
                f"'elementwise_affine' and 'bias', got {norm_cfg}")
        _check_number("'eps' of norm_cfg", options.get('eps', 1e-5), 1e-30)
        norm_layer = partial(_NORMS[kind], **options)
        activation, options = _kind(act_cfg, _ACTIVATIONS, 'act_cfg')
        if options:
            raise ValueError(
                f"CycleNet: act_cfg takes 'type' alone, got {act_cfg}")
        num_blocks = sum(depths)
        rates = [drop_path_rate * i / max(1, num_blocks - 1)
                 for i in range(num_blocks)]

        if stem not in ('conv7', 'conv4'):
            raise ValueError(
                f"CycleNet: stem is 'conv7' or 'conv4', got {stem!r}")
        self.patch_embed = (
            Downsample(in_channels, dims[0], 7, 4, 2) if stem == 'conv7'
            else Downsample(in_channels, dims[0], 4, 4, 0, norm_layer))
        merges = settings.get('downsample', 'conv') == 'patch_merging'
        reweight = settings.get('reweight', True)
        # Stages at even places, the downsampling between them at odd ones.
        self.network = nn.ModuleList()
        for i, (dim, depth, ratio) in enumerate(zip(dims, depths, ratios)):
            if i > 0:
                self.network.append(
                    PatchMerging(dims[i - 1], dim, norm_layer) if merges
                    else Downsample(dims[i - 1], dim, 3, 2, 1))
            self.network.append(
                nn.Sequential(*(
                    CycleBlock(dim, ratio, norm_layer, activation, reweight,
                               qkv_bias, drop_rate, rates.pop(0), skip_lam,
                               with_cp, backend)
                    for _ in range(depth))))

        # How much of the network an output depends on.
        self._places = len(self.network)
        if fork_feat:
            self.out_indices = self._resolve_out_indices(out_indices)
            self._places = 2 * self.out_indices[-1] + 1
            self.fork_last3 = self._resolve_fork_last3(fork_last3)
            for i in self.out_indices:
                bare = i == 0 and self.fork_last3
                self.add_module(
                    f'norm{2 * i}',
                    nn.Identity() if bare else norm_layer(dims[i]))
        else:
            self.norm = norm_layer(dims[-1])
            self.head = nn.Linear(dims[-1], num_classes)

        self.apply(self._init_module)
        self._freeze_stages()

    def _resolve_out_indices(self, out_indices):
        indices = tuple(out_indices) if isinstance(
            out_indices, (list, tuple, range)) else ()
        if not indices or not all(
                isinstance(i, Integral) and 0 <= i < self.num_stages
                for i in indices) or list(indices) != sorted(set(indices)):
            raise ValueError(
                'CycleNet: out_indices are ascending stages, 0 to '
                f'{self.num_stages - 1}, got {out_indices!r}')
        return indices

    @staticmethod
    def _resolve_fork_last3(fork_last3):
        variable = os.environ.get('FORK_LAST3')
        if fork_last3 is None:
            taken, source = bool(variable), 'environment variable FORK_LAST3'
        else:
            taken, source = bool(fork_last3), 'config'
        if taken or variable:
            logger.info('CycleNet: fork_last3=%s, taken from the %s', taken,
                        source)
        return taken

    @staticmethod
    def on_meta(arch, **options):
        """Build a network of keys and shapes alone, on the meta device.

        Args:
            arch (str | dict): See the class.
            options: See the class.

        Returns:
            CycleNet: Without values; not a subclass.
        """
        with torch.device('meta'):
            return CycleNet(arch, **options)

    @staticmethod
    def _init_module(module):
        # The convolutions keep PyTorch's default.
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (CycleFC, nn.Conv2d, nn.LayerNorm)):
            module.reset_parameters()

    def init_weights(self):
        """Initialise, then load the checkpoint of ``init_cfg`` if any.

        Raises:
            CheckpointError: The checkpoint cannot be read safely, or does
                not account for every tensor of the network.
        """
        self.apply(self._init_module)
        if self.init_cfg is not None:
            load_pretrained(self, self.init_cfg['checkpoint'],
                            self.init_cfg.get('prefix'),
                            self.init_cfg.get('trusted') is True)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Whoever loads (torch, an mm runner with strict=False), a state
        # dict that does not fit must not pass in silence.
        own = {key[len(prefix):]: value for key, value in state_dict.items()
               if key.startswith(prefix)}
        adapted, _ = adapt_state_dict(own, self)
        for key in own.keys() - adapted.keys():
            del state_dict[prefix + key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _freeze_stages(self):
        # Stage i and the downsampling before it end at place 2 * i.
        frozen = list(self.network[self._places:])  # which nothing reads
        if self.frozen_stages > 0:
            frozen += [self.patch_embed,
                       *self.network[:2 * self.frozen_stages - 1]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode=True):
        """Switch the mode; frozen stages stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def get_layer_depth(self, param_name, prefix=''):
        """How deep a parameter lies, for learning rates that decay by layer.

        As the classifiers and constructors of mmpretrain ask for it.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): What precedes the names of the backbone there,
                e.g. ``'backbone.'``. Default: ''.

        Returns:
            tuple[int, int]: Depth, and the number of layers: that of the
            blocks which are run, and 2. The stem is at 0, each block one
            deeper (with it what downsamples before it), and norms of the
            outputs, the head and all else of the model at the last.
        """
        blocks = [len(stage) for stage in self.network[:self._places:2]]
        last = depth = sum(blocks) + 1
        module, *places = param_name[len(prefix):].split('.')
        own = param_name.startswith(prefix)
        if own and module == 'patch_embed':
            depth = 0
        elif own and module == 'network':
            place = int(places[0])
            depth = sum(blocks[:(place + 1) // 2]) + 1
            if place % 2 == 0:
                depth += int(places[1])
        return min(depth, last), last + 1

    def _check_image(self, x):
        conv = self.patch_embed.proj
        if not isinstance(x, torch.Tensor) or x.dim() != 4 or (
                x.shape[1] != conv.in_channels):
            raise ValueError(
                f'CycleNet: takes images (B, {conv.in_channels}, H, W), got '
                f'{tuple(x.shape) if hasattr(x, "shape") else x!r} as a '
                f'{type(x).__name__}')
        least = conv.kernel_size[0] - 2 * conv.padding[0]
        if conv.kernel_size == conv.stride:
            least = 1  # it is filled up
        height, width = x.shape[2:]
        if min(height, width) < least:
            raise ValueError(
                f'CycleNet: the stem needs images of {least}x{least} or '
                f'more, got {height}x{width}')

    def forward_stem(self, x):
        """From an image (B, in_channels, H, W) to a map (B, H', W', C)."""
        if not torch.jit.is_tracing() and not is_compiling():
            self._check_image(x)
        # Channels last from here on.
        x = x.contiguous(memory_format=torch.channels_last)
        return self.patch_embed(x.permute(0, 2, 3, 1))

    def forward(self, x):
        x = self.forward_stem(x)  # (B, H, W, C)
        outs = []
        for place in range(self._places):
            x = self.network[place](x)
            if self.fork_feat and place % 2 == 0 and (
                    place // 2 in self.out_indices):
                out = getattr(self, f'norm{place}')(x)
                # Heads get plain memory: mmcv's RoIAlign on the CPU reads
                # channels-last maps wrongly, without an error.
                outs.append(_to_nchw(out))
        if self.fork_feat:
            return tuple(outs)
        return self.head(self.norm(x).mean(dim=(1, 2)))
