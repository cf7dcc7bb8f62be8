"""Measure how fast CycleMLP runs on this machine, beside its alternatives.

    python tools/benchmark.py
    python tools/benchmark.py backbone train --arch b2 --size 800x1344

Needs torch alone; an alternative that cannot be imported is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcyclemlp import CycleNet, cycle_fc
from mmcyclemlp.ops import MixerWeights
from mmcyclemlp.ops.reference import cycle_mixer_reference

OFFICIAL, PLAIN, OURS = 'official route', 'textbook', 'ours'
LINEAR = 'F.linear'  # which moves nothing
BACKENDS = {OFFICIAL: 'reference', PLAIN: 'reference', OURS: None}
# Name in the tables -> name in timm; name in torchvision, and its nodes.
_LAYERS = tuple(f'layer{i}' for i in range(1, 5))
_FEATURES = tuple(f'features.{i}' for i in (1, 3, 5, 7))
PEERS = {
    'ResNet-50': ('resnet50', 'resnet50', _LAYERS),
    'Swin-T': ('swin_tiny_patch4_window7_224', 'swin_t', _FEATURES),
    'ConvNeXt-T': ('convnext_tiny', 'convnext_tiny', _FEATURES),
    'PVTv2-B2': ('pvt_v2_b2', None, ()),
    'PoolFormer-S24': ('poolformer_s24', None, ()),
    'PoolFormer-S36': ('poolformer_s36', None, ()),
}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16,
          'fp16': torch.float16}
# Largest |difference| / |expected| of a tensor: of an op, of a network.
TOLERANCES = {'fp32': (1e-5, 3e-5), 'bf16': (2e-2, 5e-2),
              'fp16': (3e-3, 2e-2)}
# Bytes/s and operations/s in half (dense) and in single precision, by
# NVIDIA's data sheets.
PEAKS = {'H100 80GB HBM3': (3.35e12, 989e12, 67e12),
         'H200': (4.8e12, 989e12, 67e12)}
ROUNDS, FEWEST_ROUNDS = 15, 3
SAMPLE_SECONDS = 2e-3
# Larger than any cache, and long enough to clear for the launches of an op.
FLUSH_BYTES = 2**30
# No contender's set-up takes more of what is left, and compiling in all no
# more of the whole.
SET_UP_SHARE, COMPILING_SHARE = 0.2, 0.4
# How the time is shared out, a case.
WEIGHTS = {'op': 1, 'mixer': 1, 'backbone': 5, 'train': 5, 'scaling': 2}


@dataclass
class Row:
    """What is known of one contender in one case."""

    contender: str
    samples: list[float] = field(default_factory=list)  # seconds a call
    status: str = 'measured'
    reason: str = ''
    error: float | None = None  # the largest found, relative
    peak_bytes: int | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None


@dataclass
class Case:
    """One comparison: contenders that take turns on the same work.

    ``make(name, small, exact)`` builds a contender and returns a call that
    gives its results as a list: ``small`` for a small input, ``exact`` in
    double precision.
    """

    question: str
    label: str
    rank: int  # 0 is measured first
    dtype: str
    names: list[str]
    make: Callable[..., Callable[[], list[Tensor]]]
    subject: str  # what a check on a small input is good for
    work: float  # operations, up to a factor
    traffic: tuple[float, float] | None = None  # least bytes, operations
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(name) for name in self.names]


def is_ours(contender) -> bool:
    """Whether it is held to the definition."""
    return contender not in (LINEAR, *PEERS)


class LeftOut(Exception):
    """Why a contender has no place in this run."""


class TimeUp(BaseException):
    """The time for a contender is over; no library may swallow this."""


# Contenders.

def draw(shapes, dtype, device, exact) -> list[Tensor]:
    """The same random tensors at each call, rounded to ``dtype``."""
    torch.manual_seed(0)
    tensors = [torch.randn(shape, device=device).to(dtype)
               for shape in shapes]
    return [t.double() for t in tensors] if exact else tensors


def plain_cycle_fc(x, weight, bias, kernel_size):
    """CycleFC for kernels (1, 3) and (3, 1), from its formula.

    What the backends are held to, in double precision, and what a user
    could write for torch.compile, which makes less of backend 'plain'.
    """
    x = x.permute(0, 2, 3, 1)
    dim = 1 if kernel_size == (3, 1) else 2
    size = x.shape[dim]
    padded = F.pad(x, (0, 0, 1, 1) if dim == 2 else (0, 0, 0, 0, 1, 1))
    place = torch.arange(x.shape[3], device=x.device) % 3
    moved = torch.where(place == 1, padded.narrow(dim, 2, size),
                        padded.narrow(dim, 0, size))
    moved = torch.where(place == 0, x, moved)
    return F.linear(moved, weight.flatten(1), bias).permute(0, 3, 1, 2)


def plain_mixer(mixer, x, shortcut=None, scale=None):
    """The forward of a CycleMixer, as the paper has it."""
    weights = MixerWeights(
        mixer.sfc_h.weight, mixer.sfc_h.bias, mixer.sfc_w.weight,
        mixer.sfc_w.bias, mixer.mlp_c.weight, mixer.mlp_c.bias,
        mixer.proj.weight, mixer.proj.bias)
    y = cycle_mixer_reference(
        x, weights, mixer.reweight, mixer.sfc_h.kernel_size, plain_cycle_fc)
    return y if shortcut is None else shortcut + y


@torch.no_grad()
def build_net(arch, name, device, **options) -> CycleNet:
    """CycleNet of a contender, all with the same weights.

    They are larger than those that training starts with, and no bias is 0,
    so that a mistake in any part is seen in the result.
    """
    name = name.partition(',')[0]
    with torch.device(device):
        net = CycleNet(arch, fork_last3=False,
                       backend=BACKENDS.get(name, name), **options)
    torch.manual_seed(0)
    for key, weight in net.named_parameters():
        noise = torch.randn_like(weight)
        if weight.dim() > 1:
            weight.copy_(noise / math.sqrt(weight[0].numel()))
        else:
            weight.copy_(0.1 * noise + ('norm' in key and 'weight' in key))
    if name == PLAIN:
        for module in net.modules():
            if hasattr(module, 'sfc_h'):
                module.forward = partial(plain_mixer, module)
    return net


def build_peer(name, size) -> nn.Module:
    """Trunk of another network, from timm or else torchvision."""
    in_timm, in_torchvision, nodes = PEERS[name]
    more = dict(img_size=size) if name == 'Swin-T' else {}
    reasons = []
    # RuntimeError: torchvision beside a torch it was not built for.
    try:
        return importlib.import_module('timm').create_model(
            in_timm, features_only=True, **more)
    except (ImportError, RuntimeError) as error:
        reasons.append(f'timm: {first_line(error)}')
    if in_torchvision is None:
        raise LeftOut(f'{reasons[0]}; torchvision has no {name}')
    try:
        models, features = map(importlib.import_module, (
            'torchvision.models', 'torchvision.models.feature_extraction'))
        return features.create_feature_extractor(
            getattr(models, in_torchvision)(weights=None), list(nodes))
    except (ImportError, RuntimeError) as error:
        reasons.append(f'torchvision: {first_line(error)}')
    raise LeftOut('; '.join(reasons))


def run_net(net, x) -> list[Tensor]:
    maps = net(x)
    return list(maps.values() if isinstance(maps, dict) else maps)


def compiled(module, name):
    """The module, under torch.compile if the name says so."""
    return (torch.compile(module, dynamic=False)
            if name.endswith('compiled') else module)


def captured(call):
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay():
        graph.replay()
        return results

    return replay


def in_faster_layout(net, x, make_call):
    """The call of a peer in the memory layout that suits it here."""

    def call_in(layout):
        return make_call(net.to(memory_format=layout),
                         x.to(memory_format=layout))

    def seconds(layout):
        call = call_in(layout)
        first = elapsed(call, x.device)
        # The first call may have chosen how to run.
        return elapsed(call, x.device) if first < 0.5 else first

    return call_in(min((torch.contiguous_format, torch.channels_last),
                       key=seconds))


def with_grads(forward, inputs, dy, backward):
    """A call of ``forward``, with the gradients of all inputs or none."""

    def call():
        with torch.set_grad_enabled(backward):
            y = forward()
            grads = torch.autograd.grad(y, inputs, dy) if backward else ()
        return [y, *grads]

    return call


# Questions.

def combinations(args, sizes=None):
    """Rank, arch, size, batch and dtype; what matters most has rank 0."""
    archs = sorted(args.arch, key=lambda arch: (arch != 'b2', arch))
    for numbered in product(*map(
            enumerate, (archs, sizes or args.size, args.batch, args.dtype))):
        ranks, values = zip(*numbered)
        yield sum(ranks), *values


def stages(arch, size):
    """Channels, height, width, depth and MLP ratio of the stages."""
    kernel, stride, padding = 7, 4, 2
    for channels, depth, ratio in zip(*CycleNet.arch_settings[arch].values()):
        size = [(s + 2 * padding - kernel) // stride + 1 for s in size]
        kernel, stride, padding = 3, 2, 1
        yield channels, *size, depth, ratio


def layer_cases(question, make, names, maps, products):
    """Cases of an op or a module, at the stages of the networks.

    ``maps`` are the passes over the map that it cannot do without, forward
    and with gradients; ``products`` the C x C products at each position.
    """

    def cases(args):
        seen = set()
        for rank, arch, size, batch, dtype in combinations(args):
            for c, height, width, *_ in stages(arch, size):
                shape = (batch, height, width, c)
                if (shape, dtype) in seen:
                    continue
                seen.add((shape, dtype))
                for backward in (False, True):
                    times, numbers = 1 + 2 * backward, math.prod(shape)
                    operations = times * 2 * products * numbers * c
                    nbytes = DTYPES[dtype].itemsize * (
                        maps[backward] * numbers
                        + times * math.ceil(products) * c**2)
                    yield Case(
                        question, f'{batch}x{c}x{height}x{width} {dtype} '
                        f'{"fwd+bwd" if backward else "forward"}', rank,
                        dtype, names,
                        partial(make, args, shape, dtype, backward),
                        f'{c} {dtype} {backward}', operations,
                        (nbytes, operations),
                        dict(shape=shape, backward=backward))

    return cases


def make_op(args, shape, dtype, backward, name, small=False, exact=False):
    n, height, width, c = (2, 9, 11, shape[3]) if small else shape
    x, dy, weight, bias = draw(
        [(n, height, width, c)] * 2 + [(c, c), (c, )], DTYPES[dtype],
        args.device, exact)
    inputs = [t.requires_grad_(backward) for t in (x, weight, bias)]

    def forward():
        if name == LINEAR:
            return F.linear(x, weight, bias)
        fc = (plain_cycle_fc if name == PLAIN else
              partial(cycle_fc, backend=BACKENDS.get(name, name)))
        return fc(x.permute(0, 3, 1, 2), weight[..., None, None], bias,
                  (1, 3)).permute(0, 2, 3, 1)

    return with_grads(forward, inputs, dy, backward)


def make_mixer(args, shape, dtype, backward, name, small=False, exact=False):
    n, height, width, c = (2, 13, 17, shape[3]) if small else shape
    arch = dict(embed_dims=(c, ), depths=(1, ), mlp_ratios=(4, ))
    net = build_net(arch, name, args.device, out_indices=(0, ))
    mixer = net.network[0][0].attn.to(DTYPES[dtype])
    if exact:
        mixer.double()
    x, shortcut, dy = draw([(n, height, width, c)] * 3, DTYPES[dtype],
                           args.device, exact)
    inputs = [t.requires_grad_(backward)
              for t in (x, shortcut, *mixer.parameters())]
    mixer = compiled(mixer, name)
    return with_grads(lambda: mixer(x, shortcut), inputs, dy, backward)


def make_net(args, arch, size, batch, dtype, train, name, small=False,
             exact=False):
    if small:
        batch, size = 2, (72, 104)
    half = DTYPES[dtype]
    x, = draw([(batch, 3, *size)], half, args.device, exact)
    net = (build_peer(name, size).to(args.device) if name in PEERS
           else build_net(arch, name, args.device))
    if train:
        # The weights stay in single precision, the products are in half.
        x = x if exact else x.float()
    else:
        net.eval().to(half)
    if exact:
        net.double()

    weights = list(net.parameters())

    def make_call(net, x):
        @torch.set_grad_enabled(train)
        def call():
            with (torch.autocast(args.device.type, half)
                  if train and not exact and dtype != 'fp32'
                  else contextlib.nullcontext()):
                maps = run_net(net, x)
            if not train:
                return maps
            loss = sum((y + torch.linspace(
                -1, 1, y.shape[1], device=y.device)[:, None, None]
                ).square().mean() for y in maps)
            return [*maps, *torch.autograd.grad(
                loss, weights, materialize_grads=True)]

        return call

    if name in PEERS and not args.memory_of:
        return in_faster_layout(net, x, make_call)
    call = make_call(compiled(net, name), x)
    return captured(call) if name.endswith('graph') else call


def net_work(arch, size, batch):
    return batch * sum(
        depth * channels**2 * height * width * (4 + 2 * ratio)
        for channels, height, width, depth, ratio in stages(arch, size))


def net_cases(question, train):
    """Cases of whole networks; the peers stand beside the first."""

    def cases(args):
        first, gpu = None, args.device.type == 'cuda'
        ours = [OFFICIAL, OURS]
        if not train:
            ours += ['torch', f'{OURS}, CUDA graph'] if gpu else []
            ours += [f'{OURS}, compiled']
        ours += [f'{PLAIN}, compiled'] if gpu or not train else []
        for rank, arch, size, batch, dtype in combinations(args):
            first = first or arch
            yield Case(
                question, f'{arch} {size[0]}x{size[1]} batch {batch} {dtype}',
                rank, dtype, ours + list(PEERS) * (arch == first),
                partial(make_net, args, arch, size, batch, dtype, train),
                f'{arch} {dtype}', net_work(arch, size, batch),
                settings=dict(arch=arch, size=size, batch=batch))

    return cases


def scaling_cases(args):
    areas = {'256x256': (256, 256), '256x512': (256, 512),
             '1024x1024': (1024, 1024)}
    # A CUDA graph, or at small sizes one would time the launches.
    route = f'{OURS}, CUDA graph' if args.device.type == 'cuda' else OURS
    for rank, arch, _, batch, dtype in combinations(args, [None]):

        def make(name, small=False, exact=False, arch=arch, batch=batch,
                 dtype=dtype):
            size = areas.get(name)
            return make_net(args, arch, size, batch, dtype, False,
                            route if size else name, small, exact)

        yield Case('scaling', f'{arch} batch {batch} {dtype}, {route}', rank,
                   dtype, list(areas), make, f'{arch} {dtype}',
                   net_work(arch, (1024, 1024), batch),
                   settings=dict(arch=arch, batch=batch))


QUESTIONS = {
    'op': layer_cases('op', make_op, [OFFICIAL, 'triton', 'torch', LINEAR],
                      (2, 5), 1),
    'mixer': layer_cases('mixer', make_mixer, [
        OFFICIAL, 'triton', 'torch', f'{PLAIN}, compiled'], (3, 6), 7 / 3),
    'backbone': net_cases('backbone', False),
    'train': net_cases('train', True),
    'scaling': scaling_cases,
}


# Measuring.

def elapsed(call, device, repeats=1, flush=None) -> float:
    """Seconds a call takes, the mean of ``repeats``."""
    if device.type != 'cuda':
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    events = []
    for _ in range(repeats):
        if flush is not None:
            # Nothing of the input stays in the cache, and the launches of
            # the call are over before the GPU comes to it.
            flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in '12')
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return sum(a.elapsed_time(b) for a, b in events) / 1e3 / repeats


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeUp where the code is after ``seconds``."""

    def stop(*_):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    # Once more every five seconds, for where exceptions are ignored.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@torch.no_grad()
