"""Compute and draw where an output of the network reads.

The effective receptive field is that of Luo et al., "Understanding the
Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS 2016
(https://arxiv.org/abs/1701.04128).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..backbones import CycleNet
from ..ops import cycle_offsets
from .stage_maps import stage_outputs


def reading_share(channels: int, kernel_size: tuple[int, int]) -> Tensor:
    """Return the share of its channels that a CycleFC reads at each offset.

    Args:
        channels (int): Number of input channels C.
        kernel_size (tuple[int, int]): ``(S_H, S_W)``, both odd.

    Returns:
        Tensor: (S_H, S_W), with the position itself in the middle. The sum
        is 1.
    """
    height, width = kernel_size
    share = torch.zeros(height, width, dtype=torch.double)
    for dy, dx in cycle_offsets(channels, kernel_size).tolist():
        share[height // 2 + dy, width // 2 + dx] += 1 / channels
    return share


def mixer_share(channels: int, kernel_size: tuple[int, int]) -> Tensor:
    """Return the share of its channels that a mixer reads at each offset.

    A mixer has a CycleFC along each axis and a pointwise branch. All three
    have the same weight here; in the network the weights are computed.

    Args:
        channels (int): Number of input channels C.
        kernel_size (tuple[int, int]): Kernel of the first CycleFC. The
            second has it transposed.

    Returns:
        Tensor: (S, S) with S the larger side. The sum is 1.
    """
    size = max(kernel_size)
    share = torch.zeros(size, size, dtype=torch.double)
    share[size // 2, size // 2] = 1 / 3
    for own in (kernel_size, kernel_size[::-1]):
        top, left = ((size - side) // 2 for side in own)
        share[top:top + own[0], left:left + own[1]] += reading_share(
            channels, own) / 3
    return share


def stacked_share(share: Tensor, number: int) -> Tensor:
    """Return the share that several mixers in a row read at each offset.

    Args:
        share (Tensor): (S, S), the share of one mixer.
        number (int): Number of mixers.

    Returns:
        Tensor: (R, R) with R = number * (S - 1) + 1. The sum is 1.
    """
    result = share
    for _ in range(number - 1):
        margin = share.shape[0] - 1
        result = F.conv2d(result[None, None], share.flip(0, 1)[None, None],
                          padding=margin)[0, 0]
    return result


def effective_receptive_field(model: CycleNet, images: Tensor
                              ) -> list[Tensor]:
    """Return how much each pixel changes the middle position of each stage.

    Args:
        model (CycleNet): The network, in eval mode.
        images (Tensor): (B, 3, H, W), normalized. The result is the mean
            over them.

    Returns:
        list[Tensor]: (H, W) of each stage, on the CPU: the absolute
        gradient of the sum of the channels at the middle position, summed
        over colors.
    """
    fields = None
    for image in images:
        image = image[None].clone().requires_grad_()
        with stage_outputs(model) as outputs:
            model(image)
        fields = fields or [0.] * len(outputs)
        for place, output in enumerate(outputs):
            height, width = output.shape[1:3]
            gradient, = torch.autograd.grad(
                output[0, height // 2, width // 2].sum(), image,
                retain_graph=place + 1 < len(outputs))
            fields[place] = fields[place] + gradient[0].abs().sum(0).cpu()
    return [field / len(images) for field in fields]


def middle_of(field: Tensor) -> list[int]:
    """Return the row and the column with half of a field on either side.

    They can differ from the middle of the image, because of the padding of
    earlier layers.
    """
    middle = []
    for own in (field.sum(1), field.sum(0)):
        share = own.double().cumsum(0) / own.double().sum()
        middle.append(int((share < 0.5).sum()))
    return middle


def side_that_holds(field: Tensor, share: float) -> int:
    """Return the side of the square that has a share of a field's sum.

    Args:
        field (Tensor): (H, W), not negative.
        share (float): Share of the sum, 0 to 1.

    Returns:
        int: Side in pixels, odd, of a square around the middle of the
        field. It may extend beyond the border.
    """
    rows, columns = (
        (torch.arange(side) - own).abs()
        for side, own in zip(field.shape, middle_of(field)))
    away = torch.maximum(rows[:, None], columns[None])
    held = torch.zeros(int(away.max()) + 1, dtype=torch.double)
    held.index_add_(0, away.flatten(), field.flatten().double())
    held = held.cumsum(0)
    return 2 * int((held < share * held[-1]).sum()) + 1


def draw_cyclefc(kernel_size: tuple[int, int] = (1, 3), channels: int = 12,
                 blocks: int = 4) -> Figure:
    """Draw the offsets at which CycleFC reads its channels.

    Args:
        kernel_size (tuple[int, int]): Kernel of the first CycleFC of a
            mixer. Default: (1, 3), as in the network.
        channels (int): Number of channels to draw. The pattern repeats.
            Default: 12.
        blocks (int): Number of mixers in a row. Default: 4.

    Returns:
        Figure: Both CycleFC of a mixer, one mixer, and several in a row.
    """
    figure = Figure(figsize=(11, 3.2), layout='constrained')
    axes = figure.subplots(1, 4)
    for axis, own in zip(axes, (kernel_size, kernel_size[::-1])):
        _draw_steps(axis, own, channels)
    # The channels are a multiple of the period, so all offsets are equal.
    one = mixer_share(kernel_size[0] * kernel_size[1] * channels, kernel_size)
    for axis, share, title in (
            (axes[2], one, 'one mixer: both and\na pointwise branch'),
            (axes[3], stacked_share(one, blocks),
             f'{blocks} mixers in a row')):
        reach = share.shape[0] / 2
        shown = share.masked_fill(share < 1e-12, float('nan'))
        drawn = axis.imshow(shown, cmap='viridis', norm=LogNorm(),
                            extent=(-reach, reach, reach, -reach))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel('dx')
        axis.set_ylabel('dy')
        for own in (axis.xaxis, axis.yaxis):
            own.set_major_locator(MaxNLocator(5, integer=True))
        figure.colorbar(drawn, ax=axis, shrink=0.7,
                        label='share of what is read')
    return figure


def _draw_steps(axis, kernel_size: tuple[int, int], channels: int) -> None:
    """Draw a cell for each channel at the offset where it is read."""
    height, width = kernel_size
    offsets = cycle_offsets(channels, kernel_size).tolist()
    places = [(dy + height // 2) * width + dx + width // 2
              for dy, dx in offsets]
    grid = torch.full((channels, height * width), float('nan'))
    for channel, place in enumerate(places):
        grid[channel, place] = place
    axis.imshow(grid, cmap='viridis', aspect='auto', vmin=0,
                vmax=max(1, height * width - 1))
    labels = [(dy, dx) for dy in range(-(height // 2), height // 2 + 1)
              for dx in range(-(width // 2), width // 2 + 1)]
    along = 'dx' if height == 1 else 'dy' if width == 1 else '(dy, dx)'
    if along != '(dy, dx)':
        labels = [dy + dx for dy, dx in labels]  # one of them is 0
    axis.set_xticks(range(len(labels)), labels,
                    rotation=90 if along == '(dy, dx)' else 0)
    axis.set_xticks([place - 0.5 for place in range(len(labels) + 1)],
                    minor=True)
    axis.set_yticks(range(channels))
    axis.set_yticks([place - 0.5 for place in range(channels + 1)],
                    minor=True)
    axis.grid(which='minor', color='0.8', linewidth=0.5)
    axis.tick_params(which='minor', length=0)
    axis.set_xlabel(f'read at {along}')
    axis.set_ylabel('input channel')
    axis.set_title(f'CycleFC with kernel {height}x{width}', fontsize=9)


def draw_fields(fields: list[Tensor], title: str) -> Figure:
    """Draw effective receptive fields side by side, on a log scale.

    Args:
        fields (list[Tensor]): (H, W) of each stage.
        title (str): Title of the figure.

    Returns:
        Figure: The brightest pixel has the largest gradient of a stage, a
        dark one at most a 10000th of it. Squares contain 50 % and 95 % of
        the sum.
    """
    figure = Figure(figsize=(2.8 * len(fields) + 0.8, 3.3),
                    layout='constrained')
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    figure.suptitle(title, fontsize=9)
    for place, (axis, field) in enumerate(zip(axes, fields), 1):
        relative = (field / field.max()).clamp(min=1e-4)
        drawn = axis.imshow(relative, cmap='magma',
                            norm=LogNorm(vmin=1e-4, vmax=1))
        middle = middle_of(field)
        sides = [side_that_holds(field, share) for share in (0.5, 0.95)]
        for side, color in zip(sides, ('deepskyblue', 'lime')):
            left, top = middle[1] - side / 2, middle[0] - side / 2
            axis.plot([left, left + side, left + side, left, left],
                      [top, top, top + side, top + side, top],
                      color=color, linewidth=0.8)
        axis.set(xlim=(-0.5, field.shape[1] - 0.5),
                 ylim=(field.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
        axis.set_title(f'stage {place}\n50 % in {sides[0]}, 95 % in '
                       f'{sides[1]} pixels', fontsize=8)
    figure.colorbar(drawn, ax=axes, shrink=0.7,
                    label='gradient / largest gradient')
    return figure
