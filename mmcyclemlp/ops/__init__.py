"""CycleFC, and the fused forms of its mixer and MLP; needs torch alone.

:func:`cycle_fc` states the formula, and ``offsets`` has its offsets. A
backend is a module: ``reference``, ``plain``, ``torch_backend``, ``triton``.
``product`` is what the last two compute, for one branch or three. ``mixer``
and ``mlp`` are the fused forms.
"""

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
