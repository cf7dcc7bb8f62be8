"""Maps of stages, and their colors."""

import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.analysis.stage_maps import (
    distinctness,
    draw_stage_maps,
    stage_maps,
    to_colors,
)

ARCH = dict(embed_dims=[8, 16], depths=[1, 1], mlp_ratios=[2, 2])


def test_maps_are_before_the_output_norms():
    model = CycleNet(ARCH, out_indices=(0, 1)).eval()
    image = torch.randn(3, 32, 48)
    maps = stage_maps(model, image)
    assert [tuple(each.shape) for each in maps] == [(8, 12, 8), (4, 6, 16)]
    with torch.no_grad():
        outputs = model(image[None])
        for place, (each, output) in enumerate(zip(maps, outputs)):
            norm = getattr(model, f'norm{2 * place}')
            torch.testing.assert_close(
                norm(each[None]).permute(0, 3, 1, 2), output)
    assert not any(stage._forward_hooks for stage in model.network)


def test_colors():
    # Rows differ most, columns less, the rest is noise.
    features = 0.01 * torch.randn(10, 12, 5)
    features[..., 1] += torch.arange(10.)[:, None]
    features[..., 3] += 0.5 * torch.arange(12.)
    colors = to_colors(features)
    assert colors.shape == (10, 12, 3)
    assert (colors.min(), colors.max()) == (0, 1)
    # As the features, and not turned over.
    red, green = colors[..., 0], colors[..., 1]
    assert (red[1:] >= red[:-1] - 0.02).all() and red[9, 0] > 0.9 > red[0, 0]
    assert green[0, 11] > 0.9 and green[0, 0] < 0.1
    constant = to_colors(torch.ones(4, 5, 6))
    assert (constant == 0.5).all()


def test_distinctness():
    features = torch.zeros(2, 2, 3)
    features[0, 0] = torch.tensor([4., 0, 0])
    torch.testing.assert_close(
        distinctness(features), torch.tensor([[3., 1.], [1., 1.]]))


def test_drawing():
    maps = [torch.randn(4, 6, 8), torch.randn(2, 3, 16)]
    picture = torch.zeros(16, 24, 3, dtype=torch.uint8).numpy()
    figure = draw_stage_maps(picture, maps, 'a network')
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == ['picture', 'stage 1: 8 x 4 x 6',
                          'stage 2: 16 x 2 x 3']
    assert pytest.approx(maps[1].shape[:2]) == (
        figure.axes[5].images[0].get_array().shape)
