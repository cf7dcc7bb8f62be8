"""Check that neck and heads expect the feature maps of the backbone."""

from torch import nn

from ..backbones import CycleNet
from ..errors import UserError


def check_channels(model: nn.Module) -> None:
    """Compare the feature maps of a CycleNet with its neck or heads.

    mm would stop in the first step with an error of torch, or with none. A
    neck or head without ``in_channels`` is skipped.

    Args:
        model (nn.Module): A detector or a segmentor.

    Raises:
        UserError: The number of maps or of channels differs.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, CycleNet) or not backbone.fork_feat:
        return
    channels = [backbone.embed_dims[i] for i in backbone.out_indices]
    neck = getattr(model, 'neck', None)
    if neck is not None:
        expected = getattr(neck, 'in_channels', None)
        if isinstance(expected, (list, tuple)) and (
                list(expected) != channels):
            raise _mismatch('neck', list(expected), channels, backbone)
        return
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(model, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if hasattr(head, 'in_index'):
                _check_head(name, head, channels, backbone)


def _check_head(name, head, channels, backbone):
    indices, expected = head.in_index, head.in_channels
    if isinstance(indices, int):
        indices = [indices]
    if max(indices) >= len(channels):
        raise UserError(
            f'model.{name}.in_index {head.in_index} is past the '
            f'{len(channels)} maps of the backbone, whose out_indices are '
            f'{list(backbone.out_indices)}')
    channels = [channels[i] for i in indices]
    if isinstance(expected, int):
        # input_transform='resize_concat' concatenates all maps.
        expected, channels = [expected], [sum(channels)]
    if list(expected) != channels:
        raise _mismatch(name, head.in_channels, channels, backbone)


def _mismatch(name, expected, channels, backbone):
    return UserError(
        f'model.{name}.in_channels is {expected}, but the backbone '
        f'(out_indices {list(backbone.out_indices)}) returns maps of '
        f'{channels} channels')