def distance(results, expected) -> float:
    """Largest relative difference of a tensor, over all of them.

    A tensor much smaller than the largest beside it, as a gradient that
    nearly vanishes, is measured by that.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(results, expected)]
    norms = [float(b.norm()) for _, b in pairs]
    found = [float((a - b).norm()) / max(norm, 0.01 * max(norms))
             for (a, b), norm in zip(pairs, norms)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


class Bench:
    """One run: its time, and what it has learnt on the way."""

    def __init__(self, args):
        self.args, self.device = args, args.device
        self.gpu = args.device.type == 'cuda'
        self.end = time.perf_counter() + args.seconds
        self.compiling = 0.
        self.cuts = {}  # (question, contender) -> seconds given, work
        self.proofs = {}  # what was held to the definition -> error

    def left(self) -> float:
        return self.end - time.perf_counter()

    def measure(self, case, share):
        """Set up, check and time the contenders, in ``share`` seconds.

        More, where the fewest rounds take more.
        """
        end = self.left() - share
        expected, runs = [], []
        for row in case.rows:
            made = self.attempt(case, row, expected)
            if made is not None:
                runs.append((row, *made))
        del expected
        flush = None
        if self.gpu and case.traffic:
            flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device='cuda')
        most = 20 if self.gpu else 1000
        for done in range(ROUNDS):
            if done >= FEWEST_ROUNDS and self.left() < end:
                break
            for row, call, seconds in runs:
                repeats = min(most, math.ceil(SAMPLE_SECONDS / seconds))
                if repeats * seconds < self.left():
                    row.samples.append(
                        elapsed(call, self.device, repeats, flush))
        for row, *_ in runs:
            if not row.samples:
                row.status, row.reason = 'no time', 'set up, but not timed'

    def attempt(self, case, row, expected):
        """A checked contender's call and its seconds, or None."""
        key = case.question, row.contender
        compiles = 'compiled' in row.contender
        limit = self.left() * SET_UP_SHARE
        if compiles:
            limit = min(limit, COMPILING_SHARE * self.args.seconds
                        - self.compiling)
        start = time.perf_counter()
        given, enough = self.cuts.get(key, (0., math.inf))
        try:
            if limit <= 0 or (case.work >= enough and limit <= given):
                raise TimeUp
            with time_limit(limit):
                return self.set_up(case, row, expected)
        except TimeUp:
            self.cuts.setdefault(key, (limit, case.work))
            row.status, row.reason = 'no time', 'its set-up takes too long'
        except (torch.cuda.OutOfMemoryError, MemoryError):
            row.status = 'out of memory'
            gc.collect()
        except Exception as error:
            row.reason = first_line(error)
            absent = isinstance(error, LeftOut) or 'cannot run here' in (
                row.reason)
            row.status = 'left out' if absent else 'failed'
        finally:
            self.compiling += compiles * (time.perf_counter() - start)
        return None

    def set_up(self, case, row, expected):
        name, train = row.contender, case.question == 'train'
        if name == 'triton' and not self.gpu:
            raise LeftOut('it needs a GPU, or runs in an interpreter')
        if is_ours(name):
            row.error = self.proof(case, name)
        if train and not self.gpu:
            row.peak_bytes = self.peak_on_cpu(case, name)
        call = case.make(name)
        if is_ours(name) and case.question != 'scaling':
            results = call()
            if not expected:
                # The first is the official route; else the definition.
                expected += (results if name == OFFICIAL
                             else case.make(PLAIN)())
            row.error = max(row.error, distance(results, expected))
            del results
        elif name not in PEERS:
            call()
        tolerance = TOLERANCES[case.dtype][case.traffic is None]
        if is_ours(name) and row.error > tolerance:
            row.status = 'wrong'
            row.reason = f'off by {row.error:.1e}, more than {tolerance:.0e}'
            return None
        if train and self.gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            row.peak_bytes = torch.cuda.max_memory_allocated() - before
        return call, elapsed(call, self.device)

    def proof(self, case, name):
        """Error on a small input, against the definition in float64."""
        key = case.question, case.subject, name.partition(',')[0]
        if key not in self.proofs:
            self.proofs[key] = distance(
                case.make(key[2], small=True)(),
                case.make(PLAIN, small=True, exact=True)())
        return self.proofs[key]

    def peak_on_cpu(self, case, name):
        """Bytes that a step adds to a process of its own."""
        if not Path('/proc/self/clear_refs').exists():
            return None
        height, width = case.settings['size']
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', __file__, 'train',
             '--memory-of', name, '--arch', case.settings['arch'],
             '--size', f'{height}x{width}', '--dtype', case.dtype,
             '--batch', str(case.settings['batch']), '--device', 'cpu',
             '--threads', str(torch.get_num_threads())],
            capture_output=True, text=True)
        if done.returncode != 0:
            raise LeftOut(done.stderr.strip().split('\n')[-1])
        return int(done.stdout.split()[-1])


