"""What the benchmark says of what it measured."""

from argparse import Namespace

import pytest
import torch

from mmcyclemlp.benchmark.cases import QUESTIONS
from mmcyclemlp.benchmark.report import floor


@pytest.mark.parametrize('question, backward, dtype, nbytes, operations', [
    # Passes over the map, then weights.
    ('op', False, 'bf16', 2 * (2 * 67200 * 64 + 64**2), 2 * 67200 * 64**2),
    ('op', True, 'bf16', 2 * (5 * 67200 * 64 + 3 * 64**2),
     6 * 67200 * 64**2),
    ('mixer', True, 'fp32', 4 * (6 * 67200 * 64 + 3 * 3 * 64**2),
     6 * 7 / 3 * 67200 * 64**2),
])
def test_floor_on_a_known_gpu(question, backward, dtype, nbytes, operations):
    gpu = torch.device('cuda')
    rate = 67e12 if dtype == 'fp32' else 989e12
    scope = Namespace(arch=['b2'], size=[(800, 1344)], batch=[1],
                      dtype=[dtype], device=gpu)
    case = next(case for case in QUESTIONS[question](scope)
                if case.settings['backward'] == backward)
    assert case.traffic == pytest.approx((nbytes, operations))
    for name, bandwidth in (('NVIDIA H100 80GB HBM3', 3.35e12),
                            ('NVIDIA H200', 4.8e12)):
        assert floor(case, name) == pytest.approx(max(
            nbytes / bandwidth, operations / rate))
    assert floor(case, 'NVIDIA H100 PCIe') is None
    assert floor(case, None) is None
