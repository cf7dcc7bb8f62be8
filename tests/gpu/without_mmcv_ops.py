"""Run a command of the project where mmcv has no compiled operators.

    python -m tests.gpu.without_mmcv_ops [--wait SCOPE] tools/train.py CONFIG

With --wait it imports mmdet or mmseg and then waits for a line on standard
input. Without one it ends.

The GPU machine has no mmcv that was compiled for its torch. The operators
that RetinaNet, Mask R-CNN and UperNet call are put in place for this process:
torchvision's NMS and RoIAlign, and mmdet's Python focal loss. The package
itself does no such thing. With compiled operators nothing is changed.
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
    """Has any function that mmcv asks for on import."""

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
        """Indices (K, ) of the boxes (N, 4) to keep, best score first."""
        from torchvision.ops import nms

        if offset:
            raise RuntimeError('nms: torchvision has no offset')
        return nms(boxes.float(), scores.float(), iou_threshold)


def roi_align(features: Tensor, rois: Tensor, output_size,
              spatial_scale: float = 1., sampling_ratio: int = 0,
              pool_mode: str = 'avg', aligned: bool = True) -> Tensor:
    """torchvision's RoIAlign, called as mmcv's.

    features (B, C, H, W), rois (N, 5), result (N, C, *output_size).
    """
    from torchvision.ops import roi_align

    if pool_mode != 'avg':
        raise RuntimeError(f'roi_align: torchvision has no {pool_mode=}')
    return roi_align(features, rois, output_size, spatial_scale,
                     sampling_ratio, aligned)


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float,
                       alpha: float, weight: None, reduction: str) -> Tensor:
    """mmdet's Python focal loss, called as mmcv's operator.

    logits (N, C), labels (N, ) with C for the background, result (N, C).
    """
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = logits.shape[1]
    one_hot = torch.nn.functional.one_hot(labels, classes + 1)[:, :classes]
    return py_sigmoid_focal_loss(logits, one_hot, gamma=gamma, alpha=alpha,
                                 reduction=reduction)


def is_compiled() -> bool:
    """Whether mmcv has its operators."""
    return importlib.util.find_spec(EXTENSION) is not None


def install() -> None:
    """Put the replacements in place, before mmdet imports them."""
    extension = _Extension(EXTENSION)
    # To look up a module without a spec is an error.
    extension.__spec__ = ModuleSpec(EXTENSION, None)
    sys.modules[EXTENSION] = extension
    operators = importlib.import_module('mmcv.ops')
    operators.sigmoid_focal_loss = sigmoid_focal_loss
    operators.roi_align = roi_align
    # The name of the module in the package is the one of the function.
    sys.modules['mmcv.ops.roi_align'].roi_align = roi_align


def wait(scope: str) -> None:
    """Import what takes seconds, and wait until it is needed."""
    importlib.import_module('mmcyclemlp')
    # Evaluation and visualization come with these.
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
