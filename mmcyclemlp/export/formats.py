"""Bytes of a network in each format, and how they are run again."""

import inspect
import io
import os

import torch

from ..errors import ExportError

# By the ending of the file.
FORMATS = {'.onnx': 'ONNX', '.pt2': 'torch.export', '.pt': 'TorchScript'}
# The first with LayerNormalization as one operator.
OPSET = 17


def find_format(path):
    """The ending that says what to write.

    Args:
        path (str | PathLike): Of the file.

    Returns:
        str: A key of :data:`FORMATS`.

    Raises:
        ExportError: It is none of them.
    """
    ending = os.path.splitext(path)[1]
    if ending not in FORMATS:
        kinds = ', '.join(f'{key} ({name})' for key, name in FORMATS.items())
        raise ExportError(f'{path}: the ending says what to write, and it is '
                          f'one of {kinds}')
    return ending


def check_packages(ending, to_run):
    """See that what a format needs is installed.

    Args:
        ending (str): A key of :data:`FORMATS`.
        to_run (bool): Whether it is to be run as well.

    Raises:
        ExportError: A package is missing.
    """
    try:
        if ending == '.onnx':
            import onnx  # noqa: F401
        if ending == '.onnx' and to_run:
            import onnxruntime  # noqa: F401
    except ImportError as error:
        without = ', or leave the check out' * (error.name != 'onnx')
        raise ExportError(
            f"{error.name} is not installed: pip install "
            f"'mmcyclemlp[export]'{without}") from error
    if ending == '.pt2' and not hasattr(
            getattr(getattr(torch, 'export', None), 'Dim', None), 'AUTO'):
        raise ExportError('torch.export for images of any size needs torch '
                          f'2.6 or later, got {torch.__version__}')


def encode(module, image, ending, names):
    """A network as a file of a format.

    Args:
        module (nn.Module): From an image to a tuple of tensors.
        image (Tensor): (B, C, H, W), traced with.
        ending (str): A key of :data:`FORMATS`.
        names (Sequence[str]): Of the outputs.

    Returns:
        bytes: The file.

    Raises:
        ExportError: The network has operators that ONNX has not.
    """
    buffer = io.BytesIO()
    if ending == '.onnx':
        _to_onnx(module, image, names, buffer)
    elif ending == '.pt2':
        # From which size on it works it finds out: a map of one position
        # is a case of its own to it.
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
    # The exporter that traces: all versions of torch have it.
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
        raise ExportError('operators that are not of ONNX itself: '
                          f'{", ".join(foreign)}')
    onnx.checker.check_model(model)


def load(path, ending=None):
    """What was exported, to run on a CPU.

    Args:
        path (str): The file, one of your own: TorchScript is code.
        ending (str | None): A key of :data:`FORMATS`, if the path has
            another. Default: None.

    Returns:
        Callable: From an image (B, C, H, W) to a list of tensors.

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
