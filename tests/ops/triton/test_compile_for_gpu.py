"""What the compiler makes of the kernels, where there is no GPU to ask.

Run as a program, this compiles each kernel ahead of time for a GPU that need
not be there, just as the launches ask for it, and prints what came of it.
"""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from mmcyclemlp.ops import triton as backend

# Shared memory that a block can have.
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
# A block of these can be told from all others by its size.
POSITIONS = 256
NOT_SPECIALISED = {'tiles', 'images', 'height', 'width', 'parts'}
POINTERS = {'float32': '*fp32', 'bfloat16': '*bf16', 'float16': '*fp16'}


class Launches:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return self

    def __call__(self, *args, num_warps, num_stages, **constants):
        options = dict(num_warps=num_warps, num_stages=num_stages)
        self.launches.append((self.kernel, args, constants, options))


def launched(dtype, channels, branches):
    """Launches of y, dx and dweight."""
    product = importlib.import_module('mmcyclemlp.ops.triton.product')
    launches = []
    for name, kernel in list(vars(product.kernels).items()):
        if name.startswith('cycle_product'):
            setattr(product.kernels, name, Launches(kernel, launches))
    product._on = lambda x: torch.no_grad()
    x = torch.zeros(1, 2, 2, channels, dtype=getattr(torch, dtype))
    weight = x.new_zeros(1, branches, channels, channels)
    # Without a bias, which alone is read number by number.
    product._forward(x, weight, None, x, 1, 3)
    product._backward_x(x, weight, 1, 3)
    product._backward_weight(x, x, 1, 3, branches, True)
    for name, kernel in list(vars(product.kernels).items()):
        if isinstance(kernel, Launches):
            setattr(product.kernels, name, kernel.kernel)
    return launches


def compile_for(architecture, kernel, args, constants, options):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for i, (parameter, arg) in enumerate(zip(kernel.params, args)):
        if arg is None:
            constants = constants | {parameter.name: None}
        elif isinstance(arg, torch.Tensor):
            signature[parameter.name] = POINTERS[
                str(arg.dtype).removeprefix('torch.')]
            attributes[(i, )] = [['tt.divisibility', 16]]
        else:
            assert isinstance(arg, int)
            signature[parameter.name] = 'i32'
    signature |= dict.fromkeys(constants, 'constexpr')
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget('cuda', architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix='.cubin') as cubin:
        Path(cubin.name).write_bytes(compiled.asm['cubin'])
        tool = Path(triton.__file__).parent.joinpath(
            'backends', 'nvidia', 'bin', 'cuobjdump')
        usage = subprocess.run(
            [tool, '-res-usage', cubin.name], capture_output=True, text=True,
            check=True).stdout
    registers, stack = re.search(r'REG:(\d+) STACK:(\d+)', usage).groups()
    return dict(
        kernel=kernel.__name__,
        arguments={p.name: p.do_not_specialize for p in kernel.params
                   if signature[p.name] == 'i32'},
        registers=int(registers), spilled=int(stack),
        shared_memory=compiled.metadata.shared,
        accesses=sorted(set(re.findall(
            r'(?:ld|st)\.global\S*', compiled.asm['ptx']))),
        addresses=re.findall(
            r'tt\.addptr .*tensor<(\d+)x\d+xi(\d+)', compiled.asm['ttir']))


@pytest.fixture(scope='module')
def compiled(run_python):
    reason = backend.unavailable_reason(torch.zeros(1))
    if reason and 'GPU' not in reason:
        pytest.skip(reason)
    try:
        from triton.backends.compiler import GPUTarget  # noqa: F401
    except ImportError:
        pytest.skip('this Triton cannot compile for a GPU that is not there')
    # In the interpreter there would be nothing to compile.
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
        assert set(kernel['arguments']) <= NOT_SPECIALISED, kernel
        assert {'images', 'height', 'width'} <= set(kernel['arguments'])
        assert all(kernel['arguments'].values()), kernel


@pytest.mark.parametrize('case', CASES, ids=case_id)
def test_maps_are_read_and_written_as_vectors(compiled, case):
    for kernel in compiled[case]:
        assert any('v4' in a for a in kernel['accesses']), kernel
        assert not any('16' in a or '.u8' in a for a in kernel['accesses'])


def test_addresses_have_64_bits(compiled):
    for kernel in compiled['addresses']:
        bits = {int(bits) for positions, bits in kernel['addresses']
                if int(positions) == POSITIONS}
        assert bits == {64}, kernel


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[3]))
    results = [
        (case, [compile_for(case[0], *launch)
                for launch in launched(*case[1:])])
        for case in CASES]
    results.append(('addresses', [
        compile_for(90, kernel, args, constants | dict(BLOCK_M=POSITIONS),
                    options)
        for kernel, args, constants, options in launched(
            'bfloat16', 64, 1) + launched('bfloat16', 128, 1)]))
    print(json.dumps(results))
