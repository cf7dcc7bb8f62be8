"""Run a command of the project where mmcv has no compiled operators.

    python -m tests.gpu.without_mmcv_ops [--wait SCOPE] tools/train.py CONFIG

With --wait it imports mmdet or mmseg, and then waits for a line on standard
input. If the input ends without a line, so does the process.

The GPU machine has no mmcv that was compiled for its torch. This program
replaces the operators that RetinaNet, Mask R-CNN and UperNet call, in its own
process: by torchvision's NMS and RoIAlign, and mmdet's Python focal loss. The
package itself replaces nothing. If mmcv has compiled operators, this program
does not replace them.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import Tensor

EXTENSION = 'mmcv._ext'


class _Extension(ModuleType):
    """A module that has any function that mmcv looks up on import."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise RuntimeError(f'{name}: mmcv has no compiled operators here, '
                               'and the test harness has no replacement')

        return missing

    @staticmethod
    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float,
            offset: int) -> Tensor:
        """Return the indices (K, ) of kept boxes (N, 4), best score first."""
        from torchvision.ops import nms

        if offset:
            raise RuntimeError('nms: torchvision has no offset')
        return nms(boxes.float(), scores.float(), iou_threshold)


def roi_align(features: Tensor, rois: Tensor, output_size,
              spatial_scale: float = 1., sampling_ratio: int = 0,
              pool_mode: str = 'avg', aligned: bool = True) -> Tensor:
    """torchvision's RoIAlign with the arguments of mmcv's.

    features (B, C, H, W), rois (N, 5), result (N, C, *output_size).
    """
    from torchvision.ops import roi_align

    if pool_mode != 'avg':
        raise RuntimeError(f'roi_align: torchvision has no {pool_mode=}')
    return roi_align(features, rois, output_size, spatial_scale,
                     sampling_ratio, aligned)


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float,
                       alpha: float, weight: None, reduction: str) -> Tensor:
    """mmdet's Python focal loss with the arguments of mmcv's operator.

    logits (N, C), labels (N, ) with C for the background, result (N, C).
    """
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = logits.shape[1]
    one_hot = torch.nn.functional.one_hot(labels, classes + 1)[:, :classes]
    return py_sigmoid_focal_loss(logits, one_hot, gamma=gamma, alpha=alpha,
                                 reduction=reduction)


def is_compiled() -> bool:
    """Check whether mmcv has its compiled operators."""
    return importlib.util.find_spec(EXTENSION) is not None


def install() -> None:
    """Install the replacements, before mmdet imports the operators."""
    extension = _Extension(EXTENSION)
    # find_spec fails for a module that is loaded without a spec.
    extension.__spec__ = ModuleSpec(EXTENSION, None)
    sys.modules[EXTENSION] = extension
    operators = importlib.import_module('mmcv.ops')
    operators.sigmoid_focal_loss = sigmoid_focal_loss
    operators.roi_align = roi_align
    # Module and function have the same name.
    sys.modules['mmcv.ops.roi_align'].roi_align = roi_align


def wait(scope: str) -> None:
    """Import what takes seconds, and wait for the signal to start."""
    importlib.import_module('mmcyclemlp')
    # These import evaluation and visualization.
    for part in ('datasets', 'engine', 'models'):
        importlib.import_module(f'{scope}.{part}')
    if not sys.stdin.readline():
        sys.exit('nobody waits for this command')


def main() -> None:
    del sys.argv[0]
    if not is_compiled():
        install()
    if sys.argv[0] == '--wait':
        wait(sys.argv[1])
        del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
