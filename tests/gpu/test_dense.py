"""The dense convolution computes the same as the op and the mixer."""

import pytest
import torch

from mmcyclemlp.benchmark.calls import TEXTBOOK
from tests.gpu.dense import DENSE, make_layer

CPU = torch.device('cpu')


@pytest.mark.parametrize('question', ['op', 'mixer'])
@pytest.mark.parametrize('backward', [False, True])
def test_dense_convolution(question, backward):
    """It equals the op on any image, and the mixer on the given image."""
    shape = (1, 6, 7, 12)
    y, = make_layer(question, CPU, shape, 'fp32', backward, DENSE)()
    expected, *_ = make_layer(question, CPU, shape, 'fp32', backward,
                              TEXTBOOK)()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
