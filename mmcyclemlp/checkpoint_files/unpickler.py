"""Unpickle without running code.

A pickle can call any function. This unpickler builds tensors and plain
containers, skips known by-products of training and refuses everything else.
"""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from typing import Any

import torch

from ..errors import RefusedError

# What training scripts save beside the tensors. None of it is needed, so a
# placeholder replaces it and none of its code is called.
_SKIPPED = re.compile(
    r'argparse\.Namespace'
    r'|mmengine\.logging\.history_buffer\.HistoryBuffer'
    r'|numpy(\.core|\._core)?\.\w+(\.\w+)?'
    r'|_codecs\.encode'
    r'|collections\.(Counter|defaultdict)'
    r'|(__builtin__|builtins)\.(getattr|set|slice)'
    r'|pathlib\.\w+')


class Placeholder:
    """Replaces an object that is not unpickled."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __hash__(self):
        return id(self)


# What pickle writes in protocols 2 to 4, without the opcodes for numbers and
# strings that are too large for a checkpoint.
_OPCODES = {ord(getattr(pickle, name)) for name in [
    'PROTO', 'FRAME', 'STOP', 'MARK', 'POP', 'POP_MARK', 'NONE', 'NEWTRUE',
    'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT',
    'SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINBYTES', 'BINBYTES',
    'SHORT_BINUNICODE', 'BINUNICODE', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1',
    'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT',
    'SETITEM', 'SETITEMS', 'EMPTY_SET', 'ADDITEMS', 'FROZENSET', 'BINGET',
    'LONG_BINGET', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GLOBAL',
    'STACK_GLOBAL', 'REDUCE', 'NEWOBJ', 'BUILD', 'BINPERSID']}
# A CycleNet-B5 with the state of its optimizer needs 200,000 reads and 5
# levels.
_MAX_READS, _MAX_DEPTH, _MAX_ITEMS = 2_000_000, 32, 10_000_000


class _Unpickler(pickle._Unpickler):
    """Calls what ``find_class`` returns, in bounded time and memory.

    Derived from the unpickler in Python: that in C sets attributes on
    classes, allocates memory for missing bytes, and can hash forever.
    """

    setters = {}  # functions that set the state of an object, by its type
    size = 0  # of the file in bytes

    def __init__(self, file, **kwargs):
        super().__init__(file, **kwargs)
        reads = iter(range(_MAX_READS))

        def read(number):
            next(reads)
            data = file.read(min(number, self.size))
            if len(data) < number:
                raise EOFError('the pickle is cut short')
            return data

        self._file_read = read
        self._file_readline = lambda: file.readline(1000)

    def load(self):
        try:
            content = super().load()
        except StopIteration:
            raise ValueError('the pickle has too many parts') from None
        _check_extent(content)
        return content

    def load_frame(self):
        self.read(8)  # its length, which is not needed and can be wrong

    def load_call(self):
        args = self.stack.pop()
        if not isinstance(args, tuple):
            raise TypeError('a call without a tuple of arguments')
        self.stack[-1] = self.stack[-1](*args)

    def load_state(self):
        state = self.stack.pop()
        owner = type(self.stack[-1])
        if owner not in self.setters:
            raise TypeError(f'a state of a {owner.__name__}')
        self.setters[owner](self.stack[-1], state)

    def set_items(self, items):
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            return
        if not isinstance(target, dict):
            raise TypeError(f'keys of a {type(target).__name__}')
        for key, value in zip(items[::2], items[1::2]):
            target[checked_key(key)] = value

    def add_items(self, items):
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(checked_key, items))
        elif isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise TypeError(f'items of a {type(target).__name__}')

    def load_frozenset(self):
        items = self.pop_mark()
        self.append(frozenset(map(checked_key, items)))

    def refuse(self):
        raise ValueError('the pickle has a code that no checkpoint needs')

    dispatch = {
        **dict.fromkeys(range(256), refuse),
        **{code: load for code, load in pickle._Unpickler.dispatch.items()
           if code in _OPCODES},
        ord(pickle.FRAME): load_frame,
        ord(pickle.REDUCE): load_call,
        ord(pickle.NEWOBJ): load_call,
        ord(pickle.BUILD): load_state,
        ord(pickle.SETITEM): lambda self: self.set_items(
            [self.stack.pop(), self.stack.pop()][::-1]),
        ord(pickle.SETITEMS): lambda self: self.set_items(self.pop_mark()),
        ord(pickle.APPEND): lambda self: self.add_items([self.stack.pop()]),
        ord(pickle.APPENDS): lambda self: self.add_items(self.pop_mark()),
        ord(pickle.ADDITEMS): lambda self: self.add_items(self.pop_mark()),
        ord(pickle.FROZENSET): load_frozenset,
    }


def checked_key(key: Any) -> Any:
    """Return the key of a dict or set if it is of a type that hashes fast.

    A tuple of two equal tuples of two equal tuples ... hashes forever.

    Raises:
        TypeError: The key is of another type.
    """
    if isinstance(key, int) and abs(key) < 1 << 60 or key is None or (
            isinstance(key, (str, bytes, Placeholder))):
        return key
    raise TypeError(f'a key of type {type(key).__name__}')


_CONTAINERS = (dict, list, tuple)


def _check_extent(content):
    """Refuse content that is too deep, too large, or contains itself."""
    known = {}

    def measure(value, room):
        depth, items = known.get(id(value), (_MAX_DEPTH, 0))
        if not items and room:
            parts = dict.values(value) if isinstance(value, dict) else value
            depth, items = 1, 1 + len(parts)
            for part in parts:
                if isinstance(part, _CONTAINERS):
                    inner, more = measure(part, room - 1)
                    depth, items = max(depth, inner + 1), items + more
            known[id(value)] = depth, items
        if depth > room or items > _MAX_ITEMS:
            raise ValueError('the pickle is nested too deeply')
        return depth, items

    if isinstance(content, _CONTAINERS):
        measure(content, _MAX_DEPTH)


def restricted_unpickler(path: str, source: str, allow: dict,
                         remedy: str = '') -> type:
    """Return a class of unpickler that builds ``allow`` and nothing else.

    Args:
        path (str): Path of the file.
        source (str): Name of the file in messages.
        allow (dict): See :func:`read_checkpoint`.
        remedy (str): End of the message of a refusal. Default: ''.

    Returns:
        type: The unpickler. Its ``load`` raises RefusedError for any other
        function or class.
    """

    class Unpickler(_Unpickler):
        size = os.path.getsize(path)
        setters = {
            Placeholder: lambda obj, state: None,
            **{key: value for key, value in allow.items()
               if isinstance(key, type)}}

        def find_class(self, module, name):
            full_name = f'{module}.{name}'
            if full_name in allow:
                return allow[full_name]
            if module == 'torch' and isinstance(
                    getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if _SKIPPED.fullmatch(full_name):
                return Placeholder
            raise RefusedError(
                f'{source} is refused: its pickle asks for '
                f'{full_name[:99]}, which weights do not need and which '
                'could run code. Get the weights from a source you trust, '
                f'or as .safetensors{remedy}')

    return Unpickler


def ordered_dict(items: Any = ()) -> OrderedDict:
    """Build an OrderedDict whose keys are checked."""
    return OrderedDict((checked_key(key), value) for key, value in items)
