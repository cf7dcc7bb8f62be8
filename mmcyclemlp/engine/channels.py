"""That what follows the backbone takes the maps it gives."""

from torch import nn

from ..backbones import CycleNet
from ..errors import UserError


def check_channels(model):
    """Compare the maps of a CycleNet with what neck or heads expect.

    mm would stop in the first step, with torch's words or with none. What
    does not say which channels it expects is not looked at.

    Args:
        model (nn.Module): A detector or a segmentor.

    Raises:
        UserError: Number or channels of the maps differ.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, CycleNet) or not backbone.fork_feat:
        return
    given = [backbone.embed_dims[i] for i in backbone.out_indices]
    neck = getattr(model, 'neck', None)
    if neck is not None:
        expected = getattr(neck, 'in_channels', None)
        if isinstance(expected, (list, tuple)) and list(expected) != given:
            raise _mismatch('neck', list(expected), given, backbone)
        return
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(model, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if hasattr(head, 'in_index'):
                _check_head(name, head, given, backbone)


def _check_head(name, head, given, backbone):
    indices, expected = head.in_index, head.in_channels
    if isinstance(indices, int):
        indices = [indices]
    if max(indices) >= len(given):
        raise UserError(
            f'model.{name}.in_index {head.in_index} is past the '
            f'{len(given)} maps of the backbone: its out_indices are '
            f'{list(backbone.out_indices)}')
    taken = [given[i] for i in indices]
    if isinstance(expected, int):
        # All maps in one, with resize_concat.
        expected, taken = [expected], [sum(taken)]
    if list(expected) != taken:
        raise _mismatch(name, head.in_channels, taken, backbone)


def _mismatch(name, expected, given, backbone):
    return UserError(
        f'model.{name}.in_channels is {expected}, and the backbone '
        f'(out_indices {list(backbone.out_indices)}) gives {given}')
