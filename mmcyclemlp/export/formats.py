"""Encode a network in each format, and load it again."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import ExportError

# By the ending of the file.
FORMATS = {'.onnx': 'ONNX', '.pt2': 'torch.export', '.pt': 'TorchScript'}
# The first with LayerNormalization as one operator.
OPSET = 17


def find_format(path: str | os.PathLike) -> str:
    """Return the ending of a file, which selects the format.

    Args:
        path (str | PathLike): The file.

    Returns:
        str: A key of :data:`FORMATS`.

    Raises:
        ExportError: There is no format of this ending.
    """
    ending = os.path.splitext(path)[1]
    if ending not in FORMATS:
        kinds = ', '.join(f'{key} ({name})' for key, name in FORMATS.items())
        raise ExportError(f'{path}: the ending selects the format, and it is '
                          f'one of {kinds}')
    return ending


def check_packages(ending: str, to_run: bool) -> None:
    """Check that the packages of a format are installed.

    Args:
        ending (str): A key of :data:`FORMATS`.
        to_run (bool): Whether the file is run, too.

    Raises:
        ExportError: A package is missing.
    """
    try:
        if ending == '.onnx':
            import onnx  # noqa: F401
        if ending == '.onnx' and to_run:
            import onnxruntime  # noqa: F401
    except ImportError as error:
        without = ', or skip the comparison' * (error.name != 'onnx')
        raise ExportError(
            f"{error.name} is not installed: pip install "
            f"'mmcyclemlp[export]'{without}") from error
    if ending == '.pt2' and not hasattr(
            getattr(getattr(torch, 'export', None), 'Dim', None), 'AUTO'):
        raise ExportError('torch.export for images of any size needs torch '
                          f'2.6 or later, got {torch.__version__}')


def encode(module: nn.Module, image: Tensor, ending: str,
           names: Sequence[str]) -> bytes:
    """Encode a network in a format.

    Args:
        module (nn.Module): Maps an image to a tuple of tensors.
        image (Tensor): (B, C, H, W), the image to trace with.
        ending (str): A key of :data:`FORMATS`.
        names (Sequence[str]): Names of the outputs.

    Returns:
        bytes: The content of the file.

    Raises:
        ExportError: ONNX lacks an operator of the network.
    """
    buffer = io.BytesIO()
    if ending == '.onnx':
        _to_onnx(module, image, names, buffer)
    elif ending == '.pt2':
        # torch finds the smallest size itself. It treats a map of one
        # position as a special case.
        program = torch.export.export(module, (image, ), dynamic_shapes=(
            dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO), ))
        torch.export.save(program, buffer)
    else:
        torch.jit.save(torch.jit.trace(module, image), buffer)
    return buffer.getvalue()


def _to_onnx(module, image, names, buffer):
    import onnx

    axes = {'image': {0: 'batch', 2: 'height', 3: 'width'}}
    for name, one in zip(names, module(image)):
        axes[name] = {0: 'batch'}
        if one.dim() == 4:
            axes[name].update({2: f'{name}_height', 3: f'{name}_width'})
    # All versions of torch have the exporter that traces.
    known = inspect.signature(torch.onnx.export).parameters
    options = {'dynamo': False} if 'dynamo' in known else {}
    torch.onnx.export(
        module, (image, ), buffer, input_names=['image'],
        output_names=list(names), dynamic_axes=axes, opset_version=OPSET,
        **options)
    model = onnx.load_from_string(buffer.getvalue())
    foreign = sorted({f'{node.domain}::{node.op_type}'
                      for node in model.graph.node if node.domain})
    if foreign or len(model.functions):
        raise ExportError('operators that ONNX itself lacks: '
                          f'{", ".join(foreign)}')
    onnx.checker.check_model(model)


def load(path: str, ending: str | None = None
         ) -> Callable[[Tensor], list[Tensor]]:
    """Load an exported network on a CPU.

    Args:
        path (str): The file. It must be your own, since TorchScript is code.
        ending (str | None): A key of :data:`FORMATS`, if the path has
            another ending. Default: None.

    Returns:
        Callable: Maps an image (B, C, H, W) to a list of tensors.

    Raises:
        ExportError: A package is missing.
    """
    ending = ending or find_format(path)
    check_packages(ending, to_run=True)
    if ending == '.onnx':
        import onnxruntime

        session = onnxruntime.InferenceSession(
            path, providers=['CPUExecutionProvider'])
        return lambda image: [
            torch.from_numpy(one)
            for one in session.run(None, {'image': image.numpy()})]
    if ending == '.pt2':
        with open(path, 'rb') as file:
            program = torch.export.load(file).module()
    else:
        program = torch.jit.load(path)
    return lambda image: list(program(image))
