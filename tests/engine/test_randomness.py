"""States of random generators."""

import random

import numpy as np
import pytest
import torch

from mmcyclemlp.engine.randomness import (
    get_rng_state,
    seeded,
    set_rng_state,
)


def draw():
    return (random.gauss(0, 1), np.random.standard_normal(3).tolist(),
            torch.rand(2).tolist())


def test_a_state_is_restored_from_a_checkpoint(tmp_path):
    draw()  # so that gaussian numbers are in store
    torch.save(get_rng_state(), tmp_path / 'state.pth')
    expected = draw()
    draw()
    set_rng_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert draw() == expected


def test_seeded_draws_depend_on_all_numbers_alone():
    def drawn(*numbers):
        with seeded(*numbers):
            return draw()

    first = drawn(1, 2)
    draw()
    assert drawn(1, 2) == first
    for other in ((1, 3), (2, 1), (1, )):
        for a, b in zip(drawn(*other), first):
            assert a != b


def test_seeded_restores_states_also_after_an_error():
    state = get_rng_state()
    expected = draw()
    set_rng_state(state)
    with pytest.raises(ArithmeticError), seeded(1):
        draw()
        raise ArithmeticError
    assert draw() == expected
