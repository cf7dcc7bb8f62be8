"""CycleMLP backbones for MMDetection and MMSegmentation."""

from importlib.util import find_spec

from .backbones import CycleNet, load_pretrained
from .ops import CycleFC, cycle_fc

__version__ = '0.1.0'
__all__ = ['CycleFC', 'CycleNet', 'cycle_fc', 'load_pretrained']

if find_spec('mmengine') is not None:
    from .engine.registration import register

    register()