def report_memory(args):
    """Print by how many bytes a training step of a contender adds."""

    def status(key):
        text = Path('/proc/self/status').read_text()
        return int(re.search(rf'{key}:\s*(\d+) kB', text)[1]) * 1024

    case = next(QUESTIONS['train'](args))
    call = case.make(args.memory_of)
    # The peak so far was of building; ru_maxrss would be the parent's.
    Path('/proc/self/clear_refs').write_text('5')
    before = status('VmRSS')
    call()
    print(status('VmHWM') - before)


# Reporting.

def first_line(error) -> str:
    lines = str(error).strip().split('\n')
    return lines[0] or type(error).__name__


def short(number) -> str:
    """Three digits that count."""
    if not number:
        return '0'
    return f'{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}'


def machine(args) -> dict:
    info = Path('/proc/cpuinfo')
    found = info.exists() and re.search('model name.*: (.*)',
                                        info.read_text())
    known = dict(
        date=datetime.datetime.now().astimezone().isoformat('T', 'minutes'),
        cpu=found[1] if found else platform.processor(),
        threads=torch.get_num_threads(),
        # Above 0 at the start, others take turns on the same cores.
        load=f'{os.getloadavg()[0]:.1f}',
        python=platform.python_version(), torch=torch.__version__)
    for name in ('triton', 'torchvision', 'timm', 'mmcyclemlp'):
        try:
            known[name] = importlib.import_module(name).__version__
        except (ImportError, RuntimeError):
            known[name] = None
    if args.device.type == 'cuda':
        known |= dict(gpu=torch.cuda.get_device_name(args.device),
                      cuda=torch.version.cuda)
    return known


