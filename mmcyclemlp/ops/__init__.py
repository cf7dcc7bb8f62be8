"""CycleFC, and the fused forms of its mixer and MLP; needs torch alone."""

from ..errors import BackendUnavailable
from .custom_op import is_compiling
from .functional import (
    check_backend,
    cycle_fc,
    cycle_mixer,
    residual_mlp,
)
from .mixer import MixerWeights
from .modules import CycleFC
from .offsets import cycle_offsets

__all__ = [
    'BackendUnavailable',
    'CycleFC',
    'MixerWeights',
    'check_backend',
    'cycle_fc',
    'cycle_mixer',
    'cycle_offsets',
    'is_compiling',
    'residual_mlp',
]
