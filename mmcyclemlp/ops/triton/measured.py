"""Measured on GPUs; ``python -m tests.gpu.adopt`` writes this file.

By compute capability and by key (see ``tiles.Key.name``): the best tiles,
the microseconds of the kernel, and those of the same product in backend
``'torch'``. Nothing has been measured yet.
"""

MEASURED = {}
