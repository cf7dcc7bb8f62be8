"""CycleMLP backbones for MMDetection and MMSegmentation."""

from .backbones import CycleNet, load_pretrained
from .ops import CycleFC, cycle_fc
from .version import __version__

__all__ = ['CycleFC', 'CycleNet', '__version__', 'cycle_fc',
           'load_pretrained']

try:
    from .engine.registration import register
except ImportError:  # no mmengine, or one that says itself what it lacks
    pass
else:
    register()
