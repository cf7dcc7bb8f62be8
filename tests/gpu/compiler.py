"""Compile kernels for a GPU, on a machine with or without one.

The results are stored in Triton's cache on disk, where a process with a GPU
finds them. Several processes can compile at the same time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch

from mmcyclemlp.ops.triton.tiles import Key, Tiles, rule


class _AbsentGPU:
    """A driver for Triton that knows only the capability of a GPU."""

    def __init__(self, capability):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@contextlib.contextmanager
def without_interpreter():
    """Let processes that start in this context compile their kernels.

    It unsets TRITON_INTERPRET, which Triton reads on import; importing torch
    may import Triton.
    """
    with mock.patch.dict(os.environ):
        os.environ.pop('TRITON_INTERPRET', None)
        yield


def compile_kernel(capability: int, key: Key, tiles: Tiles):
    """Compile the kernel of a key with the arguments of a launch on a GPU.

    Args:
        capability: Compute capability of the GPU, such as 90.
        key: What the kernel computes.
        tiles: How its work is divided.

    Returns:
        Triton's CompiledKernel, its parameters and their arguments.
    """
    from triton.runtime.driver import driver

    product = importlib.import_module('mmcyclemlp.ops.triton.launch')
    driver.set_active(_AbsentGPU(capability))
    compiled = []

    def keep(kernel, grid, tiles, *args, **constants):
        compiled.append((kernel.warmup(
            *args, grid=(grid, ), **constants,
            **product.options(tiles, args[0].dtype)), kernel.params, args))

    launch, product._launch = product._launch, keep
    try:
        product.make_call(key, torch.device('cpu'), (2, 2, 2))(tiles)
    finally:
        product._launch = launch
    return compiled[0]


def resources(capability: int, key: Key, tiles: Tiles | None = None) -> dict:
    """Compile a kernel, and return what it needs of a multiprocessor.

    Returns:
        Registers of a thread, bytes that a thread spills to local memory,
        bytes of shared memory of a block, and the seconds of compiling.
    """
    start = time.monotonic()
    compiled, *_ = compile_kernel(capability, Key(*key),
                                  Tiles(*tiles) if tiles else rule(key))
    import triton

    tool = Path(triton.__file__).parent.joinpath(
        'backends', 'nvidia', 'bin', 'cuobjdump')
    with tempfile.NamedTemporaryFile(suffix='.cubin') as cubin:
        Path(cubin.name).write_bytes(compiled.asm['cubin'])
        usage = subprocess.run(
            [tool, '-res-usage', cubin.name], capture_output=True, text=True,
            check=True).stdout
    registers, stack = re.search(r'REG:(\d+) STACK:(\d+)', usage).groups()
    return dict(registers=int(registers), spilled=int(stack),
                shared_memory=compiled.metadata.shared,
                seconds=time.monotonic() - start)
