"""The steps ``layers`` and ``backbones`` measure in the right order."""

import os

import pytest

from mmcyclemlp.benchmark.calls import OFFICIAL, TORCH, TRITON
from mmcyclemlp.ops.triton import tiles
from tests.gpu import backbones, layers
from tests.gpu.dense import DENSE
from tests.gpu.step import Step


@pytest.fixture
def step(tmp_path):
    return Step('a step', tmp_path / 'gpu.json', 100., miniature=False)


def place(jobs, found):
    """Return the places of jobs where ``found(case, contenders)`` is true."""
    return [number for number, job in enumerate(jobs) if found(
        job.case, [row.contender for row in job.rows])]


def test_each_contender_is_in_one_job(step):
    ranked = list(layers.cases(step))
    for cases, jobs in (backbones.plan(step), (
            [case for _, case in ranked], layers.jobs(ranked))):
        rows = [id(row) for job in jobs for row in job.rows]
        assert sorted(rows) == sorted(
            id(row) for case in cases for row in case.rows)


def test_the_main_comparison_comes_first(step):
    _, jobs = backbones.plan(step)

    def is_decisive(case, _):
        return case.settings['name'] == 'b2' and case.settings['size'] == (
            800, 1344) and case.settings['batch'] < 16

    first = place(jobs, lambda case, several: is_decisive(case, several) and {
        OFFICIAL, TRITON, TORCH} & set(several))
    assert first == list(range(9))
    rivals = place(jobs, lambda case, several: is_decisive(
        case, several) and any(
            one.name in ('Swin-T', 'ConvNeXt-T') for one in several))
    others = place(jobs, lambda *what: not is_decisive(*what))
    assert len(rivals) == 12 and max(rivals) < min(others)
    # A training step takes longest to compile, so it starts first.
    training = place(jobs[9:], lambda case, _: case.question == 'train')
    assert training[:3] == [0, 1, 2] and all(
        job.compiles for job in jobs[9:18])


def test_all_networks_are_compared_eager_and_compiled(step):
    cases, _ = backbones.plan(step)
    asked = {(case.question, case.settings['name'], case.settings['size'],
              case.settings['batch']) for case in cases}
    assert len(asked) == len(cases) == len(backbones.CASES)
    for case in cases:
        modes = {}
        for one in case.contenders:
            modes.setdefault(one.name, set()).add(one.mode)
        peers = {one.name for one in case.contenders if one.kind == 'peer'}
        assert len(peers) == (8 if case.settings['name'] == 'b2' else 0)
        for name in (*peers, 'triton'):
            assert {'eager', 'compiled'} <= modes[name]
        if case.settings['batch'] == 1:
            assert 'reduce-overhead' in modes['triton']
            assert all('graph' in modes[name] for name in (
                *peers, 'triton', 'torch'))
        if case.question == 'train':
            assert all('graph' not in found for found in modes.values())


def test_layers_of_the_large_image_come_first(step):
    ranked = list(layers.cases(step))
    jobs = layers.jobs(ranked)
    first = [job.case.settings['shape'] for job in jobs[:32]]
    assert set(first) == {(batch, *size) for batch in (1, 8) for size in (
        (200, 336, 64), (100, 168, 128))}
    assert not any(job.compiles for job in jobs[:32])
    assert all(job.compiles for job in jobs[32:48])
    # A kernel that crashes its process must not affect other contenders.
    for job in jobs:
        several = [row.contender for row in job.rows]
        assert len(several) == 1 or TRITON not in several
    for _, case in ranked:
        dense = DENSE in case.contenders
        assert dense == (case.question == 'op'
                         or case.settings['shape'][0] == 1)


def test_a_second_try_continues_after_a_crash(step, monkeypatch):
    measured = []

    class Pool:
        def __init__(self, *_):
            pass

        def measure(self, jobs, tell):
            measured.append(jobs)
            jobs[0].rows[0].samples = [1., 2., 3.]
            tell()

    monkeypatch.setattr(layers, 'Pool', Pool)
    backbones.measure(step)
    again = Step(step.name, step.path, 100., miniature=False)
    backbones.measure(again)
    first, second = measured
    assert [len(jobs) for jobs in measured] == [len(first), len(first) - 1]
    assert second[0].rows[0].contender == first[1].rows[0].contender
    case = again.figures['cases'][0]
    assert [row['samples'] for row in case['rows'][:2]] == [
        [1., 2., 3.], [1., 2., 3.]]
    assert '1.00x' in again.figures['table'][1]


def test_kernels_use_the_tiles_of_this_measurement(step, monkeypatch):
    known = {}
    monkeypatch.setattr(layers, 'MEASURED', known)
    monkeypatch.setattr(tiles, 'MEASURED', known)
    path = step.path
    layers.take_tiles(path)
    assert known == {}
    key = tiles.Key('y', 3, 64, 64, 1, 3, 'bfloat16')
    found = tiles.rule(key)._replace(m=32)
    Step('tiles', path, 100., False).record(
        capability=(9, 0), keys={key.name: dict(torch_us=3., tiles=[
            dict(tiles=found, us=2., proved=1e-3)])})
    layers.take_tiles(path)
    assert tiles.measured(key, (9, 0)).tiles == found


def test_output_of_processes_is_written_to_a_log(step, tmp_path):
    if os.fork() == 0:
        layers.begin(step.path, tmp_path / 'log', miniature=True)
        os.write(2, b'much')
        os._exit(0)
    os.wait()
    assert (tmp_path / 'log').read_text() == 'much'
