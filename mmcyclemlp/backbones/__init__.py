"""The network and its weights; depends on torch alone."""

from .checkpoint import CheckpointError, LoadReport, load_pretrained
from .cyclenet import CycleNet

__all__ = ['CheckpointError', 'CycleNet', 'LoadReport', 'load_pretrained']
