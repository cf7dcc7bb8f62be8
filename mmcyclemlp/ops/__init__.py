"""What CycleFC and its mixer are and how they run; torch alone."""

from ..errors import BackendUnavailable
from .custom_op import is_compiling
from .functional import check_backend, cycle_fc, cycle_mixer, residual_mlp
from .modules import CycleFC
from .reference import MixerWeights, cycle_offsets

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
