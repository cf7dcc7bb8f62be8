"""Networks as ONNX, torch.export or TorchScript, for images of any size."""

from ..errors import ExportError
from .any_size import for_any_size
from .formats import FORMATS, load
from .verified import TOLERANCE, Difference, check_output, write

__all__ = [
    'Difference',
    'ExportError',
    'FORMATS',
    'TOLERANCE',
    'check_output',
    'for_any_size',
    'load',
    'write',
]
