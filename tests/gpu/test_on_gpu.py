"""Tests for a GPU: real sizes, half precision, networks, compiling, graphs.

On a CPU they run in Triton's interpreter with smaller sizes. Tests that mean
nothing in the interpreter are skipped.
"""

import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.ops import cycle_fc, reference
from mmcyclemlp.ops import torch_backend as shift
from mmcyclemlp.ops import triton as backend
from mmcyclemlp.ops.triton import tiles

ON_GPU = torch.cuda.is_available()
DEVICE = 'cuda' if ON_GPU else 'cpu'
REASON = backend.unavailable_reason(torch.zeros(1, device=DEVICE))
pytestmark = pytest.mark.skipif(
    REASON is not None, reason=f'the Triton backend cannot run: {REASON}')
needs_gpu = pytest.mark.skipif(not ON_GPU, reason='it needs a GPU')

# Channels, height and width, of the stages of b1 and b5 at 800x1344.
MAPS = ([(64, 200, 336), (128, 100, 168), (320, 50, 84), (512, 25, 42),
         (96, 200, 336), (192, 100, 168), (384, 50, 84), (768, 25, 42)]
        if ON_GPU else [(70, 6, 9)])
DTYPES = ([torch.bfloat16, torch.float16, torch.float32] if ON_GPU
          else [torch.float16, torch.float32])
# Largest |difference| / |expected| of a tensor.
BOUNDS = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
TINY = dict(embed_dims=(8, 12, 16, 24), depths=(1, 1, 1, 1),
            mlp_ratios=(2, 2, 2, 2))


@pytest.fixture(autouse=True)
def _tiles_of_the_rule(monkeypatch):
    """Disable tuning, because other processes use the same GPU."""
    if REASON is None:
        product = importlib.import_module('mmcyclemlp.ops.triton.launch')
        monkeypatch.setattr(product, '_tune', lambda *_: None)


def distance(a, b):
    """Return |a - b| / |b| in double precision.

    It is infinite if ``a`` is not finite, or if a single number is wrong by
    more than a tenth of the largest one.
    """
    a, b = a.detach().double(), b.detach().double()
    if not a.isfinite().all() or (a - b).abs().max() > 0.1 * b.abs().max():
        return float('inf')
    return float((a - b).norm() / b.norm())


def draw(channels, height, width, branches, dtype, batch=2):
    """Return x, weight, bias, shortcut and a gradient, on the device."""
    groups = batch if branches == 3 else 1
    shapes = [(batch, height, width, channels),
              (groups, branches, channels, channels), (groups, channels),
              (batch, height, width, channels),
              (batch, height, width, channels)]
    return [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]


def with_gradients(product, tensors, kernel_size):
    *inputs, grad = tensors
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = product(*inputs, kernel_size)
    return [y, *torch.autograd.grad(y, inputs, grad)]


SMALL_CASE = '''
import torch
import mmcyclemlp.ops.triton.launch
for branches in (1, 3):
    tensors = [torch.randn(shape, device='cuda').bfloat16().requires_grad_()
               for shape in ((2, 9, 17, 70), (2, branches, 67, 70), (2, 67),
                             (2, 9, 17, 67))]
    for kernel_size in ((1, 3), (3, 1)):
        # The op itself tunes nothing.
        y = torch.ops.mmcyclemlp.product_triton(*tensors, *kernel_size)
        y.sum().backward()
torch.cuda.synchronize()
print('all were run')
'''


@needs_gpu
def test_compute_sanitizer_finds_nothing(root, tmp_path):
    tool = shutil.which('compute-sanitizer') or '/usr/local/cuda/bin/' \
        'compute-sanitizer'
    if not Path(tool).exists():
        pytest.skip('compute-sanitizer is not installed')
    try:
        done = subprocess.run(
            [tool, '--tool', 'memcheck', '--report-api-errors', 'no',
             '--error-exitcode', '9', sys.executable, '-W', 'ignore', '-c',
             SMALL_CASE],
            env=dict(os.environ, PYTORCH_NO_CUDA_MEMORY_CACHING='1',
                     PYTHONPATH=os.pathsep.join(
                         [str(root), os.environ.get('PYTHONPATH', '')])),
            capture_output=True, text=True, timeout=55, cwd=tmp_path)
    except subprocess.TimeoutExpired:
        pytest.skip('compute-sanitizer takes too long here')
    text = done.stdout + done.stderr
    if 'Device not supported' in text:
        pytest.skip('compute-sanitizer does not support this device')
    assert done.returncode == 0 and 'all were run' in done.stdout, (
        text[-2000:])


