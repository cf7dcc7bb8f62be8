"""Tables are compact and complete."""

import pytest
import torch

from mmcyclemlp.benchmark.calls import (
    OFFICIAL,
    TEXTBOOK,
    TORCH,
    TRITON,
    Contender,
)
from mmcyclemlp.benchmark.cases import layer_case, net_case
from tests.gpu.dense import DENSE
from tests.gpu.tables import layer_table, left_out, net_table

GPU = torch.device('cuda')
SWIN = Contender('Swin-T', 'peer')


def fill(case, **known):
    """Fill the rows with milliseconds, or with a status and its reason."""
    for row in case.rows:
        value = known.get(row.contender.label.replace(' ', '_'), 'no time')
        if isinstance(value, str):
            row.status, _, row.reason = value.partition(': ')
        else:
            row.samples = [1e-3 * value * part for part in (.5, 1, 1, 9)]
    return case


@pytest.fixture
def nets():
    big = (800, 1344)
    several = [OFFICIAL, TRITON, TRITON.runs('graph'), TORCH,
               TRITON.runs('compiled'), SWIN, SWIN.runs('compiled')]
    return [
        fill(net_case(False, GPU, 'b2', big, 8, 'bf16', several), **{
            'official_route': 40., 'triton': 10., 'triton,_compiled': 8.,
            'triton,_CUDA_graph': 9., 'torch': 'wrong: off by 1',
            'Swin-T': 'failed: no luck', 'Swin-T,_compiled': 12.}),
        fill(net_case(False, GPU, 'b1', big, 8, 'bf16',
                      [OFFICIAL, TRITON, TORCH]),
             official_route=20., triton='out of memory: ')]


def test_networks_compared_with_the_official_route(nets):
    assert net_table(nets) == [
        'backbone 800x1344 batch 8, ms       eager       graph    compiled',
        'b2 official route              40.0 1.00x',
        'b2 triton                      10.0 4.00x  9.00 4.44x  8.00 5.00x',
        'b2 torch                            WRONG',
        'Swin-T                             failed              12.0 3.33x',
        'b1 official route              20.0 1.00x',
        'b1 triton                          memory',
        '- wrong, eager: off by 1 (b2 torch)',
        '- failed, eager: no luck (Swin-T)',
        '- out of memory, eager (b1 triton)',
        '- no time, eager (b1 torch)']


def test_training_step_with_its_memory():
    case = fill(net_case(True, GPU, 'b2', (512, 512), 8, 'bf16',
                         [OFFICIAL, TRITON]), official_route=40., triton=10.)
    case.rows[1].peak_bytes = 300 * 2**20
    assert net_table([case])[2].split() == [
        'b2', 'triton', '10.0', '4.00x', '300M']


def test_cases_without_any_time_are_named(nets):
    late = fill(net_case(False, GPU, 'b5', (64, 64), 1, 'bf16', [TRITON]))
    assert left_out([*nets, late]) == ['- no time: b5 64x64 batch 1 bf16']
    assert left_out(nets) == []
    assert net_table([late]) == []


def test_layers():
    columns = dict(triton=TRITON, dense=DENSE, autotune=TEXTBOOK.runs(
        'max-autotune'), official=OFFICIAL)
    known = dict(triton=.0123, official_route=.4, dense_conv='failed: oh')
    cases = [
        fill(layer_case('mixer', GPU, (n, 20, 33, 64), 'bf16', True,
                        list(columns.values())), **found)
        for n, found in ((1, known), (2, {}), (8, {}))]
    assert layer_table(cases, columns, 'NVIDIA H200') == [
        'mixer fwd+bwd, us  floor  triton  official',
        '1x64x20x33         0.121    12.3       400',
        '- failed, eager: oh (dense conv)',
        '- no time, max-autotune (textbook)',
        '- no time for 2 maps of the mixer fwd+bwd: 2x64x20x33, 8x64x20x33']
    assert layer_table(cases[:1], columns, None)[1].split() == [
        '1x64x20x33', '-', '12.3', '400']
    assert layer_table([], columns, None) == []
    assert layer_table(cases[1:], columns, None)[0].startswith(
        '- no time for 2 maps')
