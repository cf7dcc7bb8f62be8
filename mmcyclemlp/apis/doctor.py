"""Check which libraries and backends work, and how to fix the others.

mm libraries are imported only where they are checked, so that the report
can name a library that is broken.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from typing import NamedTuple

import torch

from ..backbones import CycleNet
from ..errors import BackendUnavailable, first_line
from ..ops.functional import BACKENDS
from ..version import __version__

OK, NOTE, PROBLEM = 'ok', 'note', 'PROBLEM'
GPU = 'cuda'
# Import name -> distribution of OneDL, of OpenMMLab.
DISTRIBUTIONS = {
    **dict.fromkeys(('numpy', 'cv2', 'torchvision'), ()),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
FAMILIES = ('OneDL', 'OpenMMLab')
# Text in an error -> the remedy. These are errors of other libraries, which
# have no types that tell them apart; errors of this package are never
# recognized by their text.
REMEDIES = {
    'pkg_resources': "pip install 'setuptools<82'",
    'ftfy': 'pip install ftfy regex',
    'regex': 'pip install ftfy regex',
    'libGL': 'pip install opencv-python-headless in place of opencv-python',
    'nms does not exist': 'pip uninstall torchvision, which was built for '
                          'another torch',
    '_ext': 'mmcv was built without operators, or for another torch: '
            'reinstall it as described under "Installing" in the README',
    'NumPy 1.x': "pip install 'numpy<2'",
    'incompatible': 'install the versions that the extras of mmcyclemlp name',
    'C compiler': 'install gcc, which Triton needs',
}
# Errors of an mmcv that was not built for the GPU.
NOT_BUILT = ('no kernel image', 'invalid device function',
             'implementation for device')
# With images of 64x96, two stages run the kernel for three branches, and two
# the kernel for one. All stages have one width, so that few kernels are
# compiled.
TINY = dict(embed_dims=(64, ) * 4, depths=(1, ) * 4, mlp_ratios=(2, ) * 4)


class Result(NamedTuple):
    """One line of the report.

    Attributes:
        level (str): 'ok', 'note' or 'PROBLEM'.
        text (str): What was found, and the remedy.
    """

    level: str
    text: str


def examine() -> Iterator[Result]:
    """Run all checks.

    Yields:
        Result: As soon as it is known.
    """
    checks = {
        'machine': _machine(),
        'libraries': _libraries(),
        'operators of mmcv': _operators('cpu'),
        'backends': _backends('cpu'),
        'registries': _registries(),
        # Last, since an error on a GPU can make it unusable.
        'GPU': _gpu(),
    }
    for name, results in checks.items():
        try:
            yield from results
        except Exception as error:  # a broken library raises any type
            yield _broken(f'the check of {name} failed', _reason(error))


def _try_import(name):
    """Return the module, or None and the reason in one line."""
    try:
        # Without the output and the warnings of libraries.
        with warnings.catch_warnings(), contextlib.redirect_stdout(
                io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            return importlib.import_module(name), None
    except (Exception, SystemExit) as error:
        return None, _reason(error)


def _reason(error):
    return f'{type(error).__name__}: {first_line(error)}'


def _broken(what, reason):
    for sign, remedy in REMEDIES.items():
        if sign in reason:
            return Result(PROBLEM, f'{what}: {reason}. Remedy: {remedy}')
    return Result(PROBLEM, f'{what}: {reason}')


def _version(distribution):
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)


def _machine():
    yield Result(OK, f'mmcyclemlp {__version__}, Python '
                 f'{platform.python_version()}, {platform.system()} '
                 f'{platform.machine()}, {os.cpu_count()} cores')
    cuda, hip = torch.version.cuda, torch.version.hip
    built = f'CUDA {cuda}' if cuda else f'ROCm {hip}' if hip else 'the CPU'
    yield Result(OK, f'torch {torch.__version__}, built for {built}' + (
        '' if torch.cuda.is_available() else ', no GPU'))


def _libraries():
    families = {}
    for name, distributions in DISTRIBUTIONS.items():
        if find_spec(name) is None:
            yield Result(NOTE, f'{name} is not installed')
            continue
        found = [family for family, one in zip(FAMILIES, distributions)
                 if _version(one)]
        if len(found) > 1:
            yield Result(
                PROBLEM, f'{name}: both families are installed, and overwrite '
                'each other. Remedy: pip uninstall '
                f'{" ".join(distributions)}, then install one')
        module, reason = _try_import(name)
        if reason is not None:
            yield _broken(name, reason)
            continue
        text = f'{name} {getattr(module, "__version__", "(no version)")}'
        if distributions:
            family = '/'.join(found) or 'unknown family'
            families.setdefault(family, []).append(name)
            text += f' ({family})'
        yield Result(OK, text)
    if len(families) > 1:
        yield Result(PROBLEM, 'families are mixed: ' + '; '.join(
            f'{family}: {", ".join(names)}' for family, names in
            families.items()) + '. Remedy: install all of one family')
    if _version('mmengine') and find_spec('pkg_resources') is None:
        yield _broken('mmengine', 'it needs pkg_resources')
    if (_version('mmsegmentation') or '').startswith('1.2.'):
        for name in ('ftfy', 'regex'):
            if find_spec(name) is None:
                yield _broken('mmseg', f'it needs {name}')
    if _version('mmengine') == '0.10.7' and tuple(
            map(int, torch.__version__.split('.')[:2])) >= (2, 6):
        yield Result(NOTE, 'mmengine 0.10.7 cannot read its own checkpoints '
                     'on torch 2.6 and later; the commands of mmcyclemlp can')


def _operators(device):
    if find_spec('mmcv') is None or _try_import('mmcv')[1]:
        return  # _libraries reports this
    ops, reason = _try_import('mmcv.ops')
    if reason is None:
        reason = _wrong_nms(ops, device)
    elif device == GPU:
        return  # the check on the CPU reports this
    what = f'operators of mmcv on {device}'
    if reason is None:
        yield Result(OK, f'{what}: nms is correct')
    elif find_spec('mmdet') or find_spec('mmseg'):
        yield _broken(what, reason)
    else:
        yield Result(NOTE, f'{what}: {reason}; classifiers do not '
                     'need them')


def _wrong_nms(ops, device):
    """Return what is wrong with mmcv's non-maximum suppression, or None."""
    boxes = torch.tensor([[1., 1, 11, 11], [20, 20, 30, 30],
                          [0, 0, 10, 10], [0, 0, 10, 9]])
    scores = torch.tensor([0.8, 0.7, 0.9, 0.6])
    try:
        kept = ops.nms(boxes.to(device), scores.to(device), 0.5)[1].tolist()
    except Exception as error:
        reason = _reason(error)
        if device == GPU and any(sign in reason for sign in NOT_BUILT):
            return f'{reason}. {_how_to_build()}'
        return reason
    return None if kept == [2, 1] else (
        f'nms keeps boxes {kept} instead of [2, 1]. Remedy: reinstall mmcv '
        'for this torch')


