"""Find data that is missing, broken or named wrongly before a run starts.

mm drops the ground truth of categories that it does not find, and fails in
the middle of a step on a class count or a label that does not fit. The checks
build each data set and run its pipeline as mm does. Before a run they open a
sample of the files; ``python -m mmcyclemlp check_dataset`` opens all.
"""

from .completion import complete_annotations
from .data_check import DataCheck, check_data
from .images import Look

__all__ = ['DataCheck', 'Look', 'check_data', 'complete_annotations']
