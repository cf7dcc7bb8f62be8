"""Receptive fields are those of the operator and of the gradients."""

import math

import definition
import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.analysis.receptive_field import (
    draw_cyclefc,
    effective_receptive_field,
    middle_of,
    mixer_share,
    reading_share,
    side_that_holds,
    stacked_share,
)

ARCH = dict(embed_dims=[8, 16], depths=[2, 1], mlp_ratios=[2, 2])


@pytest.mark.parametrize('kernel', [(1, 3), (3, 1), (3, 3), (1, 5)])
def test_reading_share_is_what_the_operator_reads(kernel):
    channels = 7
    x = torch.zeros(1, channels, 9, 9, dtype=torch.double,
                    requires_grad=True)
    weight = torch.ones(1, channels, 1, 1, dtype=torch.double)
    y = definition.cycle_fc(x, weight, None, kernel)
    gradient, = torch.autograd.grad(y[0, 0, 4, 4], x)
    top, left = (4 - side // 2 for side in kernel)
    seen = gradient[0].sum(0)[top:top + kernel[0], left:left + kernel[1]]
    torch.testing.assert_close(reading_share(channels, kernel),
                               seen / channels)
    assert seen.sum() == channels


def test_mixers():
    one = mixer_share(12, (1, 3))
    side, middle = 1 / 9, 1 - 4 / 9
    torch.testing.assert_close(one, torch.tensor(
        [[0, side, 0], [side, middle, side], [0, side, 0]],
        dtype=torch.double))
    # 7 channels: offset 0 is read by three, 1 and -1 by two each.
    torch.testing.assert_close(mixer_share(7, (1, 3))[1, 2].item(), 2 / 21)
    three = stacked_share(one, 3)
    assert three.shape == (7, 7)
    assert three.sum() == pytest.approx(1)
    # Sums of three steps: a diamond, whose tips are reached one way.
    y, x = torch.meshgrid(torch.arange(-3, 4), torch.arange(-3, 4),
                          indexing='ij')
    assert torch.equal(three > 1e-12, y.abs() + x.abs() <= 3)
    assert three[0, 3] == pytest.approx(side**3)
    assert three[1, 2] == pytest.approx(3 * side**3)


def test_erf_is_the_gradient_of_the_middle():
    model = CycleNet(ARCH, out_indices=(0, 1)).eval()
    images = torch.randn(2, 3, 64, 48)
    fields = effective_receptive_field(model, images)
    assert [field.shape for field in fields] == [(64, 48)] * 2
    # By finite differences of the textbook's network, at a pixel.
    state = model.double().state_dict()
    step, expected = 1e-5, [0., 0.]
    for image in images.double():
        for color in range(3):
            pair = torch.stack([image, image])
            pair[:, color, 30, 22] += torch.tensor([step, -step])
            for place, maps in enumerate(
                    definition.stages(state, pair, ARCH['depths'])):
                more, less = maps[:, maps.shape[1] // 2,
                                  maps.shape[2] // 2].sum(1).tolist()
                expected[place] += abs(more - less) / (2 * step) / 2
    for field, value in zip(fields, expected):
        assert value > 0
        assert field[30, 22] == pytest.approx(value, rel=1e-3)


def test_side():
    field = torch.zeros(20, 30)
    field[8:13, 3:8] = 1.
    assert middle_of(field) == [10, 5]
    assert side_that_holds(field, 1.) == 5
    assert side_that_holds(field, 9 / 25) == 3
    assert side_that_holds(field, 0.01) == 1
    assert side_that_holds(field, 0.4) == 5


def test_drawing():
    figure = draw_cyclefc((1, 3), 6, 2)
    steps = figure.axes[0].images[0].get_array().data
    # Channels 0, 1, 2 at 0, 1, -1: columns 1, 2, 0; and again.
    assert [[column for column, value in enumerate(row)
             if not math.isnan(value)] for row in steps] == [
                 [1], [2], [0], [1], [2], [0]]
    assert figure.axes[0].get_xlabel() == 'read at dx'
    assert figure.axes[1].get_xlabel() == 'read at dy'
