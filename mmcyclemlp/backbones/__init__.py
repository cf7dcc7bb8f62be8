"""The network and its weights; depends on torch alone."""

from ..errors import CheckpointError
from .cyclenet import CycleNet
from .weights import LoadReport, load_pretrained

__all__ = ['CheckpointError', 'CycleNet', 'LoadReport', 'load_pretrained']