def textbook(net):
    """Return the same network with the blocks of the paper."""
    reason = reference.unavailable_reason()
    other = CycleNet(net.arch, fork_last3=False,
                     backend='plain' if reason else 'reference')
    other.load_state_dict(net.state_dict())
    return other.to(DEVICE)


def network(name, arch='b1' if ON_GPU else TINY):
    """Return a network whose weights make all branches matter."""
    torch.manual_seed(0)
    net = CycleNet(arch, fork_last3=False, backend=name)
    for weight in net.parameters():
        if weight.dim() > 1:
            weight.data = torch.randn_like(weight) / weight[0].numel()**0.5
    return net.to(DEVICE)


def maps_and_gradients(net, image, dtype):
    with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32), (
            # By default, convolutions in single precision use TF32.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False)):
        maps = net(image)
        # Maps are normalized, so a sum of squares would be constant.
        torch.manual_seed(1)
        loss = sum((y * torch.randn(y.shape).bfloat16().to(y)).sum()
                   for y in maps)
        grads = torch.autograd.grad(loss, list(net.parameters()))
    return [*maps, torch.cat([g.flatten() for g in grads])]


def test_network_compiles_once_without_a_break():
    from torch._dynamo.utils import counters

    # One block for each stage; more blocks only take longer.
    arch = dict(CycleNet.arch_settings['b1'], depths=(1, 1, 1, 1))
    net = network('triton', arch if ON_GPU else TINY).eval()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(net, fullgraph=True, dynamic=True,
                             backend='inductor' if ON_GPU else 'aot_eager')
    # For all these sizes, the mixer chooses the same order of operations.
    sizes = ([(800, 1344), (832, 1216), (768, 1280)] if ON_GPU
             else [(64, 96), (80, 96), (64, 80)])
    for batch, size in enumerate(sizes, 2):
        image = torch.randn(batch, 3, *size, device=DEVICE)
        with torch.no_grad(), torch.autocast(
                DEVICE, torch.bfloat16, enabled=ON_GPU):
            for a, b in zip(compiled(image), net(image)):
                assert distance(a, b) < 3 * BOUNDS[DTYPES[0]]
    assert counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize('branches', [1, 3])
def test_more_than_2_31_elements(branches):
    # Compare the last rows with the same rows on a small map.
    side, rows, channels = (5824, 8, 64) if ON_GPU else (24, 4, 16)
    dtype = DTYPES[0]
    assert not ON_GPU or side * side * channels > 2**31
    x = torch.zeros(1, side, side, channels, dtype=dtype, device=DEVICE)
    dy = torch.zeros_like(x)
    x[:, -rows - 1:] = torch.randn_like(x[:, -rows - 1:])
    dy[:, -rows + 1:] = torch.randn_like(dy[:, -rows + 1:])
    weight = torch.randn(1, branches, channels, channels,
                         device=DEVICE).to(dtype)
    bias = torch.randn(1, channels, device=DEVICE).to(dtype)
    results = []
    for map_x, map_dy in ((x, dy), (x[:, -rows - 1:], dy[:, -rows - 1:])):
        inputs = [t.detach().requires_grad_() for t in (map_x, weight, bias)]
        y = backend.cycle_product_triton(*inputs, None, (3, 1))
        dx, dweight, dbias = torch.autograd.grad(y, inputs, map_dy)
        results.append([y[:, -rows:].detach().clone(),
                        dx[:, -rows:].clone(), dweight, dbias])
        del y, dx
    for a, b in zip(*results):
        assert distance(a, b) < BOUNDS[dtype]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('channels, height, width', MAPS, ids=str)
@pytest.mark.parametrize('kernel_size, branches', [
    ((1, 3), 3), ((1, 3), 1), ((3, 1), 1)], ids=str)
def test_kernels_at_real_sizes(
        monkeypatch, kernel_size, branches, channels, height, width, dtype):
    tensors = draw(channels, height, width, branches, dtype)
    expected = with_gradients(
        shift.cycle_product_torch, [t.double() for t in tensors], kernel_size)
    new_empty = torch.Tensor.new_empty
    # Elements that a kernel does not write stay NaN.
    monkeypatch.setattr(
        torch.Tensor, 'new_empty',
        lambda *args, **kwargs: new_empty(*args, **kwargs).fill_(
            float('nan')))
    for product in (backend.cycle_product_triton, shift.cycle_product_torch):
        ours = with_gradients(product, tensors, kernel_size)
        names = ['y', 'dx', 'dweight', 'dbias', 'dshortcut']
        for name, a, b in zip(names, ours, expected):
            assert distance(a, b) < BOUNDS[dtype], name


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', ['triton', 'torch'])
def test_whole_network_is_as_exact_as_the_textbook(name, dtype):
    if not ON_GPU and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    net = network(name)
    image = torch.randn(2, 3, *((256, 416) if ON_GPU else (64, 72)),
                        device=DEVICE)
    plain = textbook(net)
    results = [maps_and_gradients(one, image, dtype) for one in (net, plain)]
    exact = [t.detach() for t in maps_and_gradients(
        plain.double(), image.double(), torch.float32)]
    for ours, theirs, true in zip(*results, exact):
        assert distance(ours, true) < 1.5 * distance(theirs, true) + (
            2e-3 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('branches', [1, 3])
def test_second_order_in_each_dtype(branches, dtype):
    channels, height, width = (64, 20, 30) if ON_GPU else (7, 3, 4)
    *inputs, grad = draw(channels, height, width, branches, dtype)

    def second_order(product, inputs, grad):
        inputs = [t.detach().requires_grad_() for t in inputs]
        grad = grad.detach().requires_grad_()
        y = product(*inputs, (1, 3))
        first = torch.autograd.grad(y, inputs[:2], grad, create_graph=True)
        return torch.autograd.grad(
            first, [*inputs[:2], grad], [t.detach() for t in inputs[:2]])

    ours = second_order(backend.cycle_product_triton, inputs, grad)
    theirs = second_order(shift.cycle_product_torch,
                          [t.double() for t in inputs], grad.double())
    for a, b in zip(ours, theirs):
        assert distance(a, b) < 3 * BOUNDS[dtype]


@pytest.mark.parametrize('branches', [1, 3])
def test_runs_at_real_sizes_are_equal_bit_for_bit(branches):
    channels, height, width = (128, 100, 168) if ON_GPU else (7, 9, 10)
    tensors = draw(channels, height, width, branches, DTYPES[0])
    first = with_gradients(backend.cycle_product_triton, tensors, (1, 3))
    for _ in range(20 if ON_GPU else 2):
        again = with_gradients(backend.cycle_product_triton, tensors, (1, 3))
        for a, b in zip(first, again):
            assert torch.equal(a, b)


@needs_gpu
def test_kernels_compile_once_for_all_sizes():
    from mmcyclemlp.ops.triton import kernels

    def compiled():
        return {name: sum(len(one[0])
                          for one in kernel.device_caches.values())
                for name, kernel in vars(kernels).items()
                if name.startswith('cycle_product')}

    counts = []
    for height, width in ((17, 31), (16, 32), (1, 1), (200, 336), (5, 2048)):
        for branches in (1, 3):
            tensors = draw(64, height, width, branches, torch.bfloat16)
            with_gradients(backend.cycle_product_triton, tensors, (1, 3))
        counts.append(compiled())
    assert all(one == counts[0] for one in counts)


@needs_gpu
def test_cuda_graph_returns_the_same():
    net = network('triton').eval().bfloat16()
    image = torch.randn(1, 3, 224, 224, device=DEVICE).bfloat16()
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                net(image)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            maps = net(image)
        image.copy_(torch.randn_like(image))
        graph.replay()
        torch.cuda.synchronize()
        for a, b in zip(maps, net(image)):
            assert torch.equal(a, b)


@needs_gpu
def test_tuning_takes_seconds_and_is_stored(monkeypatch, tmp_path):
    product = importlib.import_module('mmcyclemlp.ops.triton.launch')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(tiles, '_tuned', {})
    monkeypatch.setattr(tiles, 'MEASURED', {})
    device = torch.device('cuda', torch.cuda.current_device())
    key = tiles.Key('y', 3, 320, 320, 1, 3, 'bfloat16')
    start = time.monotonic()
    tiles.tune(key, device, product.make_call, 'source')
    assert time.monotonic() - start < 60
    found = tiles.choose(key, device)
    assert found in tiles.short_list(key)
    tiles._tuned.clear()
    monkeypatch.setattr(tiles, 'fastest', None)
    tiles.tune(key, device, product.make_call, 'source')
    assert tiles.choose(key, device) == found


@needs_gpu
@pytest.mark.parametrize('layout', [
    torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_default_runs_on_both_layouts(layout):
    x = torch.randn(2, 70, 33, 35, device=DEVICE).to(memory_format=layout)
    weight, bias = (torch.randn(size, device=DEVICE)
                    for size in ((50, 70, 1, 1), (50, )))
    expected = cycle_fc(x.double(), weight.double(), bias.double(),
                        backend='plain')
    for dtype in DTYPES:
        # By default, convolutions in single precision use TF32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            y = cycle_fc(x.to(dtype), weight.to(dtype), bias.to(dtype))
        assert distance(y, expected) < BOUNDS[dtype]
