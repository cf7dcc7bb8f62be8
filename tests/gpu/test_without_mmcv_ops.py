"""The replacements for mmcv's operators on a GPU machine are right."""

import subprocess
import sys

import pytest

CODE = '''
import torch
from tests.gpu.without_mmcv_ops import install
install()
from mmcv.ops import RoIAlign, batched_nms, nms
boxes = torch.tensor([[1., 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 10],
                      [0, 0, 10, 9]])
scores = torch.tensor([.8, .7, .9, .6])
assert nms(boxes, scores, .5)[1].tolist() == [2, 1]
labels = torch.tensor([0, 0, 1, 1])
assert batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=.5)
                   )[1].tolist() == [2, 0, 1]
# On a ramp, the mean of a bin is the value at its center.
ramp = torch.arange(16.).expand(1, 1, 16, 16).clone().requires_grad_()
bins = RoIAlign(2, 1., 2)(ramp, torch.tensor([[0., 2, 2, 10, 10]]))
assert torch.allclose(bins, torch.tensor([[3.5, 7.5]]).expand(2, 2)), bins
bins.sum().backward()
assert abs(float(ramp.grad.sum()) - 4) < 1e-5
from mmcv.ops import box_iou_rotated
try:
    box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
except RuntimeError as error:
    assert 'no compiled operators' in str(error), error
else:
    raise AssertionError('a missing operator was called')
'''


def test_replacements_are_right(root):
    pytest.importorskip('mmcv')
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'no torchvision: {error}')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', CODE],
                          cwd=root, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