def _how_to_build():
    """Return how to get an mmcv that has code for this GPU."""
    if torch.version.hip:
        return 'Remedy: build mmcv from source; it has no wheel for ROCm'
    capability = '{}.{}'.format(*torch.cuda.get_device_capability())
    name = next(filter(_version, DISTRIBUTIONS['mmcv']), 'onedl-mmcv')
    return (
        f"This GPU has compute capability {capability}. OneDL's wheels of "
        'mmcv 2.3.6 are for 7.5, 8.6, 8.9 and 9.0, from CUDA 12.8 on for '
        '12.0, and with torch 2.4.1 for 8.0. Remedy: build mmcv. This needs '
        'nvcc, ninja, setuptools 80 or 81, and torch 2.13 or earlier: '
        f'TORCH_CUDA_ARCH_LIST={capability} pip install --no-cache-dir '
        '--no-build-isolation --no-deps --force-reinstall '
        f'--no-binary {name} {name}=={_version(name) or "2.3.6"}')


@torch.no_grad()
def _backends(device):
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 96)
    plain = CycleNet(TINY, fork_last3=False, backend='plain').eval()
    expected = plain(image)
    half = [('triton', torch.float16)] if device == GPU else []
    for backend, dtype in [(one, torch.float32) for one in BACKENDS] + half:
        what = f'backend {backend} on {device}, {dtype}'
        net = CycleNet(TINY, fork_last3=False, backend=backend).eval()
        net.load_state_dict(plain.state_dict())
        try:
            net.to(device, dtype)
            net(image.to(device, dtype))
            start = time.perf_counter()
            maps = [one.cpu() for one in net(image.to(device, dtype))]
            took = time.perf_counter() - start
        except Exception as error:
            result = _broken(f'{what} cannot run', _reason(error))
            if backend == 'reference' or isinstance(error, BackendUnavailable):
                result = result._replace(level=NOTE)  # others can be used
            yield result
            continue
        off = float(torch.stack([
            (one - true).abs().max() / true.abs().max()
            for one, true in zip(maps, expected)]).max())
        right = off < (1e-4 if device == 'cpu' else 1e-2)  # TF32, fp16
        what += f': off by {off:.0e} of plain, {1e3 * took:.1f} ms'
        yield (Result(OK, what) if right else
               Result(PROBLEM, f'{what}. Please report this'))


def _registries():
    for name in ('mmdet', 'mmseg', 'mmpretrain'):
        if find_spec(name) is None or _try_import(name)[1]:
            continue  # _libraries reports this
        try:
            importlib.import_module(f'{name}.registry').MODELS.build(
                dict(type='CycleNet', arch=TINY, fork_last3=False))
            yield Result(OK, f'CycleNet is in the registry of {name}')
        except Exception as error:
            yield _broken(f'the registry of {name}', _reason(error))


def _gpu():
    if not torch.cuda.is_available():
        return
    count = torch.cuda.device_count()
    kinds = {'{} (compute capability {}.{})'.format(
        torch.cuda.get_device_name(index),
        *torch.cuda.get_device_capability(index)) for index in range(count)}
    yield Result(OK, f'{count} x {", ".join(sorted(kinds))}')
    if reason := _no_code() or _unusable():
        yield _broken(f'torch on {GPU}', reason)
        return
    for result in chain(_operators(GPU), _backends(GPU)):
        yield result
        if result.level != OK and _unusable():
            yield Result(NOTE, f'{GPU} cannot be used after this error; its '
                         'other checks are skipped')
            return


def _no_code():
    """Return why torch has no code for the GPU, or None if it has."""
    major, minor = torch.cuda.get_device_capability()
    gpu = 10 * major + minor
    archs = ' '.join(torch.cuda.get_arch_list())
    # Names of ROCm's architectures do not match.
    codes = re.findall(r'\b(sm|compute)_(\d+)', archs)
    # Code runs on later GPUs of the same generation, PTX on all later ones.
    if not codes or any(
            int(code) <= gpu and (kind == 'compute' or int(code[:-1]) == major)
            for kind, code in codes):
        return None
    build = ('for CUDA 12.8 or later' if gpu >= 100 else 'for CUDA 12.6' if
             gpu < 75 else 'that has code for it')
    return (f'it has no code for compute capability {major}.{minor}, but for '
            f'{archs}. Remedy: install a torch {build}')


def _unusable():
    """Return why the GPU cannot compute, or None if it can."""
    try:
        torch.ones(2, device=GPU).sum().item()
    except Exception as error:
        return _reason(error)
