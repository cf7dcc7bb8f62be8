"""Adopted measurements decide what the default backend runs."""

import importlib.util
import json

import pytest

from mmcyclemlp.ops.triton import tiles

adopt = pytest.importorskip('tests.gpu.adopt')
NAMES = [f'{direction}-3-64-64-1x3-bfloat16'
         for direction in ('y', 'dx', 'dweight')]


@pytest.fixture
def measured(tmp_path):
    """Return a repository to write to, and a measurement on a GPU."""
    folder = tmp_path / 'mmcyclemlp' / 'ops' / 'triton'
    folder.mkdir(parents=True)
    (tmp_path / 'docs').mkdir()
    timed = [dict(tiles=[64, 64, 32, 8, 4, 1, False], us=9.0),
             dict(tiles=[128, 64, 32, 8, 8, 3, False], us=7.123,
                  proved=1e-3),
             dict(tiles=[128, 64, 64, 8, 8, 3, False], us=7.5),
             dict(tiles=[32, 64, 64, 8, 8, 3, False],
                  failed='wrong: off by 1.0e+00')]
    return tmp_path, dict(
        machine=dict(gpu='NVIDIA H200', date='2026-11-27T12:00+00:00',
                     torch='2.11.0', triton='3.6.0'),
        steps=dict(
            correctness=dict(status='done', figures=dict(passed=True)),
            tiles=dict(status='cut short', figures=dict(
                capability=[9, 0],
                keys={name: dict(tiles=timed, torch_us=20.)
                      for name in NAMES}))))


def test_the_default_uses_adopted_tiles(measured, monkeypatch):
    root, known = measured
    (root / 'gpu.json').write_text(json.dumps(known))
    adopt.adopt(root / 'gpu.json', root)
    path = root / 'mmcyclemlp' / 'ops' / 'triton' / 'measured.py'
    assert max(map(len, path.read_text().split('\n'))) < 80
    spec = importlib.util.spec_from_file_location('measured', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert 'NVIDIA H200, 2026-11-27, torch 2.11.0' in module.__doc__
    monkeypatch.setattr(tiles, 'MEASURED', module.MEASURED)
    key = tiles.Key('y', 3, 64, 64, 1, 3, 'bfloat16')
    assert key.name == NAMES[0]
    assert tiles.measured(key, (9, 0)) == (
        (128, 64, 32, 8, 8, 3, False), 7.12, 20.)
    import torch

    shape = 3, 64, 64, (1, 3), torch.bfloat16
    assert tiles.is_measured_faster(*shape, (9, 0))
    assert not tiles.is_measured_faster(*shape, (8, 9))
    kept, = (root / 'docs' / 'figures').iterdir()
    assert kept.name == 'NVIDIA-H200-2026-11-27.json'
    assert json.loads(kept.read_text()) == known


@pytest.mark.parametrize('spoil, message', [
    (lambda known: known['machine'].pop('gpu'), 'not measured on a GPU'),
    (lambda known: known['steps']['correctness']['figures'].update(
        passed=False), 'have not passed'),
    (lambda known: known['steps']['correctness'].pop('figures'),
     'have not passed'),
    (lambda known: known['steps'].pop('correctness'), 'have not passed'),
    (lambda known: known['steps']['tiles']['figures'].update(keys={}),
     'no tiles'),
    (lambda known: [one.pop('proved', None) for of_key in
                    known['steps']['tiles']['figures']['keys'].values()
                    for one in of_key['tiles']], 'no tiles'),
    (lambda known: known['steps'].pop('tiles'), 'no tiles'),
], ids=['cpu', 'wrong', 'cut-short', 'unchecked', 'untimed', 'unproved',
        'no-tiles'])
def test_unproved_measurements_are_refused(measured, spoil, message, capsys):
    root, known = measured
    spoil(known)
    (root / 'gpu.json').write_text(json.dumps(known))
    with pytest.raises(ValueError, match=message):
        adopt.adopt(root / 'gpu.json', root)
    assert list((root / 'docs').iterdir()) == []
    assert adopt.main([str(root / 'gpu.json')]) == 1
    assert message in capsys.readouterr().err
