"""Write the files of paddle.save with pickle and NumPy alone.

Paddle saves a state dict as arrays and a table of names. In any other dict it
saves a tensor as a pair of name and array. The bytes are those that
paddlepaddle 3.3.1 writes for the same arrays in protocols 2, 3 and 4 (compared
on 2026-11-24 with NumPy 2).
"""

import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import torch

CORES = ('numpy.core', 'numpy._core')


class Tensor:
    """An object that is pickled as a tensor of Paddle."""

    def __init__(self, name, array):
        self.pair = name, array

    def __reduce__(self):
        return tuple, (self.pair, )


def to_paddle(state):
    """Convert tensors of PyTorch to arrays, with matrices as (in, out)."""
    arrays = {}
    for key, value in state.items():
        value = value.t() if value.dim() == 2 else value
        value = value.contiguous()
        if value.dtype == torch.bfloat16:
            # NumPy has no bfloat16, so store its bits.
            arrays[key] = value.view(torch.int16).numpy().view(np.uint16)
        else:
            arrays[key] = value.numpy()
    return arrays


def names(arrays):
    return {key: f'parameter_{i}' for i, key in enumerate(arrays)}


def plain(state):
    """Return what paddle.save(layer.state_dict(), ...) pickles."""
    arrays = to_paddle(state)
    return {**arrays, 'StructuredToParameterName@@': names(arrays)}


def pairs(state):
    """Return a state dict as Paddle saves it inside of another dict."""
    arrays = to_paddle(state)
    table = names(arrays)
    return OrderedDict((key, Tensor(table[key], array))
                       for key, array in arrays.items())


def dumps(content, protocol=4, core=None):
    """Return the bytes; ``core`` names the core module of NumPy 1 or 2."""
    data = pickle.dumps(content, protocol)
    ours = np.ones(1).__reduce__()[0].__module__.rpartition('.')[0]
    if core is not None and core != ours:
        # The name is text in protocols 2 and 3, and a counted string in 4.
        for prefix, end in ((b'c', b'\n'), (b'', b'')):
            old, new = (
                prefix + (b'' if prefix else b'\x8c' + bytes([len(name)]))
                + name.encode() + end
                for name in (f'{ours}.multiarray', f'{core}.multiarray'))
            data = data.replace(old, new)
        data = pickletools.optimize(data)  # frames have lengths
    return data
