"""What is installed, what does not work, and how to repair it.

mm libraries are imported only where they are checked, so that the report
can name a library that is broken.
"""

import contextlib
import importlib
import io
import os
import platform
import re
import time
import warnings
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from typing import NamedTuple

import torch

from ..backbones import CycleNet
from ..errors import BackendUnavailable
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
# What the text of an error contains -> the remedy.
REMEDIES = {
    'pkg_resources': "pip install 'setuptools<82'",
    'ftfy': 'pip install ftfy regex',
    'regex': 'pip install ftfy regex',
    'libGL': 'pip install opencv-python-headless in place of opencv-python',
    'nms does not exist': 'pip uninstall torchvision: it is of another torch',
    '_ext': 'mmcv was built without operators, or for another torch: '
            'reinstall it as "Installing" of the README says',
    'NumPy 1.x': "pip install 'numpy<2'",
    'incompatible': 'install the versions that the extras of mmcyclemlp name',
    'C compiler': 'install gcc, which Triton needs',
}
# Errors of an mmcv that was not built for the GPU.
NOT_BUILT = ('no kernel image', 'invalid device function',
             'implementation for device')
# With images of 64x96, two stages run the kernel of three branches, and two
# that of one. All stages have one width, so few kernels are compiled.
TINY = dict(embed_dims=(64, ) * 4, depths=(1, ) * 4, mlp_ratios=(2, ) * 4)


class Finding(NamedTuple):
    """One line of the report: 'ok', 'note' or 'PROBLEM', and its text."""

    level: str
    text: str


def examine():
    """Yield a :class:`Finding` for each result of each check."""
    checks = {
        'machine': _machine(),
        'libraries': _libraries(),
        'operators of mmcv': _operators('cpu'),
        'backends': _backends('cpu'),
        'registries': _registries(),
        # Last, since an error on a GPU can make it unusable.
        'GPU': _gpu(),
    }
    for name, findings in checks.items():
        try:
            yield from findings
        except Exception as error:  # whatever a broken library raises
            yield _broken(f'the check of {name} failed', _reason(error))


def _try_import(name):
    """The module, or why it cannot be imported, in one line."""
    try:
        # The report leaves out what libraries print and warn of.
        with warnings.catch_warnings(), contextlib.redirect_stdout(
                io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            return importlib.import_module(name), None
    except (Exception, SystemExit) as error:
        return None, _reason(error)


def _reason(error):
    line = str(error).strip().split('\n')[0]
    return f'{type(error).__name__}: {line}'


def _broken(what, reason):
    for sign, remedy in REMEDIES.items():
        if sign in reason:
            return Finding(PROBLEM, f'{what}: {reason}. Remedy: {remedy}')
    return Finding(PROBLEM, f'{what}: {reason}')


def _version(distribution):
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)


def _machine():
    yield Finding(OK, f'mmcyclemlp {__version__}, Python '
                  f'{platform.python_version()}, {platform.system()} '
                  f'{platform.machine()}, {os.cpu_count()} cores')
    cuda, hip = torch.version.cuda, torch.version.hip
    built = f'CUDA {cuda}' if cuda else f'ROCm {hip}' if hip else 'the CPU'
    yield Finding(OK, f'torch {torch.__version__}, built for {built}' + (
        '' if torch.cuda.is_available() else ', no GPU'))


def _libraries():
    families = {}
    for name, distributions in DISTRIBUTIONS.items():
        if find_spec(name) is None:
            yield Finding(NOTE, f'{name} is not installed')
            continue
        found = [family for family, one in zip(FAMILIES, distributions)
                 if _version(one)]
        if len(found) > 1:
            yield Finding(
                PROBLEM, f'{name}: both families are installed over each '
                f'other. Remedy: pip uninstall {" ".join(distributions)}, '
                'then install one')
        module, reason = _try_import(name)
        if reason is not None:
            yield _broken(name, reason)
            continue
        text = f'{name} {getattr(module, "__version__", "(no version)")}'
        if distributions:
            family = '/'.join(found) or 'unknown family'
            families.setdefault(family, []).append(name)
            text += f' ({family})'
        yield Finding(OK, text)
    if len(families) > 1:
        yield Finding(PROBLEM, 'families are mixed: ' + '; '.join(
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
        yield Finding(NOTE, 'mmengine 0.10.7 cannot read its own checkpoints '
                      'on torch 2.6 and later; the commands of mmcyclemlp can')


def _operators(device):
    if find_spec('mmcv') is None or _try_import('mmcv')[1]:
        return  # said above
    ops, reason = _try_import('mmcv.ops')
    if reason is None:
        reason = _wrong_nms(ops, device)
    elif device == GPU:
        return  # said of the CPU
    what = f'operators of mmcv on {device}'
    if reason is None:
        yield Finding(OK, f'{what}: nms is right')
    elif find_spec('mmdet') or find_spec('mmseg'):
        yield _broken(what, reason)
    else:
        yield Finding(NOTE, f'{what}: {reason}; classifiers do without')


def _wrong_nms(ops, device):
    """What is wrong with mmcv's non-maximum suppression, or None."""
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
        f'nms keeps boxes {kept} in place of [2, 1]. Remedy: reinstall mmcv '
        'for this torch')


def _how_to_build():
    """How to get an mmcv that has code for this GPU."""
    if torch.version.hip:
        return 'Remedy: build mmcv from source; no wheel of it is for ROCm'
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
            found = _broken(f'{what} cannot run', _reason(error))
            if backend == 'reference' or isinstance(error, BackendUnavailable):
                found = found._replace(level=NOTE)  # others can be used
            yield found
            continue
        off = float(torch.stack([
            (one - true).abs().max() / true.abs().max()
            for one, true in zip(maps, expected)]).max())
        right = off < (1e-4 if device == 'cpu' else 1e-2)  # TF32, fp16
        what += f': off by {off:.0e} of plain, {1e3 * took:.1f} ms'
        yield (Finding(OK, what) if right else
               Finding(PROBLEM, f'{what}. Please report this'))


def _registries():
    for name in ('mmdet', 'mmseg', 'mmpretrain'):
        if find_spec(name) is None or _try_import(name)[1]:
            continue  # said above
        try:
            importlib.import_module(f'{name}.registry').MODELS.build(
                dict(type='CycleNet', arch=TINY, fork_last3=False))
            yield Finding(OK, f'CycleNet is in the registry of {name}')
        except Exception as error:
            yield _broken(f'the registry of {name}', _reason(error))


def _gpu():
    if not torch.cuda.is_available():
        return
    count = torch.cuda.device_count()
    kinds = {'{} (compute capability {}.{})'.format(
        torch.cuda.get_device_name(index),
        *torch.cuda.get_device_capability(index)) for index in range(count)}
    yield Finding(OK, f'{count} x {", ".join(sorted(kinds))}')
    if reason := _no_code() or _unusable():
        yield _broken(f'torch on {GPU}', reason)
        return
    for finding in chain(_operators(GPU), _backends(GPU)):
        yield finding
        if finding.level != OK and _unusable():
            yield Finding(NOTE, f'{GPU} cannot be used after this error; its '
                          'other checks are left out')
            return


def _no_code():
    """Why torch cannot run on the GPU, or None if it has code for it."""
    major, minor = torch.cuda.get_device_capability()
    gpu = 10 * major + minor
    archs = ' '.join(torch.cuda.get_arch_list())
    # ROCm has other names, of which none is found here.
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
    """Why the GPU cannot compute, or None if it can."""
    try:
        torch.ones(2, device=GPU).sum().item()
    except Exception as error:
        return _reason(error)
