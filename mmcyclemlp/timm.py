"""CycleNet for timm.

After ``import mmcyclemlp.timm``, timm can create the models: for example
``timm.create_model('cyclemlp_b1', features_only=True)``, for b1 to b5, t, s
and b. ``import mmcyclemlp`` alone does not import timm, which takes seconds.
The keys of the weights are those of the released files.
"""

from timm.layers import create_classifier
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from timm.models._features import feature_take_indices
from timm.models._manipulate import adapt_input_conv
from torch import nn

from .backbones import CycleNet
from .backbones.weights import adapt_state_dict, find_backbone
from .checkpoint_files import read_checkpoint

__all__ = ['CycleMLP']


class CycleMLP(CycleNet):
    """The classifier with the interface of timm's models.

    Args:
        arch (str): See :class:`CycleNet`. Default: 'b1'.
        stem (str): See :class:`CycleNet`. Default: 'conv7'.
        in_chans (int): Channels of the image. Default: 3.
        num_classes (int): Classes. With 0 the model returns features.
            Default: 1000.
        global_pool (str): 'avg', or '' to return maps. Default: 'avg'.
        drop_rate (float): Dropout rate before the classifier. Default: 0.
        proj_drop_rate (float): Dropout rate in the blocks. Default: 0.
        drop_path_rate (float): Stochastic depth rate. Default: 0.
        backend (str | None): See :class:`CycleNet`. Default: None.

    Inputs:
        x (Tensor): Image of shape (B, in_chans, H, W).

    Returns:
        Tensor: Logits (B, num_classes).
    """

    output_fmt = 'NHWC'

    def __init__(self, arch='b1', stem='conv7', in_chans=3, num_classes=1000,
                 global_pool='avg', drop_rate=0., proj_drop_rate=0.,
                 drop_path_rate=0., backend=None):
        super().__init__(
            arch, stem, in_chans, fork_feat=False,
            num_classes=max(1, num_classes), drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate, backend=backend)
        self.num_features = self.head_hidden_size = self.embed_dims[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.in_chans = in_chans
        self.grad_checkpointing = False
        self.feature_info = [
            dict(num_chs=dim, reduction=4 * 2**i, module=f'network.{2 * i}')
            for i, dim in enumerate(self.embed_dims)]
        self.num_classes, self.global_pool = num_classes, global_pool
        if num_classes == 0 or global_pool != 'avg':
            self.reset_classifier(num_classes, global_pool)

    def get_classifier(self):
        """Return the linear layer of the logits."""
        return self.head

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace the classifier by a new one, or remove it."""
        self.num_classes = num_classes
        if global_pool is not None:
            if global_pool not in ('', 'avg'):
                raise ValueError("CycleMLP: global_pool is 'avg' or '', got "
                                 f'{global_pool!r}')
            self.global_pool = global_pool
        self.head = create_classifier(
            self.num_features, num_classes, pool_type='avg')[1]
        self.head.apply(self._init_module)

    def group_matcher(self, coarse=False):
        """Return patterns of parameter names, for timm's layer decay."""
        return dict(
            stem=r'^patch_embed',
            blocks=r'^network\.(\d+)' if coarse else [
                (r'^network\.(\d+)\.(\d+)', None), (r'^norm', (99999, ))])

    def set_grad_checkpointing(self, enable=True):
        """Set whether blocks are recomputed in the backward pass."""
        self.grad_checkpointing = enable
        for stage in self.network[::2]:
            for block in stage:
                block.with_cp = enable

    def forward_features(self, x):
        """Map an image to the last map, normalized: (B, H', W', C)."""
        x = self.forward_stem(x)
        for module in self.network:
            x = module(x)
        return self.norm(x)

    def forward_head(self, x, pre_logits=False):
        """Map the last map to logits, or to the features before them."""
        if self.global_pool:
            x = x.mean(dim=(1, 2))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(self, x, indices=None, norm=False,
                              stop_early=False, output_fmt='NCHW',
                              intermediates_only=False):
        """Return the maps of stages, for timm's feature extraction.

        Args:
            x (Tensor): Image of shape (B, in_chans, H, W).
            indices (int | list[int] | None): The number of last stages, or
                the stages. None for all. Default: None.
            norm (bool): Whether the last map is normalized.
                Default: False.
            stop_early (bool): Whether to stop after the last selected
                stage. Default: False.
            output_fmt (str): 'NCHW' or 'NHWC'. Default: 'NCHW'.
            intermediates_only (bool): Whether to return the maps alone.
                Default: False.

        Returns:
            list[Tensor] | tuple[Tensor, list[Tensor]]: The maps, or the
            result of :meth:`forward_features` and the maps.

        Raises:
            ValueError: ``output_fmt`` is neither 'NCHW' nor 'NHWC'.
        """
        if output_fmt not in ('NCHW', 'NHWC'):
            raise ValueError("CycleMLP: output_fmt is 'NCHW' or 'NHWC', got "
                             f'{output_fmt!r}')
        taken, last = feature_take_indices(self.num_stages, indices)
        x, maps = self.forward_stem(x), []
        end = 2 * last + 1 if stop_early else len(self.network)
        for place, module in enumerate(self.network[:end]):
            x = module(x)
            if place % 2 == 0 and place // 2 in taken:
                final = place // 2 == self.num_stages - 1
                y = self.norm(x) if norm and final else x
                maps.append(y if output_fmt == 'NHWC'
                            else y.permute(0, 3, 1, 2).contiguous())
        return maps if intermediates_only else (self.norm(x), maps)

    def prune_intermediate_layers(self, indices=1, prune_norm=False,
                                  prune_head=True):
        """Remove what the maps of some stages do not need.

        Returns:
            list[int]: These stages, from 0.
        """
        taken, last = feature_take_indices(self.num_stages, indices)
        self.network = self.network[:2 * last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, '')
        return taken

    def load_pretrained(self, path):
        """Load any file of weights that :func:`load_pretrained` reads.

        As in timm, the head of the file is dropped if it has another number
        of classes, and the weights of the stem are adapted to another number
        of channels.

        Args:
            path (str): Path of the file.

        Raises:
            CheckpointError: The file cannot be read safely or does not
                fit.
        """
        state = find_backbone(read_checkpoint(path)).tensors
        stem, head = 'patch_embed.proj.weight', 'head.weight'
        if head in state and self.num_classes not in (
                0, len(state[head])):
            state = {key: value for key, value in state.items()
                     if not key.startswith('head.')}
        if stem in state and self.in_chans != state[stem].shape[1]:
            state = {**state, stem: adapt_input_conv(
                self.in_chans, state[stem])}
        adapt_state_dict(state, self)
        # The network itself is strict.
        self.load_state_dict(state, strict=False)


def _cfg(arch):
    released = ('https://github.com/ShoufaChen/CycleMLP/releases/download/'
                f'v0.1/CycleMLP_{arch.upper()}.pth')
    return dict(
        url=released if arch in ('b1', 'b2', 'b3', 'b4', 'b5') else '',
        # The files are pickles, which timm would run.
        custom_load=True, num_classes=1000, input_size=(3, 224, 224),
        pool_size=None, fixed_input_size=False, crop_pct=0.875,
        interpolation='bicubic', mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), first_conv='patch_embed.proj',
        classifier='head', license='mit')


default_cfgs = generate_default_cfgs({
    f'cyclemlp_{arch}.in1k': _cfg(arch) for arch in CycleNet.arch_settings})


def _register(arch):
    def build(pretrained=False, **kwargs):
        return build_model_with_cfg(
            CycleMLP, build.__name__, pretrained, arch=arch,
            feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'),
            **kwargs)

    build.__name__ = f'cyclemlp_{arch}'
    build.__doc__ = f'CycleMLP-{arch.upper()}, see :class:`CycleMLP`.'
    register_model(build)


for _arch in CycleNet.arch_settings:
    _register(_arch)
