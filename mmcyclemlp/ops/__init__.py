"""What CycleFC is and how it runs; depends on torch alone."""

from .functional import cycle_fc
from .modules import CycleFC
from .reference import cycle_offsets

__all__ = ['CycleFC', 'cycle_fc', 'cycle_offsets']
