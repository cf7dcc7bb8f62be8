"""Draw the feature map of each stage of the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..backbones import CycleNet

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def stage_outputs(model: CycleNet) -> Iterator[list[Tensor]]:
    """Collect the outputs of the stages while the network runs.

    Args:
        model (CycleNet): The network.

    Yields:
        list[Tensor]: After a forward pass, (B, H_i, W_i, C_i) of each stage
        that ran, before the output norms.
    """
    outputs = []
    hooks = [stage.register_forward_hook(
        lambda module, args, output: outputs.append(output))
        for stage in model.network[::2]]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def stage_maps(model: CycleNet, image: Tensor) -> list[Tensor]:
    """Return the feature maps of all stages.

    Args:
        model (CycleNet): The network, in eval mode.
        image (Tensor): (3, H, W), normalized.

    Returns:
        list[Tensor]: (H_i, W_i, C_i) of each stage, on the CPU.
    """
    with torch.no_grad(), stage_outputs(model) as outputs:
        model(image[None])
    return [output[0].float().cpu() for output in outputs]


def to_colors(features: Tensor) -> Tensor:
    """Return the first three principal components of features as RGB.

    Args:
        features (Tensor): (H, W, C).

    Returns:
        Tensor: (H, W, 3) from 0 to 1. Each color is a component, scaled so
        that 1 % of the positions are clipped at either end. Colors without
        a component are 0.5.
    """
    flat = features.flatten(0, 1).double()
    flat = flat - flat.mean(0)
    # eigh sorts the eigenvalues in ascending order.
    directions = torch.linalg.eigh(flat.T @ flat)[1].flip(1)[:, :3]
    # The sign is arbitrary. Make the largest entry of each positive.
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    colors = flat.new_full((len(flat), 3), 0.5)
    for place, values in enumerate((flat @ directions).T):
        low, high = values.quantile(values.new_tensor([0.01, 0.99]))
        if high - low > 1e-9 * flat.abs().max():
            colors[:, place] = ((values - low) / (high - low)).clamp(0, 1)
    return colors.reshape(*features.shape[:2], 3)


def distinctness(features: Tensor) -> Tensor:
    """Return the distance of each position from the mean over all.

    Args:
        features (Tensor): (H, W, C).

    Returns:
        Tensor: (H, W), Euclidean distances.
    """
    return (features - features.mean((0, 1))).norm(dim=2)


def draw_stage_maps(picture: np.ndarray, maps: list[Tensor], title: str
                    ) -> Figure:
    """Draw the maps of all stages beside the picture.

    Args:
        picture (np.ndarray): (H, W, 3) of uint8, RGB.
        maps (list[Tensor]): (H_i, W_i, C_i) of each stage.
        title (str): Title of the figure.

    Returns:
        Figure: Principal components above, distances below.
    """
    height, width = picture.shape[:2]
    columns = len(maps) + 1
    figure = Figure(figsize=(2.4 * columns, 4.8 * height / width + 1),
                    layout='constrained')
    axes = figure.subplots(2, columns)
    for axis in axes.flat:
        axis.axis('off')
    figure.suptitle(title, fontsize=9)
    axes[0, 0].imshow(picture)
    axes[0, 0].set_title('picture', fontsize=8)
    axes[1, 0].text(
        0.5, 0.5, 'above: the first three\nprincipal components\nas '
        'red, green, blue\n\nbelow: distance from\nthe mean over all\n'
        'positions (bright: far)', ha='center', va='center', fontsize=8)
    for place, features in enumerate(maps, 1):
        rows, wide, channels = features.shape
        axes[0, place].imshow(to_colors(features).numpy())
        axes[0, place].set_title(
            f'stage {place}: {channels} x {rows} x {wide}', fontsize=8)
        axes[1, place].imshow(distinctness(features).numpy(), cmap='magma')
    return figure
