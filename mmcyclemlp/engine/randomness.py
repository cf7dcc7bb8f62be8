"""States of the random generators that training draws from."""

import random
from contextlib import contextmanager

import numpy as np
import torch


def get_rng_state(cuda=True):
    """States of Python's, numpy's and torch's generators.

    Args:
        cuda (bool): Whether that of this process's GPU too, if it has one.
            Default: True.

    Returns:
        dict: Tensors and numbers alone, so that a checkpoint can hold it.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, *others = np.random.get_state()
    state = {
        'python': (version, torch.tensor(numbers), gauss),
        'numpy': (kind, torch.from_numpy(keys.astype(np.int64)), *others),
        'torch': torch.get_rng_state(),
    }
    if cuda and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state):
    """Put back what :func:`get_rng_state` gave."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *others = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *others))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


@contextmanager
def seeded(*numbers):
    """Seed the generators of the CPU from numbers, and put them back after.

    Args:
        numbers (int): Not negative; each sequence of them is a seed.
    """
    before = get_rng_state(cuda=False)
    words = np.random.SeedSequence(numbers).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words)
    # torch.manual_seed would seed the GPU too.
    torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
    try:
        yield
    finally:
        set_rng_state(before)
