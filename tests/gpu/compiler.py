"""Compile kernels for a GPU that need not be there.

What is compiled goes to Triton's cache on disk, where a process with a GPU
finds it. Several processes compile at the same time. They need no GPU.
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
    """Triton's driver for a GPU of which only the capability is known."""

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
    """Processes that are started meanwhile compile their kernels.

    Importing torch may import Triton, which reads the variable.
    """
    with mock.patch.dict(os.environ):
        os.environ.pop('TRITON_INTERPRET', None)
        yield


def compile_kernel(capability: int, key: Key, tiles: Tiles):
    """Compile the kernel of a key, just as it is launched on a GPU.

    Args:
        capability: Compute capability of the GPU, such as 90.
        key: What the kernel computes.
        tiles: How it is cut up.

    Returns:
        Triton's CompiledKernel, its parameters and what they were given.
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
    """What a kernel needs of a multiprocessor, by the compiler.

    Returns:
        Registers of a thread, bytes of a thread that went to local memory,
        bytes of shared memory of a block, and the seconds it took.
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
