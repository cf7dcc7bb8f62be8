"""Records of all starts of a run make one curve."""

import json

import pytest

from mmcyclemlp.analysis.curves import (
    RecordsError,
    draw_curves,
    find_key,
    read_run,
    smoothed,
    usual_keys,
)


def start(work_dir, stamp, records):
    folder = work_dir / stamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        '\n'.join(map(json.dumps, records)) + '\n')
    return folder / 'scalars.json'


def train(iteration, loss, **more):
    return dict(loss=loss, lr=0.1, time=1., iter=iteration, step=iteration,
                **more)


def test_run_by_iterations(tmp_path):
    start(tmp_path, '20260101_000000', [
        train(10, 3.), train(20, 2.), {'mIoU': 30., 'step': 20},
        train(30, 1.)])
    # Taken up again from iteration 20.
    start(tmp_path, '20260102_000000', [
        train(30, 1.5), train(40, 1.), {'mIoU': 40., 'step': 40}])
    run = read_run(tmp_path, 'mine')
    assert run.name == 'mine'
    assert run.training['loss'] == [(10, 3.), (20, 2.), (30, 1.5), (40, 1.)]
    assert run.validation == {'mIoU': [(20, 30.), (40, 40.)]}
    assert usual_keys([run]) == ['loss', 'lr', 'mIoU']


def test_run_by_epochs(tmp_path):
    start(tmp_path, '20260101_000000', [
        train(5, 3., epoch=1), train(10, 2., epoch=1),
        {'coco/bbox_mAP': .1, 'step': 1}, train(15, 1., epoch=2),
        train(20, 1., epoch=2)])
    # The validation that was due when it was stopped comes first.
    start(tmp_path, '20260102_000000', [
        {'coco/bbox_mAP': .2, 'step': 2}, train(25, 1., epoch=3),
        {'coco/bbox_mAP': .3, 'step': 3}])
    run = read_run(tmp_path)
    assert run.name == tmp_path.name
    assert run.validation['coco/bbox_mAP'] == [(10, .1), (20, .2), (25, .3)]
    # As it is taken up again from the end of the first epoch.
    start(tmp_path, '20260103_000000', [train(15, 9., epoch=2)])
    run = read_run(tmp_path)
    assert run.training['loss'] == [(5, 3.), (10, 2.), (15, 9.)]
    assert run.validation['coco/bbox_mAP'] == [(10, .1)]


def test_damaged_records(tmp_path):
    path = start(tmp_path, '20260101_000000', [train(1, 2.), train(2, 1.)])
    whole = path.read_text()
    path.write_text(whole[:-20])  # killed while it wrote
    assert read_run(tmp_path).training['loss'] == [(1, 2.)]
    path.write_text('no record\n' + whole)
    with pytest.raises(RecordsError, match='line 1 of .*: .no record'):
        read_run(tmp_path)
    with pytest.raises(RecordsError, match='has no records of training'):
        read_run(tmp_path / '20260101_000000' / 'vis_data')


def test_keys(tmp_path):
    start(tmp_path, '20260101_000000', [
        train(1, 2., **{'decode.loss_ce': 1., 'aux.loss_ce': 1.}),
        {'coco/bbox_mAP': .1, 'coco/bbox_mAP_50': .2, 'step': 1}])
    runs = [read_run(tmp_path)]
    assert find_key('bbox_mAP', runs) == 'coco/bbox_mAP'
    assert find_key('loss', runs) == 'loss'
    with pytest.raises(RecordsError, match='loss_ce means 2 of them'):
        find_key('loss_ce', runs)
    with pytest.raises(RecordsError, match='mIoU is none of them: .*loss'):
        find_key('mIoU', runs)


def test_smoothed():
    assert smoothed([4., 2., 2.], 0) == [4., 2., 2.]
    # Weights 1/2 and 1, then 1/4, 1/2 and 1.
    assert smoothed([4., 1., 1.], 0.5) == pytest.approx(
        [4., (2 + 1) / 1.5, (1 + .5 + 1) / 1.75])


def test_drawing(tmp_path):
    for name, level in (('a', 1.), ('b', 2.)):
        start(tmp_path / name, '20260101_000000', [
            train(1, 2 * level), train(2, level), {'mIoU': 9., 'step': 2}])
    runs = [read_run(tmp_path / name) for name in 'ab']
    figure = draw_curves(runs, ['loss', 'lr', 'mIoU'], smooth=0.5)
    loss, lr, miou = figure.axes
    # Values faintly and their mean, of both runs.
    assert [len(axis.lines) for axis in (loss, lr, miou)] == [4, 2, 2]
    assert list(loss.lines[0].get_ydata()) == [2., 1.]
    assert list(loss.lines[3].get_ydata()) == pytest.approx([4., 8 / 3])
    assert list(miou.lines[1].get_xdata()) == [2]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ['a', 'b']
