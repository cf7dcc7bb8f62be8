"""What paddle.save writes, by pickle and numpy alone.

Of a state dict Paddle makes arrays and a table of names; in any other dict a
tensor reduces to a pair. Byte for byte what paddlepaddle 3.3.1 wrote of the
same arrays, in protocols 2, 3 and 4 (compared on 2026-11-24, numpy 2).
"""

import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import torch

CORES = ('numpy.core', 'numpy._core')


class Tensor:
    """A Paddle tensor, as far as pickle can tell."""

    def __init__(self, name, array):
        self.pair = name, array

    def __reduce__(self):
        return tuple, (self.pair, )


def to_paddle(state):
    """Arrays with matrices as (in, out), from PyTorch's tensors."""
    arrays = {}
    for key, value in state.items():
        value = value.t() if value.dim() == 2 else value
        value = value.contiguous()
        if value.dtype == torch.bfloat16:
            # numpy has none: its bits.
            arrays[key] = value.view(torch.int16).numpy().view(np.uint16)
        else:
            arrays[key] = value.numpy()
    return arrays


def names(arrays):
    return {key: f'parameter_{i}' for i, key in enumerate(arrays)}


def plain(state):
    """paddle.save(layer.state_dict(), ...)."""
    arrays = to_paddle(state)
    return {**arrays, 'StructuredToParameterName@@': names(arrays)}


def pairs(state):
    """A state dict that lies within something else."""
    arrays = to_paddle(state)
    table = names(arrays)
    return OrderedDict((key, Tensor(table[key], array))
                       for key, array in arrays.items())


def dumps(content, protocol=4, core=None):
    """Bytes of the file; ``core`` is how numpy 1 or 2 spells its module."""
    data = pickle.dumps(content, protocol)
    ours = np.ones(1).__reduce__()[0].__module__.rpartition('.')[0]
    if core is not None and core != ours:
        # Text in protocols 2 and 3, a counted string in 4.
        for prefix, end in ((b'c', b'\n'), (b'', b'')):
            old, new = (
                prefix + (b'' if prefix else b'\x8c' + bytes([len(name)]))
                + name.encode() + end
                for name in (f'{ours}.multiarray', f'{core}.multiarray'))
            data = data.replace(old, new)
        data = pickletools.optimize(data)  # frames have lengths
    return data
