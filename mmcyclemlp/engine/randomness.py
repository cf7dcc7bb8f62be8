"""Save, restore and seed the random generators that training uses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def get_rng_state(cuda: bool = True) -> dict:
    """Return the states of the generators of Python, numpy and torch.

    Args:
        cuda (bool): Whether to include the GPU of this process, if there is
            one. Default: True.

    Returns:
        dict: States as tensors and numbers, which a checkpoint can have.
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


def set_rng_state(state: dict) -> None:
    """Restore the states that :func:`get_rng_state` returned.

    Args:
        state (dict): The states.
    """
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *others = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *others))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU, and restore their states afterwards.

    Args:
        numbers (int): Numbers that are not negative. Each sequence of
            numbers is another seed.
    """
    before = get_rng_state(cuda=False)
    words = np.random.SeedSequence(numbers).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words)
    # torch.manual_seed would also seed the GPU.
    torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
    try:
        yield
    finally:
        set_rng_state(before)
