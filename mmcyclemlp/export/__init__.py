"""Networks as ONNX, torch.export or TorchScript, for images of any size."""

from .any_size import for_any_size
from .formats import FORMATS, ExportError, load
from .writing import TOLERANCE, Difference, check_target, write

__all__ = [
    'Difference',
    'ExportError',
    'FORMATS',
    'TOLERANCE',
    'check_target',
    'for_any_size',
    'load',
    'write',
]
