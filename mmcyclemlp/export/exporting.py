"""Writing a network that was held to itself at other sizes first."""

import logging
import os
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from ..checkpoint_files import write_whole
from ..errors import ExportError
from .any_size import for_any_size
from .formats import FORMATS, check_packages, encode, find_format, load

# Of the largest value of an output.
TOLERANCE = 1e-4


class Difference(NamedTuple):
    """How far off an exported network is.

    Attributes:
        size (tuple[int, int, int]): Batch, height and width of the images.
        error (float): The largest difference of any output, over that
            output's largest value.
    """

    size: tuple
    error: float


def check_output(path, to_run=True):
    """See that a file can be written, before the work is done.

    Args:
        path (str | PathLike): The file.
        to_run (bool): Whether it is to be run as well. Default: True.

    Returns:
        str: Its ending, a key of :data:`FORMATS`.

    Raises:
        ExportError: The ending says no format, a package is missing, or
            the folder is.
    """
    ending, folder = find_format(path), os.path.dirname(path)
    if not os.path.isdir(folder or '.'):
        raise ExportError(f'{path}: there is no folder {folder}')
    if os.path.isdir(path):
        raise ExportError(f'{path} is a folder')
    check_packages(ending, to_run)
    return ending


def write(module, path, names=None, size=(256, 320), channels=3, high=1.,
          check=True):
    """Export a network for images of any number and size.

    The file is written whole or not at all: what lay there stays until the
    new one was held to the network.

    Args:
        module (nn.Module): From images (B, C, H, W) to a tensor, or tensors
            in tuples or lists.
        path (str | PathLike): File; ends as :data:`FORMATS` say.
        names (Sequence[str] | None): Of the outputs, in their order; None
            for output0, output1, ... Default: None.
        size (tuple[int, int]): Height and width to trace at, in pixels.
            Default: (256, 320).
        channels (int): Of the images. Default: 3.
        high (float): Values of the images are from 0 to this. Default: 1.
        check (bool): Whether to run what was exported at sizes it was not
            traced at. Default: True.

    Returns:
        list[Difference]: One a size; empty if it was not checked.

    Raises:
        ExportError: A package is missing, the format cannot express the
            network, what it expresses differs by more than
            :data:`TOLERANCE`, or the file cannot be written.
    """
    path, ending = os.fspath(path), check_output(path, check)
    random = torch.Generator().manual_seed(0)

    def draw(batch, height, width):
        return high * torch.rand(batch, channels, height, width,
                                 generator=random)

    original, differences = _Flat(module).eval(), []
    traced, image = for_any_size(original), draw(2, *size)
    try:
        with _quietly(), torch.no_grad():
            if names is None:
                names = [f'output{i}' for i in range(len(traced(image)))]
            data = encode(traced, image, ending, names)
    except Exception as error:  # exporters raise of any kind
        reason = str(error).strip().split('\n')[0]
        raise ExportError(
            f'{FORMATS[ending]} cannot express the network: '
            f'{type(error).__name__}: {reason}') from error

    def hold(written):
        if check:
            run = load(written, ending)
            for other in _others(*size):
                differences.append(Difference(other, _difference(
                    original, run, draw(*other), ending)))

    try:
        write_whole(data, path, hold)
    except OSError as error:
        raise ExportError(
            f'{path} cannot be written: {error.strerror}') from error
    return differences


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
    # What tracers warn of, sizes that are fixed, the check finds out.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def _others(height, width):
    """Batch, height and width: larger and smaller, odd, upright."""
    less = height * 2 // 3
    return [(1, height + 33, width - 17), (3, less, width + 64),
            (2, width + 3, less + 2)]


@torch.no_grad()
def _difference(original, run, image, ending):
    expected = original(image)
    at = 'x'.join(map(str, [image.shape[0], *image.shape[2:]]))
    try:
        given = run(image)
    except Exception as error:  # runtimes raise of any kind
        reason = str(error).strip().split('\n')[0]
        raise ExportError(
            f'{FORMATS[ending]} of the network does not run at {at} (batch, '
            f'height, width): {reason}') from error
    shapes = [[tuple(one.shape) for one in outputs]
              for outputs in (expected, given)]
    if shapes[0] != shapes[1]:
        raise ExportError(
            f'{FORMATS[ending]} of the network gives {shapes[1]} at {at} '
            f'(batch, height, width) in place of {shapes[0]}')
    error = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
                for a, b in zip(given, expected))
    if not error <= TOLERANCE:
        raise ExportError(
            f'{FORMATS[ending]} of the network is off by {error:.1e} at {at} '
            f'(batch, height, width), more than {TOLERANCE:.0e}')
    return error
