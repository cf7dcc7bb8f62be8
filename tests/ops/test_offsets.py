import torch

from mmcyclemlp.ops import cycle_offsets


def test_offsets_of_the_released_weights():
    # cyclenet: k = 3 gives 0, +1, -1, 0, +1, -1, ...
    cycle = torch.tensor([0, 1, -1, 0, 1, -1, 0])
    still = torch.zeros(7, dtype=torch.long)
    assert torch.equal(cycle_offsets(7, (1, 3)),
                       torch.stack([still, cycle], 1))
    assert torch.equal(cycle_offsets(7, (3, 1)),
                       torch.stack([cycle, still], 1))


def test_offsets_of_a_two_dimensional_kernel_visit_every_position():
    offsets = {tuple(o) for o in cycle_offsets(15, (3, 5)).tolist()}
    assert offsets == {(y, x) for y in range(-1, 2) for x in range(-2, 3)}
