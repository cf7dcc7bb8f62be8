"""CycleNet, the backbone of CycleMLP, in plain PyTorch.

Chen et al., "CycleMLP: A MLP-like Architecture for Dense Prediction", ICLR
2022 (https://arxiv.org/abs/2107.10224). The authors' weights are at
https://github.com/ShoufaChen/CycleMLP. Parameter names are those of the
released files. Nothing here needs an mm library: they build the class
through their registries and call ``init_weights()`` as on their own modules.
"""

import logging
import os
from functools import partial

import torch
import torch.utils.checkpoint as cp
from torch import nn

from ..ops import CycleFC, check_backend, is_compiling
from .arch import ARCH_SETTINGS, resolve_arch
from .arguments import (
    check_frozen_stages,
    check_init_cfg,
    check_number,
    check_out_indices,
    find_act,
    find_norm,
)
from .fusing import can_fuse_mixer, can_fuse_mlp, fused_mixer, fused_mlp
from .layers import (
    Downsample,
    DropPath,
    Mlp,
    PatchMerging,
    make_stem,
    to_nchw,
)
from .weights import adapt_state_dict, load_pretrained

logger = logging.getLogger('mmcyclemlp')


class CycleMixer(nn.Module):
    """Token mixer: two CycleFC branches and a pointwise one, re-weighted.

    ``sfc_h`` moves along the width and ``sfc_w`` along the height. The names
    are the keys of the released weights.

    Args:
        dim (int): Channels C of input and output.
        act_layer (Callable): Makes the activation of the re-weighting.
        reweight (bool): Whether the branches are weighted by their mean. If
            not, they are summed. Default: True.
        qkv_bias (bool): Whether ``mlp_c`` has a bias. Default: False.
        drop (float): Dropout after the projection. Default: 0.
        backend (str | None): See :func:`~mmcyclemlp.ops.cycle_fc`.
            Default: None.

    Inputs:
        x (Tensor): (B, H, W, C).
    """

    def __init__(self, dim, act_layer, reweight=True, qkv_bias=False,
                 drop=0., backend=None):
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=qkv_bias)
        self.sfc_h = CycleFC(dim, dim, (1, 3), backend=backend)
        self.sfc_w = CycleFC(dim, dim, (3, 1), backend=backend)
        self.reweight = (
            Mlp(dim, dim // 4, dim * 3, act_layer) if reweight else None)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x):
        x_nchw = x.permute(0, 3, 1, 2)
        h = self.sfc_h(x_nchw).permute(0, 2, 3, 1)
        w = self.sfc_w(x_nchw).permute(0, 2, 3, 1)
        c = self.mlp_c(x)
        x = h + w + c
        if self.reweight is not None:
            # (B, 3 C) -> three of (B, 1, 1, C)
            a = self.reweight(x.mean((1, 2))).reshape(
                x.shape[0], 1, 1, x.shape[3], 3).softmax(-1)
            a_h, a_w, a_c = a.unbind(-1)
            x = h * a_h + w * a_w + c * a_c
        return self.proj_drop(self.proj(x))


class CycleBlock(nn.Module):
    """Token mixer and MLP, each with a norm before and a shortcut.

    Args:
        dim (int): Channels C.
        mlp_ratio (float): Hidden channels of the MLP over ``dim``.
        norm_layer (Callable): Makes a norm from its channels.
        act_layer (Callable): Makes an activation.
        reweight (bool): See :class:`CycleMixer`. Default: True.
        qkv_bias (bool): See :class:`CycleMixer`. Default: False.
        drop (float): Dropout rate. Default: 0.
        drop_path (float): Stochastic depth rate. Default: 0.
        skip_lam (float): Divisor of the residual branches. Default: 1.
        with_cp (bool): Whether to recompute the block in the backward pass
            in place of keeping its activations. Default: False.
        backend (str | None): See :class:`CycleNet`. Default: None.

    Inputs:
        x (Tensor): (B, H, W, C).
    """

    def __init__(self, dim, mlp_ratio, norm_layer, act_layer, reweight=True,
                 qkv_bias=False, drop=0., drop_path=0., skip_lam=1.,
                 with_cp=False, backend=None):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = CycleMixer(
            dim, act_layer, reweight, qkv_bias, drop, backend)
        self.drop_path = DropPath(drop_path, skip_lam)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, act_layer, drop)
        self.with_cp = with_cp
        self.backend = backend

    def _forward(self, x):
        if type(self.attn) is CycleMixer and can_fuse_mixer(self, x):
            x = fused_mixer(self.attn, self.norm1(x), x,
                            self.drop_path.scale(x), self.backend)
        else:
            x = x + self.drop_path(self.attn(self.norm1(x)))
        if can_fuse_mlp(self, x):
            return fused_mlp(self.mlp, self.norm2(x), x,
                             self.drop_path.scale(x))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(self, x):
        if self.with_cp and torch.is_grad_enabled():
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


class CycleNet(nn.Module):
    """CycleMLP as a backbone with multi-scale outputs, or as a classifier.

    Images of any size from 3x3 on work (from 1x1 on with ``stem='conv4'``).

    The authors released weights of T, S and B, but no code. Here these archs
    have the dims, depths and patch merging of Swin, and mixers that sum
    their branches. This is a reading: it alone has the published counts (28,
    50 and 88 M parameters; 4.4, 8.5 and 15.2 GMACs). The counts do not tell
    the stem, which ``stem`` selects.

    Args:
        arch (str | dict): ``'b1'`` to ``'b5'``, ``'t'``, ``'s'`` or ``'b'``.
            Or a dict with ``embed_dims``, ``depths`` and ``mlp_ratios``, one
            number for each stage. The dict may have ``downsample``
            (``'conv'``, the default, or ``'patch_merging'``) and
            ``reweight`` (whether the mixer weights its branches; True by
            default).
        stem (str): ``'conv7'``, 7x7 with stride 4, or ``'conv4'``, 4x4 with
            stride 4 and a norm. Default: 'conv7'.
        in_channels (int): Channels of the image. Default: 3.
        fork_feat (bool): Whether to return a tuple of maps (backbone) or
            logits (classifier). Default: True.
        fork_last3 (bool | None): Whether the output of the first stage has
            no norm. Heads that start at the second stage, as RetinaNet's,
            then leave no parameter unused. None reads the environment
            variable FORK_LAST3 of the official code, where any non-empty
            value means True. Default: None.
        out_indices (Sequence[int]): Stages whose maps are returned, from 0.
            Later stages are frozen and do not run. Default: (0, 1, 2, 3).
        num_classes (int): Classes of the classifier. Default: 1000.
        drop_rate (float): Dropout rate. Default: 0.
        drop_path_rate (float): Stochastic depth rate of the last block. It
            grows linearly from 0 at the first block. Default: 0.
        qkv_bias (bool): Whether the pointwise branch of the mixer has a
            bias. Default: False.
        skip_lam (float): Divisor of the residual branches. Default: 1.
        frozen_stages (int): Number of stages to freeze, with the stem: no
            gradient, eval mode. Norms of outputs are not frozen. 0 and -1
            freeze nothing. Default: -1.
        with_cp (bool): Whether to recompute blocks in the backward pass to
            save memory. Default: False.
        norm_cfg (dict): Norm of blocks and outputs.
            Default: dict(type='LN', eps=1e-5).
        act_cfg (dict): Activation. Default: dict(type='GELU').
        backend (str | None): How the blocks run. ``'triton'``: fused
            kernels on a GPU. ``'torch'``: fused, on any device.
            ``'plain'``: each submodule, in stock operators, to count or
            export. ``'reference'``: each submodule, with the deformable
            convolutions of the official code (slow). None: ``'triton'`` in
            half precision where it was measured to be faster, else
            ``'torch'``, and ``'plain'`` while torch.jit traces. The results
            are equal up to rounding. A submodule that has a hook, a
            parametrization or an adapter is always called. Default: None.
        init_cfg (dict | None): ``dict(type='Pretrained', checkpoint=...)``
            with a path or URL, which :meth:`init_weights` loads. ``prefix``
            is where in a whole model the backbone is, e.g. ``'backbone.'``.
            ``trusted=True`` unpickles a refused file of your own, and runs
            code in it. Default: None.

    Inputs:
        x (Tensor): Image of shape (B, in_channels, H, W).

    Returns:
        tuple[Tensor] | Tensor: Contiguous maps (B, embed_dims[i], H_i, W_i)
        of the stages in ``out_indices``, with strides 4, 8, 16 and 32. With
        ``fork_feat=False`` logits (B, num_classes).

    Raises:
        ValueError: An argument or an image is not valid.
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
        check_number('in_channels', in_channels, 1, whole=True)
        check_number('num_classes', num_classes, 1, whole=True)
        check_number('drop_rate', drop_rate, 0, below=1)
        check_number('drop_path_rate', drop_path_rate, 0, below=1)
        check_number('skip_lam', skip_lam, 1e-6)
        self.arch = arch
        self.backend = check_backend(backend)
        self.embed_dims = dims
        self.num_stages = len(dims)
        self.in_channels = in_channels
        self.fork_feat = fork_feat
        self.frozen_stages = check_frozen_stages(frozen_stages, len(dims))
        self.init_cfg = check_init_cfg(init_cfg)

        norm_layer = find_norm(norm_cfg)
        block = partial(
            CycleBlock, norm_layer=norm_layer, act_layer=find_act(act_cfg),
            reweight=settings.get('reweight', True), qkv_bias=qkv_bias,
            drop=drop_rate, skip_lam=skip_lam, with_cp=with_cp,
            backend=backend)
        self.patch_embed = make_stem(stem, in_channels, dims[0], norm_layer)
        self.network = self._make_stages(
            settings, block, norm_layer, drop_path_rate)

        # Number of modules of `network` that run.
        self._places = len(self.network)
        if fork_feat:
            self.out_indices = check_out_indices(out_indices, len(dims))
            self._places = 2 * self.out_indices[-1] + 1
            self.fork_last3 = self._resolve_fork_last3(fork_last3)
            self._add_output_norms(norm_layer)
        else:
            self.norm = norm_layer(dims[-1])
            self.head = nn.Linear(dims[-1], num_classes)

        self.apply(self._init_module)
        self._freeze_stages()
        self._own_names = self._names()

    def _names(self):
        tensors = (self.named_parameters(), self.named_buffers())
        return {name for some in tensors for name, _ in some}

    @staticmethod
    def _make_stages(settings, block, norm_layer, drop_path_rate):
        """Make stages, at even places, and what downsamples, at odd ones."""
        dims, depths = settings['embed_dims'], settings['depths']
        number = sum(depths)
        # The stochastic depth rate of each block.
        rates = iter(drop_path_rate * i / max(1, number - 1)
                     for i in range(number))
        merges = settings.get('downsample', 'conv') == 'patch_merging'
        network = nn.ModuleList()
        for i, (dim, depth, ratio) in enumerate(
                zip(dims, depths, settings['mlp_ratios'])):
            if i > 0:
                network.append(
                    PatchMerging(dims[i - 1], dim, norm_layer) if merges
                    else Downsample(dims[i - 1], dim, 3, 2, 1))
            network.append(nn.Sequential(*(
                block(dim, ratio, drop_path=next(rates))
                for _ in range(depth))))
        return network

    def _add_output_norms(self, norm_layer):
        for i in self.out_indices:
            norm = (nn.Identity() if i == 0 and self.fork_last3
                    else norm_layer(self.embed_dims[i]))
            self.add_module(f'norm{2 * i}', norm)

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
        """Initialize, then load the checkpoint of ``init_cfg`` if any.

        Raises:
            CheckpointError: The checkpoint cannot be read safely or does
                not fit the network.
        """
        self.apply(self._init_module)
        if self.init_cfg is not None:
            load_pretrained(self, self.init_cfg['checkpoint'],
                            self.init_cfg.get('prefix'),
                            self.init_cfg.get('trusted') is True)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # mm loads with strict=False, which would accept in silence a state
        # dict that does not fit.
        if self._names() != self._own_names:
            # Adapters, wrappers and pruning add or rename tensors.
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
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
        """Set the mode. Frozen stages stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def get_layer_depth(self, param_name, prefix=''):
        """Return the depth of a parameter, for layer-wise decay.

        Classifiers and constructors of mmpretrain call it.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Prefix of the backbone there, e.g.
                ``'backbone.'``. Default: ''.

        Returns:
            tuple[int, int]: Depth and number of layers. The stem has depth
            0, the blocks that run have 1, 2, ..., together with the
            downsampling before them. Output norms, head and the rest of the
            model are the last layer.
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
        if not isinstance(x, torch.Tensor) or x.dim() != 4 or (
                x.shape[1] != self.in_channels):
            raise ValueError(
                f'CycleNet: takes images (B, {self.in_channels}, H, W), got '
                f'{tuple(x.shape) if hasattr(x, "shape") else x!r} as a '
                f'{type(x).__name__}')
        height, width = x.shape[2:]
        least = self.patch_embed.min_size
        if min(height, width) < least:
            raise ValueError(
                f'CycleNet: the stem needs images of {least}x{least} or '
                f'more, got {height}x{width}')

    def forward_stem(self, x):
        """Map an image (B, in_channels, H, W) to (B, H', W', C)."""
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
                outs.append(to_nchw(out))
        if self.fork_feat:
            return tuple(outs)
        return self.head(self.norm(x).mean(dim=(1, 2)))
