"""What the benchmark compares."""

import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark import cases


def test_peers_stand_beside_the_first_arch():
    scope = cases.Scope(['b1', 'b2'], [(64, 96)], [1], ['bf16'],
                        torch.device('cpu'))
    first, other = sorted(cases.QUESTIONS['backbone'](scope),
                          key=lambda case: case.rank)
    assert (first.label, other.label) == (
        'b2 64x96 batch 1 bf16', 'b1 64x96 batch 1 bf16')
    for mode in ('eager', 'compiled'):
        peers = {cases.peer(name).runs(mode) for name in cases.PEERS}
        assert peers <= set(first.contenders)
        assert not peers & set(other.contenders)


def test_on_a_gpu_the_backends_are_named():
    scope = cases.Scope(['b2'], [(64, 96)], [1], ['bf16'],
                        torch.device('cuda'))
    for question in ('backbone', 'train'):
        case, = cases.QUESTIONS[question](scope)
        ours = [one for one in case.contenders if one.kind == 'ours']
        assert {one.backend for one in ours} == {
            'reference', 'torch', 'triton'}
        assert all(one.name == one.backend for one in ours
                   if one.backend != 'reference')


def test_stages_are_those_of_the_network():
    maps = CycleNet('b1')(torch.zeros(1, 3, 73, 101))
    assert list(cases.stages('b1', (73, 101))) == [
        tuple(y.shape[1:]) for y in maps]