def floor(case, args) -> float | None:
    """Seconds that the case takes at least, on a GPU whose peaks we know."""
    if case.traffic is None or args.device.type != 'cuda':
        return None
    name = torch.cuda.get_device_name(args.device)
    for known, (bandwidth, half, single) in PEAKS.items():
        if known in name:
            nbytes, operations = case.traffic
            rate = single if case.dtype == 'fp32' else half
            return max(nbytes / bandwidth, operations / rate)
    return None


def figures(row, case, official, least) -> list[str]:
    """What a table says of a contender that was measured."""
    seconds, samples = row.median, [1e3 * s for s in row.samples]
    relative = official / seconds if official else 0
    if case.question == 'scaling':
        pixels = math.prod(map(int, row.contender.split('x')))
        relative = seconds * 1e9 / pixels / case.settings['batch']
    line = [short(seconds * 1e3),
            f'{short(min(samples))} .. {short(max(samples))}',
            short(relative) if relative else '']
    if case.traffic:
        nbytes, operations = case.traffic
        line += [short(nbytes / seconds / 1e9),
                 short(operations / seconds / 1e12),
                 f'{least / seconds:.0%}' if least else '']
    elif row.peak_bytes is not None:
        line.append(short(row.peak_bytes / 2**20))
    return line


def table(question, cases, args) -> list[str]:
    """The lines of a table, and under it what is missing and why."""
    more = {'train': ['peak MiB']} | dict.fromkeys(
        ('op', 'mixer'), ['GB/s', 'TFLOP/s', 'of floor'])
    relative = 'ms/Mpixel' if question == 'scaling' else 'x official'
    lines = [[question, 'ms', 'min .. max', relative,
              *more.get(question, [])]]
    notes, late = {}, []
    for case in cases:
        if all(row.status in ('no time', 'left out') for row in case.rows):
            late.append(case.label)
            continue
        lines.append([case.label])
        least = floor(case, args)
        if case.traffic:
            nbytes, operations = case.traffic
            lines[-1] += ['', '', '', f'{short(nbytes / 1e6)} MB',
                          f'{short(operations / 1e9)} GFLOP',
                          f'{short(least * 1e6)} us' if least else '']
        official = next((row.median for row in case.rows
                         if row.contender == OFFICIAL), None)
        for row in case.rows:
            note = f'{row.status}: {row.reason}'
            if row.samples:
                few = len(row.samples) < FEWEST_ROUNDS
                note = f'rounds: only {len(row.samples)}' if few else ''
            lines.append([f'  {row.contender}', *(
                figures(row, case, official, least) if row.samples
                else [row.status])])
            if note:
                whose, where = notes.setdefault(note, ({}, {}))
                whose[row.contender] = where[case.label] = None
    columns = list(zip(*(
        line + [''] * (len(lines[0]) - len(line)) for line in lines)))
    widths = [max(map(len, column)) for column in columns]
    text = ['| ' + ' | '.join([line[0].ljust(widths[0]), *map(
        str.rjust, line[1:], widths[1:])]) + ' |' for line in zip(*columns)]
    text.insert(1, '| ' + ' | '.join('-' * width for width in widths) + ' |')
    for note, (whose, where) in notes.items():
        where = ', '.join(where) if len(where) < 4 else f'{len(where)} cases'
        text.append(f'- {", ".join(whose)}: {note} ({where})')
    if late:
        text.append(f'- left out for lack of time: {", ".join(late)}')
    return text


