"""Compile the kernels for a GPU without one, and check the result.

As a program, this file compiles each kernel ahead of time, with the arguments
of a launch, and prints what the compiler reports.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from mmcyclemlp.ops import triton as backend
from mmcyclemlp.ops.triton.tiles import Key, rule, short_list

# Largest shared memory of a block, by architecture.
SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}
# Architecture, dtype, channels and branches: the first and the third stage.
CASES = [
    (90, 'bfloat16', 64, 1),
    (90, 'bfloat16', 64, 3),
    (90, 'bfloat16', 320, 1),
    (90, 'bfloat16', 320, 3),
    (90, 'float32', 320, 1),
    (80, 'bfloat16', 320, 3),
]
# No other size of a block has this value, so its addresses can be found.
POSITIONS = 256
NOT_SPECIALIZED = {'tiles', 'images', 'height', 'width', 'parts'}


def keys(dtype, channels, branches):
    return [Key(direction, branches, channels, channels, 1, 3, dtype)
            for direction in ('y', 'dx', 'dweight')]


def examine(architecture, key, tiles):
    """Return the resources of a kernel, its accesses and its addresses."""
    from tests.gpu.compiler import compile_kernel, resources

    kernel, parameters, args = compile_kernel(architecture, key, tiles)
    return dict(
        resources(architecture, key, tiles), key=key.name, tiles=tiles,
        arguments={p.name: p.do_not_specialize
                   for p, arg in zip(parameters, args)
                   if isinstance(arg, int)},
        accesses=re.findall(r'(?:ld|st)\.global\S*', kernel.asm['ptx']),
        addresses=re.findall(
            r'tt\.addptr .*tensor<(\d+)x\d+xi(\d+)', kernel.asm['ttir']))


def examine_all():
    """Yield each case and its kernels, then those of the other tests."""
    for case in CASES:
        architecture, *sizes = case
        yield case, [examine(architecture, key, rule(key))
                     for key in keys(*sizes)]
    yield 'addresses', [
        examine(90, key, rule(key)._replace(m=POSITIONS))
        for channels in (64, 128) for key in keys('bfloat16', channels, 1)]
    yield 'short lists', [
        examine(90, key, tiles)
        for channels, branches in ((64, 3), (320, 3), (320, 1))
        for key in keys('bfloat16', channels, branches)
        for tiles in short_list(key)[1:]]


@pytest.fixture(scope='module')
def compiled(run_python):
    """Return the reports on the compiled kernels, by case."""
    reason = backend.unavailable_reason(torch.zeros(1))
    if reason and 'GPU' not in reason:
        pytest.skip(reason)
    try:
        from triton.backends.compiler import GPUTarget  # noqa: F401
    except ImportError:
        pytest.skip('this Triton cannot compile for a GPU that is not there')
    # The interpreter compiles nothing.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('TRITON_INTERPRET', raising=False)
        done = run_python(__file__)
    return {case if isinstance(case, str) else tuple(case): kernels
            for case, kernels in json.loads(done.stdout.splitlines()[-1])}


def case_id(case):
    architecture, dtype, channels, branches = case
    return f'sm{architecture}-{dtype}-{channels}-{branches}'


@pytest.mark.parametrize('case', CASES, ids=case_id)
def test_nothing_spills_and_all_fits(compiled, case):
    for kernel in compiled[case]:
        assert kernel['spilled'] == 0, kernel
        assert kernel['shared_memory'] <= SHARED_MEMORY[case[0]], kernel


@pytest.mark.parametrize('case', CASES, ids=case_id)
def test_one_compilation_serves_all_sizes(compiled, case):
    for kernel in compiled[case]:
        assert set(kernel['arguments']) <= NOT_SPECIALIZED, kernel
        assert {'images', 'height', 'width'} <= set(kernel['arguments'])
        assert all(kernel['arguments'].values()), kernel


@pytest.mark.parametrize('case', CASES, ids=case_id)
def test_maps_are_read_and_written_as_vectors(compiled, case):
    for kernel in compiled[case]:
        assert any('v4' in a for a in kernel['accesses']), kernel
        small = [a for a in kernel['accesses'] if '16' in a or '.u8' in a]
        # A thread reads one number of the bias.
        assert small in ([], ['ld.global.b16']), kernel


def test_addresses_have_64_bits(compiled):
    for kernel in compiled['addresses']:
        bits = {int(bits) for positions, bits in kernel['addresses']
                if int(positions) == POSITIONS}
        assert bits == {64}, kernel


def test_the_short_lists_fit(compiled):
    for kernel in compiled['short lists']:
        assert kernel['spilled'] == 0, kernel
        assert kernel['shared_memory'] <= SHARED_MEMORY[90], kernel


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[3]))
    print(json.dumps(list(examine_all())))
