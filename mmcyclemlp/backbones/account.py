"""Every key of a state dict, and of the network that it is for."""

import re
from typing import NamedTuple

import torch

from ..ops import CycleFC, cycle_offsets


class LoadReport(NamedTuple):
    """What became of the keys of a file and of the network.

    Attributes:
        loaded (list[str]): Keys taken from the file.
        dropped (list[str]): Keys of the file the network has no use for.
        kept (list[str]): Keys of the network that stay at their initial
            values: output norms, where the file is a classifier's; the
            head, where the file has none.
    """

    loaded: list
    dropped: list
    kept: list

    def __str__(self):
        text = f'{len(self.loaded)} tensors loaded'
        if self.dropped:
            heads = [key for key in self.dropped
                     if not key.endswith('.offset')]
            text += f'; dropped {len(self.dropped) - len(heads)} offsets'
            text += f' (verified) and {heads}' if heads else ' (verified)'
        if self.kept:
            text += f'; at their initial values: {self.kept}'
        return text


_CLASSIFIER = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')
is_out_norm = re.compile(r'norm\d+\.').match


class Account(NamedTuple):
    """Tensors held against a network, and what does not fit it.

    Attributes:
        adapted (dict): Tensors the network takes.
        dropped (list[str]): Keys it has no use for.
        kept (list[str]): Its keys that may stay at their initial values.
        missing (list[str]): Its keys that the tensors lack.
        unexpected (list[str]): Keys it does not know.
        reshaped (list[str]): Keys with the shape they have and ought to.
        wrong_offsets (list[str]): Keys of offsets that are not the
            formula's, and why.
    """

    adapted: dict
    dropped: list
    kept: list
    missing: list
    unexpected: list
    reshaped: list
    wrong_offsets: list

    @property
    def misfits(self):
        """Keys that do not fit, each in words."""
        return [
            *(f'of another shape: {text}' for text in self.reshaped),
            *(f'missing: {key}' for key in self.missing),
            *(f'unexpected: {key}' for key in self.unexpected),
            *self.wrong_offsets,
        ]


def account_for(state, model):
    """Hold a state dict against a network and say what fits.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for; may be on meta.

    Returns:
        Account: Every key of both sides.
    """
    expected = {key: tuple(value.shape)
                for key, value in model.named_parameters()}
    layers = {f'{name}.offset': module
              for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    adapted, dropped, unexpected, reshaped, wrong = {}, [], [], [], []
    for key, value in state.items():
        shape = tuple(value.shape)
        if key in layers:
            dropped.append(key)
            if not _holds_offsets(value, layers[key]):
                wrong.append(
                    f'{key} {shape} does not hold the offsets of a CycleFC '
                    f'with kernel {layers[key].kernel_size}: the weights '
                    'belong to another operator')
        elif key in expected:
            adapted[key] = value
            if shape != expected[key]:
                reshaped.append(f'{key} {shape} for {expected[key]}')
        elif key in _CLASSIFIER:
            dropped.append(key)
        else:
            unexpected.append(key)
    missing = [key for key in expected if key not in state]
    kept = []
    for may_stay in (is_out_norm, is_head):
        if not any(map(may_stay, state)):
            kept += [key for key in missing if may_stay(key)]
    missing = [key for key in missing if key not in kept]
    return Account(adapted, dropped, kept, missing, unexpected, reshaped,
                   wrong)


def is_head(key):
    return key.startswith('head.')


def _holds_offsets(value, layer):
    offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
    return value.shape == (1, offsets.numel(), 1, 1) and torch.equal(
        value.flatten().cpu().double(), offsets.flatten().double())