def save(path, known, cases):
    if path is None:
        return
    cases = [{**vars(case), 'rows': list(map(vars, case.rows))}
             for case in cases]
    for case in cases:
        del case['make']
    path.write_text(json.dumps(dict(machine=known, cases=cases), indent=1))


# The command.

class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f'error: {message}\n')


def checked(kind, good, message):
    """A type for argparse: what ``kind`` makes of a text, if ``good``."""

    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if good(value):
                return value
        raise argparse.ArgumentTypeError(message.format(text))

    return parse


def positive(kind):
    return checked(kind, lambda value: value > 0,
                   'takes a number above 0, got {!r}')


def parse_args(argv):
    questions = ', '.join(QUESTIONS)
    parser = Parser(
        description="""\
Measure how fast CycleMLP runs on this machine, beside its alternatives. The
contenders of a case take turns, so that a change of clock meets all of them;
keep the cores to yourself all the same, for other work on them slows some
contenders far more than others. Where a result of ours differs from the
definition there is "wrong" in place of a time, and the exit status is 1.""",
        epilog="""questions:
  op        cycle_fc at each stage: our backends, the official route (a
            deformable convolution), and F.linear, which moves nothing
  mixer     the token mixer of a block, with its shortcut, at each stage
  backbone  inference: CycleNet in several ways; beside the first arch
            other backbones too, from timm or torchvision
  train     the same for forward and backward pass (half precision:
            autocast), and the memory they take beside weights and image
  scaling   ours at 1, 2 and 16 times the area

columns: ms is the median over the rounds, then the fastest and the slowest;
x official how many times as fast as the official route; GB/s, TFLOP/s and
"of floor" the rates reached, and on the line of the case what has to be
moved and computed at least, and the time that takes on this GPU where its
peaks are known (H100 SXM, H200). Moved at least: input, shortcut, output
and weights once; with gradients the input twice and the gradients once
more. Computed: C^2 multiply-adds a position for the op, 7/3 C^2 for the
mixer; three times that with gradients.""",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('questions', nargs='*', metavar='QUESTION',
        type=checked(str, QUESTIONS.__contains__,
                     f'the questions are {questions}; got {{!r}}'),
        help=f'{questions}; all if none is given')
    add('--arch', nargs='+', choices=sorted(CycleNet.arch_settings),
        metavar='ARCH', help='b1 ... b5 (default: all; on a CPU b1 b2)')
    add('--size', nargs='+', metavar='HxW', default=[(800, 1344), (512, 512)],
        type=checked(
            lambda text: tuple(map(int, text.split('x'))),
            lambda sides: len(sides) == 2 and min(sides) >= 32,
            'a size is HxW, each 32 or more, such as 800x1344; got {!r}'),
        help='sizes of the image (default: 800x1344 512x512)')
    add('--batch', nargs='+', type=positive(int), metavar='N',
        help='images at a time (default: 1 2 8 16; on a CPU 1)')
    add('--dtype', nargs='+', choices=list(DTYPES), metavar='DTYPE',
        help='fp32, bf16, fp16 (default: bf16; on a CPU fp32 bf16)')
    add('--device', choices=['cpu', 'cuda'],
        help='default: cuda where there is a GPU')
    add('--seconds', type=positive(float), default=500., metavar='S',
        help='time for everything (default: 500); b2 and what was named '
        'first is measured first, and what there was no time for is named')
    add('--json', metavar='PATH',
        type=checked(Path, lambda path: path.resolve().parent.is_dir(),
                     'there is no folder for {}; make it first'),
        help='where to write machine, versions and every sample')
    add('--threads', type=positive(int), metavar='N',
        help="threads of torch on the CPU (default: torch's own)")
    add('--memory-of', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    gpu = torch.cuda.is_available() and args.device != 'cpu'
    if args.device == 'cuda' and not gpu:
        parser.error('--device cuda: torch finds no GPU here; leave it out '
                     'or give --device cpu')
    args.device = torch.device('cuda' if gpu else 'cpu')
    args.questions = args.questions or list(QUESTIONS)
    defaults = (dict(arch=['b1', 'b2', 'b3', 'b4', 'b5'],
                     batch=[1, 2, 8, 16], dtype=['bf16']) if gpu else
                dict(arch=['b1', 'b2'], batch=[1], dtype=['fp32', 'bf16']))
    for name, default in defaults.items():
        setattr(args, name, getattr(args, name) or default)
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    # Single precision is what it says, and sizes do not change in a case.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if args.memory_of:
        report_memory(args)
        return 0
    bench, known = Bench(args), machine(args)
    print(*(f'{key} {value or "missing"}' for key, value in known.items()),
          sep=', ', flush=True)
    cases = [case for question in args.questions
             for case in QUESTIONS[question](args)]
    queue = sorted(cases, key=lambda case: case.rank)
    for i, case in enumerate(queue):
        if bench.left() < 0.02 * args.seconds:
            for row in case.rows:
                row.status = 'no time'
            continue
        print(f'[{args.seconds - bench.left():4.0f} s] {case.question} '
              f'{case.label}', file=sys.stderr)
        bench.measure(case, bench.left() * WEIGHTS[case.question] / sum(
            WEIGHTS[later.question] for later in queue[i:]))
        # What was compiled, captured and kept for reuse is of this case.
        torch.compiler.reset()
        gc.collect()
        if bench.gpu:
            torch.cuda.empty_cache()
        save(args.json, known, cases)
    save(args.json, known, cases)
    for question in args.questions:
        print('', *table(question, [
            case for case in cases if case.question == question], args),
            sep='\n')
    # A compiler may be missing, and no peer is in our hands.
    return int(any(
        row.status == 'wrong' or (
            row.status == 'failed' and is_ours(row.contender)
            and 'compiled' not in row.contender)
        for case in cases for row in case.rows))


if __name__ == '__main__':
    sys.exit(main())
