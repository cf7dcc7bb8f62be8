"""Export a network, and save it only if its outputs match."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from ..checkpoint_files import write_whole
from ..errors import ExportError, first_line
from .any_size import for_any_size
from .formats import FORMATS, check_packages, encode, find_format, load

# The largest difference, over the largest value of an output.
TOLERANCE = 1e-4


class Difference(NamedTuple):
    """The difference between an exported network and the original.

    Attributes:
        size (tuple[int, int, int]): Batch, height and width of the images.
        error (float): The largest difference of an output, over its
            largest value.
    """

    size: tuple[int, int, int]
    error: float


def check_output(path: str | os.PathLike, to_run: bool = True) -> str:
    """Check that a file can be written, before the work is done.

    Args:
        path (str | PathLike): The file.
        to_run (bool): Whether the file is run, too. Default: True.

    Returns:
        str: Its ending, a key of :data:`FORMATS`.

    Raises:
        ExportError: There is no format of the ending, no folder, or a
            package is missing.
    """
    ending, folder = find_format(path), os.path.dirname(path)
    if not os.path.isdir(folder or '.'):
        raise ExportError(f'{path}: there is no folder {folder}')
    if os.path.isdir(path):
        raise ExportError(f'{path} is a folder')
    check_packages(ending, to_run)
    return ending


def write(module: nn.Module, path: str | os.PathLike,
          names: Sequence[str] | None = None,
          size: tuple[int, int] = (256, 320), channels: int = 3,
          high: float = 1., check: bool = True) -> list[Difference]:
    """Export a network for images of any number and size.

    The new file replaces an old one only after its outputs were compared
    with those of the network.

    Args:
        module (nn.Module): Maps images (B, C, H, W) to a tensor, or to
            tensors in tuples or lists.
        path (str | PathLike): The file. Its ending is in :data:`FORMATS`.
        names (Sequence[str] | None): Names of the outputs, in their order.
            None for output0, output1, ... Default: None.
        size (tuple[int, int]): Height and width in pixels to trace with.
            Default: (256, 320).
        channels (int): Channels of the images. Default: 3.
        high (float): Values of the images are from 0 to this. Default: 1.
        check (bool): Whether to compare the outputs at sizes that were not
            traced. Default: True.

    Returns:
        list[Difference]: One for each size; empty without the comparison.

    Raises:
        ExportError: A package is missing, the format cannot express the
            network, an output differs by more than :data:`TOLERANCE`, or
            the file cannot be written.
    """
    path, ending = os.fspath(path), check_output(path, check)
    random = torch.Generator().manual_seed(0)

    def draw(batch, height, width):
        return high * torch.rand(batch, channels, height, width,
                                 generator=random)

    original, differences = _Flat(module).eval(), []
    data = _encode(original, draw(2, *size), ending, names)

    def compare(written):
        if check:
            run = load(written, ending)
            for other in _other_sizes(*size):
                differences.append(Difference(other, _difference(
                    original, run, draw(*other), ending)))

    try:
        write_whole(data, path, compare)
    except OSError as error:
        raise ExportError(
            f'{path} cannot be written: {error.strerror}') from error
    return differences


def _encode(original, image, ending, names):
    traced = for_any_size(original)
    try:
        with _quietly(), torch.no_grad():
            if names is None:
                names = [f'output{i}' for i in range(len(traced(image)))]
            return encode(traced, image, ending, names)
    except Exception as error:  # exporters raise any type
        raise ExportError(
            f'{FORMATS[ending]} cannot express the network: '
            f'{type(error).__name__}: {first_line(error)}') from error


class _Flat(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, image):
        return _flat(self.module(image))


def _flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return (outputs, )
    return tuple(one for part in outputs for one in _flat(part))


@contextmanager
def _quietly():
    # Tracers warn of fixed sizes, which the comparison finds.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def _other_sizes(height, width):
    """Return batch, height and width: larger, smaller, odd, portrait."""
    less = height * 2 // 3
    return [(1, height + 33, width - 17), (3, less, width + 64),
            (2, width + 3, less + 2)]


@torch.no_grad()
def _difference(original, run, image, ending):
    expected = original(image)
    at = 'x'.join(map(str, [image.shape[0], *image.shape[2:]]))
    try:
        given = run(image)
    except Exception as error:  # runtimes raise any type
        raise ExportError(
            f'{FORMATS[ending]} of the network does not run at {at} (batch, '
            f'height, width): {first_line(error)}') from error
    shapes = [[tuple(one.shape) for one in outputs]
              for outputs in (expected, given)]
    if shapes[0] != shapes[1]:
        raise ExportError(
            f'{FORMATS[ending]} of the network returns {shapes[1]} at {at} '
            f'(batch, height, width) instead of {shapes[0]}')
    error = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
                for a, b in zip(given, expected))
    if not error <= TOLERANCE:
        raise ExportError(
            f'{FORMATS[ending]} of the network is off by {error:.1e} at {at} '
            f'(batch, height, width), more than {TOLERANCE:.0e}')
    return error
