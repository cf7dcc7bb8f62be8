"""Read Paddle's files, pickles of NumPy arrays, without Paddle and NumPy."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from ..errors import CheckpointError
from .unpickler import Placeholder, ordered_dict, restricted_unpickler

# Types of arrays. NumPy has no bfloat16: Paddle saves its bits as u2.
_DTYPES = {
    'f2': torch.float16, 'f4': torch.float32, 'f8': torch.float64,
    'i1': torch.int8, 'i2': torch.int16, 'i4': torch.int32,
    'i8': torch.int64, 'u1': torch.uint8, 'u2': torch.bfloat16,
    'b1': torch.bool,
}
_OPTIMIZER = re.compile(
    r'LR_Scheduler|master_weights|.*_(moment\d?|velocity|beta\d_pow_acc)_\d+')


class _Dtype:
    """Replaces numpy.dtype while a pickle is read."""

    order = '<'

    def __init__(self, name, *args):
        self.name = name

    def set_state(self, state):
        self.order = state[1]


class _Array:
    """Replaces numpy.ndarray while a pickle is read."""

    def set_state(self, state):
        self.state = state


def read_paddle(path: str, source: str, allow: dict) -> Any:
    """Read a file of ``paddle.save``.

    Args:
        path (str): Path of the file.
        source (str): Name of the file in messages.
        allow (dict): Not used, as Paddle's files hold nothing else.

    Returns:
        Any: Content of the file, with tensors in PyTorch's layout.

    Raises:
        CheckpointError: The file is refused.
        Exception: The file is damaged.
    """
    builders = {
        'collections.OrderedDict': ordered_dict,
        'numpy.ndarray': _Array,
        _Array: _Array.set_state,
        'numpy.dtype': _Dtype,
        _Dtype: _Dtype.set_state,
        '_codecs.encode': lambda text, encoding: text.encode('latin1'),
        '__builtin__.bytes': lambda: b'',
        'builtins.tuple': lambda items: tuple(items),
        '__builtin__.tuple': lambda items: tuple(items),
    }
    for core in ('numpy.core', 'numpy._core'):
        builders[f'{core}.multiarray._reconstruct'] = lambda *args: _Array()
    unpickler = restricted_unpickler(path, source, builders)
    with open(path, 'rb') as file:
        # latin1, as files of Python 2 store bytes as text.
        content = unpickler(file, encoding='latin1').load()
    if isinstance(content, dict) and any(
            _OPTIMIZER.fullmatch(str(key)) for key in content):
        raise CheckpointError(
            f'{source} holds the state of a Paddle optimizer and no '
            'weights: give the .pdparams file of the same name')
    return _with_tensors(content, source)


def _with_tensors(content, source, nested=1):
    """Convert arrays, and pairs of name and array, to tensors.

    Also in dicts inside of ``content``, as deep as ``nested``.
    """
    if not isinstance(content, dict):
        return content
    if 'UnpackBigParamInfor@@' in content:
        raise CheckpointError(
            f'{source} holds UnpackBigParamInfor@@: Paddle has split '
            'parameters of over 1 GiB, and no CycleNet has such. Save it '
            'again with paddle.save(..., protocol=4)')
    result = {}
    for key, value in content.items():
        if (isinstance(value, tuple) and len(value) == 2
                and isinstance(value[1], _Array)):
            value = value[1]
        if isinstance(value, _Array):
            try:
                value = _to_tensor(value)
            except Exception as error:  # a hostile state can raise any
                raise CheckpointError(
                    f'{source} is damaged: {key}: {error}') from error
        elif isinstance(value, Placeholder) and '.' in str(key):
            raise CheckpointError(
                f'{source}: {key} is not an array of pickle protocols 2 to '
                '4: save it again with paddle.save(..., protocol=4)')
        elif isinstance(value, dict) and nested:
            value = _with_tensors(value, source, nested - 1)
        result[key] = value
    return result


def _to_tensor(array):
    _, shape, dtype, by_column, data = array.state
    name = dtype.name
    name = name.decode() if isinstance(name, bytes) else name
    if name not in _DTYPES or dtype.order not in ('<', '=', '|'):
        raise ValueError(f'an array of type {dtype.order}{name}, which no '
                         'weight has')
    if isinstance(data, str):
        data = data.encode('latin1')
    dtype, count = _DTYPES[name], math.prod(shape)
    if len(data) != count * dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f'{len(data)} bytes for an array of {shape}')
    if count == 0:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        tensor = torch.frombuffer(bytearray(data), dtype=dtype)
    if by_column:
        tensor = tensor.reshape(shape[::-1]).permute(
            *range(len(shape))[::-1])
    tensor = tensor.reshape(shape)
    # Paddle stores a linear layer as (in, out). The rank decides and not the
    # shape, as mlp_c and proj are square.
    return tensor.t().contiguous() if tensor.dim() == 2 else tensor
