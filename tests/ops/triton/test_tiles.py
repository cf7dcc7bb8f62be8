"""Kernels get tiles that were measured or tuned, or those of the rule."""

import importlib

import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.ops.triton import tiles
from mmcyclemlp.ops.triton.tiles import Key, Tiles, rule, short_list

GPU = torch.device('cuda', 0)
KEY = Key('y', 3, 64, 64, 1, 3, 'bfloat16')
CHANNELS = sorted({dim for arch in CycleNet.arch_settings.values()
                   for dim in arch['embed_dims']})
KEYS = [Key(direction, branches, channels, channels, *kernel, dtype)
        for direction in ('y', 'dx', 'dweight')
        for branches, kernel in ((1, (1, 3)), (1, (3, 1)), (3, (1, 3)))
        for channels in [5, 70, *CHANNELS]
        for dtype in ('bfloat16', 'float16', 'float32')]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Simulate a GPU, with an empty Triton cache.

    ``gpu(times)`` sets the times of the tiles of the short list. It returns
    the list of tiles that were timed.
    """
    pytest.importorskip('triton.knobs')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(tiles, '_tuned', {})
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda device: (8, 9))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Some')
    timed = []

    def gpu(times):
        def do_bench(call, **options):
            timed.append(call())
            time = times[short_list(KEY).index(timed[-1])]
            if isinstance(time, Exception):
                raise time
            return time

        monkeypatch.setattr(
            importlib.import_module('triton.testing'), 'do_bench', do_bench)
        return timed

    return gpu


def make_call(key, device):
    return lambda tiles: tiles


def test_the_fastest_is_chosen_and_stored(gpu):
    listed = short_list(KEY)
    timed = gpu([3., 2., 1.])
    assert tiles.choose(KEY, GPU) == rule(KEY) == listed[0]
    tiles.tune(KEY, GPU, make_call, 'source')
    assert timed == listed and tiles.choose(KEY, GPU) == listed[2]
    # Nothing is timed twice, in this process or in another.
    tiles.tune(KEY, GPU, make_call, 'source')
    tiles._tuned.clear()
    gpu([1., 2., 3.])
    tiles.tune(KEY, GPU, make_call, 'source')
    assert timed == listed and tiles.choose(KEY, GPU) == listed[2]
    # A result does not count for other kernels or another Triton.
    tiles._tuned.clear()
    tiles.tune(KEY, GPU, make_call, 'other source')
    assert tiles.choose(KEY, GPU) == listed[0]


def test_tiles_that_do_not_fit_are_skipped(gpu):
    from triton.runtime.errors import OutOfResources

    gpu([OutOfResources(9, 8, 'shared memory'), 2., 3.])
    tiles.tune(KEY, GPU, make_call, 'source')
    assert tiles.choose(KEY, GPU) == short_list(KEY)[1]


def test_the_first_process_decides(gpu, monkeypatch):
    # All processes of a run use the same tiles, whatever they measured.
    listed = short_list(KEY)
    gpu([1., 2., 3.])

    def while_another_tunes(key, device):
        with monkeypatch.context() as patch:
            patch.setattr(tiles, 'fastest', lambda *_: listed[2])
            tiles.tune(key, device, make_call, 'source')
        tiles._tuned.clear()
        return make_call(key, device)

    tiles.tune(KEY, GPU, while_another_tunes, 'source')
    assert tiles.choose(KEY, GPU) == listed[2]


def test_a_read_only_cache_is_no_error(gpu, monkeypatch):
    def refuse(self, *args, **options):
        raise OSError('read-only file system')

    gpu([3., 1., 2.])
    manager = importlib.import_module('triton.runtime.cache').FileCacheManager
    monkeypatch.setattr(manager, 'put', refuse)
    tiles.tune(KEY, GPU, make_call, 'source')
    assert tiles.choose(KEY, GPU) == short_list(KEY)[1]


def test_one_candidate_is_not_timed(gpu):
    timed = gpu([1., 1., 1.])
    tiles.tune(KEY._replace(dtype='float32'), GPU, make_call, 'source')
    assert timed == []


def test_measured_tiles_come_first(gpu, monkeypatch):
    timed = gpu([3., 2., 1.])
    tiles.tune(KEY, GPU, make_call, 'source')
    timed.clear()
    best = Tiles(32, 32, 32, 0, 2, 4, False)
    monkeypatch.setattr(tiles, 'MEASURED', {(8, 9): {
        KEY.name: [tuple(best), 5., 9.]}})
    tiles._tuned.clear()
    tiles.tune(KEY, GPU, make_call, 'source')
    assert timed == [] and tiles.choose(KEY, GPU) == best
    other = KEY._replace(channels=128)
    assert tiles.choose(other, GPU) == rule(other)


def test_without_a_gpu_the_rule_decides(monkeypatch):
    monkeypatch.setattr(tiles, '_tuned', {(None, KEY): 'not this'})
    assert tiles.choose(KEY, torch.device('cpu')) == rule(KEY)


@pytest.mark.parametrize('key', KEYS, ids=lambda key: key.name)
def test_tiles_suit_the_kernels(key):
    listed = short_list(key)
    assert listed[0] == rule(key) and 1 <= len(listed) <= 4
    assert len(set(listed)) == len(listed)
    for one in listed:
        for size in (one.m, one.n, one.k):
            # tl.dot needs powers of two, at least 16.
            assert size >= 16 and size & (size - 1) == 0
        assert one.width == 0 or one.m % one.width == 0
        assert not one.moves_last or (key.can_move_last and one.width == 0)


def test_names_of_keys_are_unique():
    assert len({key.name for key in KEYS}) == len(KEYS)


def test_a_key_does_not_depend_on_image_sizes():
    keys = {Key.of('y', torch.zeros(size, dtype=torch.float16),
                   torch.Size((groups, 3, 5, 7)), (1, 3))
            for size in ((1, 4, 6, 7), (9, 2, 3, 7)) for groups in (1, 9)}
    assert keys == {Key('y', 3, 7, 5, 1, 3, 'float16')}


@pytest.mark.parametrize('channels, outputs', [
    (1, 1), (3, 64), (8, 512), (64, 64), (768, 768), (1024, 1)])
def test_drawn_maps_are_small(monkeypatch, channels, outputs):
    product = pytest.importorskip('mmcyclemlp.ops.triton.launch')
    drawn = []

    def randn(size, **options):
        drawn.append(torch.Size(size).numel())
        return torch.zeros(1)

    monkeypatch.setattr(torch, 'randn', randn)
    product.draw(Key('y', 3, channels, outputs, 1, 3, 'float32'),
                 torch.device('cpu'))
    # About as many numbers as in the first map of b1 at 800x1344.
    assert max(drawn) <= 2 * 200 * 336 * 64


def test_nothing_is_tuned_while_compiling(monkeypatch):
    product = pytest.importorskip('mmcyclemlp.ops.triton.launch')
    tuned = []
    monkeypatch.setattr(product, '_tune', lambda *args: tuned.append(args))
    monkeypatch.setattr(product, '_product', lambda *args: None)
    monkeypatch.setattr(
        torch.cuda, 'is_current_stream_capturing', lambda: capturing)

    class OnGpu:
        is_cuda, numel = True, lambda self: 1

    monkeypatch.setattr(product, 'Tensor', OnGpu)
    capturing = False

    def call(x=None):
        product.cycle_product_triton(
            x or OnGpu(), None, None, None, (1, 3))
        return len(tuned)

    assert call() == 1
    monkeypatch.setattr(product, 'is_compiling', lambda: True)
    assert call() == 1
    monkeypatch.setattr(product, 'is_compiling', lambda: False)
    capturing = True
    assert call() == 1
    capturing = False
    # Fake tensors have a subclass as type.
    assert call(type('Fake', (OnGpu, ), {})()) == 1
    monkeypatch.setattr(OnGpu, 'numel', lambda self: 0)
    assert call() == 1


@pytest.mark.parametrize('x_grad, weight_grad, directions', [
    (False, False, ['y']), (True, False, ['y', 'dx']),
    (False, True, ['y', 'dweight']), (True, True, ['y', 'dx', 'dweight'])])
def test_the_needed_directions_are_tuned(
        monkeypatch, x_grad, weight_grad, directions):
    product = pytest.importorskip('mmcyclemlp.ops.triton.launch')
    tuned = []
    monkeypatch.setattr(product, 'tune', lambda key, *_: tuned.append(key))
    monkeypatch.setattr(product, '_source', lambda: 'source')
    monkeypatch.setattr(torch.cuda, 'device', lambda _: torch.no_grad())
    x = torch.zeros(1, 2, 2, 7, requires_grad=x_grad)
    weight = torch.zeros(1, 3, 5, 7, requires_grad=weight_grad)
    product._tune(x, weight, (1, 3))
    assert tuned == [Key(direction, 3, 7, 5, 1, 3, 'float32')
                     for direction in directions]


@pytest.mark.parametrize('key', [
    Key(direction, branches, 7, 5, 1, 3, 'float32')
    for direction in ('y', 'dx', 'dweight') for branches in (1, 3)],
    ids=lambda key: key.name)
def test_drawn_calls_run_the_kernel(key):
    backend = importlib.import_module('mmcyclemlp.ops.triton')
    reason = backend.unavailable_reason(torch.zeros(1))
    if reason:
        pytest.skip(reason)
    product = importlib.import_module('mmcyclemlp.ops.triton.launch')
    # Timing does not change the random state of training.
    state = torch.get_rng_state()
    call = product.make_call(key, torch.device('cpu'), (2, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    results = [call(one) for one in (
        rule(key), rule(key)._replace(m=16, n=16, k=16))]
    assert results[0].abs().sum() > 0
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
