"""What an installation has, what is wrong with it, and the remedy.

Imports nothing of mm until it is looked at, so that what is broken can be
said.
"""

import contextlib
import importlib
import io
import os
import platform
import time
import warnings
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

import torch

OK, NOTE, PROBLEM = 'ok', 'note', 'PROBLEM'
# Import name -> distribution of OneDL, of OpenMMLab.
DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
FAMILIES = ('OneDL', 'OpenMMLab')
# What an error of an import contains -> the remedy.
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
}
TINY = dict(embed_dims=(8, 12, 16, 24), depths=(1, 1, 1, 1),
            mlp_ratios=(2, 2, 2, 2))


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level (str): 'ok', 'note' or 'PROBLEM'.
        text (str): What was found, and the remedy.
    """

    level: str
    text: str


def examine():
    """Look at everything, in the order in which one thing needs another.

    Returns:
        Iterator[Finding]: The lines of the report.
    """
    yield from _machine()
    yield from _libraries()
    yield from _backends()
    yield from _registries()


def _try_import(name):
    """The module, or why it cannot be imported, in one line."""
    try:
        # Warnings and remarks of libraries are not the report's.
        with warnings.catch_warnings(), contextlib.redirect_stdout(
                io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            return importlib.import_module(name), None
    except Exception as error:  # whatever a broken library raises
        return None, _first_line(error)


def _first_line(error):
    line = str(error).strip().split('\n')[0]
    return f'{type(error).__name__}: {line}'


def _broken(what, reason):
    for sign, remedy in REMEDIES.items():
        if sign in reason:
            return Finding(PROBLEM, f'{what}: {reason}. Remedy: {remedy}')
    return Finding(PROBLEM, f'{what}: {reason}')


def _version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _machine():
    from .. import __version__

    yield Finding(OK, f'mmcyclemlp {__version__}, Python '
                  f'{platform.python_version()}, {platform.system()} '
                  f'{platform.machine()}, {os.cpu_count()} cores')
    text = f'torch {torch.__version__}'
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i)
                 for i in range(torch.cuda.device_count())}
        yield Finding(OK, f'{text}, CUDA {torch.version.cuda}, '
                      f'{torch.cuda.device_count()} x {", ".join(names)}')
    else:
        built = (f'built for CUDA {torch.version.cuda}, no GPU'
                 if torch.version.cuda else 'for the CPU')
        yield Finding(OK, f'{text}, {built}')
    for name in ('numpy', 'cv2', 'torchvision'):
        if find_spec(name) is None:
            yield Finding(NOTE, f'{name} is not installed')
            continue
        module, reason = _try_import(name)
        yield (_broken(name, reason) if reason else
               Finding(OK, f'{name} {module.__version__}'))


def _libraries():
    families = {}
    for name, distributions in DISTRIBUTIONS.items():
        if find_spec(name) is None:
            yield Finding(NOTE, f'{name} is not installed')
            continue
        found = {family: _version(one) for family, one in zip(
            FAMILIES, distributions) if _version(one)}
        if len(found) > 1:
            yield Finding(
                PROBLEM, f'{name}: of both families, over each other. '
                f'Remedy: pip uninstall {" ".join(distributions)}, and '
                'install one')
        module, reason = _try_import(name)
        if reason is not None:
            yield _broken(name, reason)
            continue
        family = '/'.join(found) or 'unknown family'
        families.setdefault(family, []).append(name)
        yield Finding(OK, f'{name} {module.__version__} ({family})')
        if name == 'mmcv':
            _, reason = _try_import('mmcv.ops')
            if reason and (find_spec('mmdet') or find_spec('mmseg')):
                yield _broken('operators of mmcv', reason)
            elif reason:
                yield Finding(NOTE, f'operators of mmcv: {reason}; '
                              'classifiers do without')
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
                      'on torch 2.6 and later: resume and test by the '
                      'commands of mmcyclemlp, or take torch 2.1')


def _backends():
    from ..backbones import CycleNet
    from ..ops.functional import BACKENDS

    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 96)
    plain = CycleNet(TINY, fork_last3=False, backend='plain').eval()
    with torch.no_grad():
        expected = plain(image)
    devices = ['cpu'] + ['cuda'] * torch.cuda.is_available()
    for device in devices:
        for backend in BACKENDS:
            what = f'backend {backend} on {device}'
            net = CycleNet(TINY, fork_last3=False, backend=backend).eval()
            net.load_state_dict(plain.state_dict())
            try:
                with torch.no_grad():
                    net.to(device)
                    net(image.to(device))
                    start = time.perf_counter()
                    maps = [one.cpu() for one in net(image.to(device))]
                    took = time.perf_counter() - start
            except Exception as error:  # what cannot run says why
                usual = backend in ('triton', 'reference')
                yield Finding(NOTE if usual else PROBLEM,
                              f'{what} cannot run: {_first_line(error)}')
                continue
            error = max(float((one - true).abs().max() / true.abs().max())
                        for one, true in zip(maps, expected))
            right = error < (1e-4 if device == 'cpu' else 1e-2)  # TF32
            yield Finding(OK if right else PROBLEM, f'{what}: off by '
                          f'{error:.0e} of plain, {1e3 * took:.1f} ms'
                          + ('' if right else '. Please report this'))


def _registries():
    for name in ('mmdet', 'mmseg', 'mmpretrain'):
        if find_spec(name) is None or _try_import(name)[1]:
            continue  # said above
        registry, reason = _try_import(f'{name}.registry')
        if reason is None:
            try:
                registry.MODELS.build(dict(
                    type='CycleNet', arch=TINY, fork_last3=False))
            except Exception as error:  # also of what it imports
                reason = _first_line(error)
        yield (_broken(f'CycleNet in the registry of {name}', reason)
               if reason else
               Finding(OK, f'CycleNet is in the registry of {name}'))
