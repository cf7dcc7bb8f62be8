"""What the benchmark compares."""

from argparse import Namespace

import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.benchmark import cases
from mmcyclemlp.benchmark.calls import PEERS, Contender


def test_peers_stand_beside_the_first_arch():
    scope = Namespace(
        arch=['b1', 'b2'], size=[(64, 96)], batch=[1], dtype=['bf16'],
        device=torch.device('cpu'))
    first, other = sorted(cases.QUESTIONS['backbone'](scope),
                          key=lambda case: case.rank)
    assert (first.label, other.label) == (
        'b2 64x96 batch 1 bf16', 'b1 64x96 batch 1 bf16')
    for mode in ('eager', 'compiled'):
        peers = {Contender(name, 'peer').runs(mode) for name in PEERS}
        assert peers <= set(first.contenders)
        assert not peers & set(other.contenders)


def test_on_a_gpu_the_backends_are_named():
    scope = Namespace(
        arch=['b2'], size=[(64, 96)], batch=[1], dtype=['bf16'],
        device=torch.device('cuda'))
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
