"""CycleMLP backbones for MMDetection and MMSegmentation."""

from .backbones import CycleNet, load_pretrained
from .ops import CycleFC, cycle_fc

__version__ = '0.1.0'
__all__ = ['CycleFC', 'CycleNet', 'cycle_fc', 'load_pretrained']

try:
    from .engine.registration import register
except ImportError:  # no mmengine, or one that says itself what it lacks
    pass
else:
    register()
