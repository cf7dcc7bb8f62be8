"""Account for every key of a state dict and of the network it is for."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops import CycleFC, cycle_offsets


class LoadReport(NamedTuple):
    """What was loaded from a file, and what was not.

    Attributes:
        loaded (list[str]): Keys that were loaded.
        dropped (list[str]): Keys of the file that the network does not have.
        kept (list[str]): Keys of the network that keep their initial
            values: output norms, if the file is of a classifier; the head,
            if the file has none.
    """

    loaded: list[str]
    dropped: list[str]
    kept: list[str]

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


class Account(NamedTuple):
    """What of a state dict fits a network, and what does not.

    Attributes:
        adapted (dict): Tensors to load, by key.
        dropped (list[str]): Keys that the network does not need.
        kept (list[str]): Keys of the network that may keep their initial
            values.
        missing (list[str]): Keys of the network that the state dict lacks.
        unexpected (list[str]): Keys that the network does not have.
        reshaped (dict): By key the shape in the state dict and the shape in
            the network, where they differ.
        wrong_offsets (list[str]): Messages about offsets that are not those
            of the formula.
    """

    adapted: dict[str, Tensor]
    dropped: list[str]
    kept: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple]
    wrong_offsets: list[str]

    @property
    def reshaped_texts(self) -> list[str]:
        """Keys of another shape, each with both shapes."""
        return [f'{key} {shape} for {expected}'
                for key, (shape, expected) in self.reshaped.items()]

    @property
    def misfits(self) -> list[str]:
        """Messages about all keys that do not fit."""
        return [
            *(f'of another shape: {text}' for text in self.reshaped_texts),
            *(f'missing: {key}' for key in self.missing),
            *(f'unexpected: {key}' for key in self.unexpected),
            *self.wrong_offsets,
        ]


_CLASSIFIER = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')


def is_out_norm(key: str) -> bool:
    """Return whether a key is of the norm of an output."""
    return re.match(r'norm\d+\.', key) is not None


def is_head(key: str) -> bool:
    """Return whether a key is of the head of a classifier."""
    return key.startswith('head.')


def account_for(state: dict[str, Tensor], model: nn.Module) -> Account:
    """Compare a state dict with a network, and account for every key.

    Args:
        state (dict): Tensors by official key.
        model (CycleNet): The network they are for, on any device, also meta.

    Returns:
        Account: Every key of both.
    """
    expected = {key: tuple(value.shape)
                for key, value in model.named_parameters()}
    layers = {f'{name}.offset': module
              for name, module in model.named_modules()
              if isinstance(module, CycleFC)}
    adapted, dropped, unexpected, reshaped, wrong = {}, [], [], {}, []
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
                reshaped[key] = shape, expected[key]
        elif key in _CLASSIFIER:
            dropped.append(key)
        else:
            unexpected.append(key)
    missing = [key for key in expected if key not in state]
    kept = []
    for may_keep in (is_out_norm, is_head):
        if not any(map(may_keep, state)):
            kept += [key for key in missing if may_keep(key)]
    missing = [key for key in missing if key not in kept]
    return Account(adapted, dropped, kept, missing, unexpected, reshaped,
                   wrong)


def _holds_offsets(value, layer):
    offsets = cycle_offsets(layer.in_channels, layer.kernel_size)
    return value.shape == (1, offsets.numel(), 1, 1) and torch.equal(
        value.flatten().cpu().double(), offsets.flatten().double())
