"""Step ``export``: run the ONNX file of b1 in onnxruntime on the GPU."""

from __future__ import annotations

import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.export import TOLERANCE, write

from .step import Skipped, Step

# TensorRT takes minutes to build an engine, so it is the second choice.
PROVIDERS = {'CUDAExecutionProvider': dict(use_tf32='0'),
             'TensorrtExecutionProvider': {}}
ON_CPU = {'CPUExecutionProvider': {}}
TINY = dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1],
            mlp_ratios=[2, 2, 2, 2])
NAMES = ['stage1', 'stage2', 'stage3', 'stage4']
LEAST_ROUNDS, MOST_ROUNDS = 3, 50
SPARE = 1.  # seconds


class Session:
    """A session of onnxruntime that reads images where torch has them."""

    def __init__(self, path: Path, provider: str, options: dict) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            path, settings, providers=[(provider, options)])
        # It falls back to the CPU if a library is missing.
        self.provider = self.session.get_providers()[0]

    def bind(self, image: torch.Tensor) -> None:
        """Use an image (B, C, H, W) for all calls."""
        self.binding = self.session.io_binding()
        self.binding.bind_input(
            'image', image.device.type, image.device.index or 0, np.float32,
            tuple(image.shape), image.data_ptr())
        for name in NAMES:
            self.binding.bind_output(name, image.device.type)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def outputs(self) -> list[torch.Tensor]:
        return list(map(torch.from_numpy, self.binding.copy_outputs_to_cpu()))


def milliseconds(call) -> float:
    """Return the time of a call that waits for its result."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def compare(step: Step, provider: str, options: dict, folder: Path) -> None:
    """Record the error of the file, and its time and that of the network."""
    path = folder / 'maps.onnx'
    torch.manual_seed(0)
    net = CycleNet(TINY if step.miniature else 'b1', fork_last3=False).eval()
    # The file is checked below, on the GPU.
    write(net, path, NAMES, (64, 96) if step.miniature else (256, 320),
          check=False)
    net = net.to(step.device)
    session = Session(path, provider, options)
    if session.provider != provider:
        step.record(table=[f'onnxruntime cannot start {provider} and takes '
                           f'{session.provider}; nothing to measure'])
        return
    # Size and batch differ from those of the export.
    shape = (1, 3, 64, 64) if step.miniature else (8, 3, 512, 512)
    image = torch.rand(shape, device=step.device)
    session.bind(image)

    def in_torch():
        result = net(image)
        if step.device.type == 'cuda':
            torch.cuda.synchronize()
        return result

    expected = in_torch()
    session()
    error = max(float((a - b.cpu()).abs().max() / b.abs().max())
                for a, b in zip(session.outputs(), expected))
    times = dict(torch=[], onnx=[])
    while len(times['onnx']) < MOST_ROUNDS and (
            len(times['onnx']) < LEAST_ROUNDS or step.left() > SPARE):
        times['torch'].append(milliseconds(in_torch))
        times['onnx'].append(milliseconds(session))
    ours, onnx = map(statistics.median, times.values())
    size = 'x'.join(map(str, shape))
    table = [f'{provider}, {size}, fp32: off by {error:.1e}, {onnx:.2f} ms; '
             f'the network {ours:.2f} ms ({len(times["onnx"])} rounds)']
    # NaN must count as wrong, too.
    wrong = [] if error <= TOLERANCE else table
    step.record(table=table, wrong=wrong, provider=provider, error=error,
                ms=times)


@torch.no_grad()
def measure(step: Step) -> None:
    """Run the file where onnxruntime has a provider for the device."""
    missing = [name for name in ('onnx', 'onnxruntime')
               if find_spec(name) is None]
    if missing:
        raise Skipped(f'{" and ".join(missing)} cannot be imported')
    import onnxruntime

    found = onnxruntime.get_available_providers()
    wanted = ON_CPU if step.miniature else PROVIDERS
    usable = [name for name in wanted if name in found]
    if not usable:
        step.record(table=[f'onnxruntime has {", ".join(found)} and no '
                           'provider for this GPU; nothing to measure'])
        return
    # Rounding errors of TF32 would hide wrong operators.
    torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        compare(step, usable[0], wanted[usable[0]], Path(folder))
