"""All starts of a run make one curve, and several runs one picture."""

import json

import cv2
import pytest
from helpers.commands import error_of

from mmcyclemlp.commands.plot_curves import draw_curves, find_keys, read_run
from mmcyclemlp.errors import UserError

COMMAND = 'plot_curves'


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
    # Resumed from iteration 20.
    start(tmp_path, '20260102_000000', [
        train(30, 1.5), train(40, 1.), {'mIoU': 40., 'step': 40}])
    run = read_run(tmp_path)
    assert run.training['loss'] == [(10, 3.), (20, 2.), (30, 1.5), (40, 1.)]
    assert run.validation == {'mIoU': [(20, 30.), (40, 40.)]}
    assert find_keys(None, [run]) == ['loss', 'lr', 'mIoU']


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
    assert run.validation['coco/bbox_mAP'] == [(10, .1), (20, .2), (25, .3)]
    # Resumed from the end of the first epoch.
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
    with pytest.raises(UserError, match='line 1 of .*: .no record'):
        read_run(tmp_path)


def test_keys(tmp_path):
    start(tmp_path, '20260101_000000', [
        train(1, 2., **{'decode.loss_ce': 1., 'aux.loss_ce': 1.}),
        {'coco/bbox_mAP': .1, 'coco/bbox_mAP_50': .2, 'step': 1}])
    runs = [read_run(tmp_path)]
    assert find_keys(['bbox_mAP', 'loss'], runs) == ['coco/bbox_mAP', 'loss']
    with pytest.raises(UserError, match='2 keys match loss_ce. Give one of '
                       'aux.loss_ce, decode.loss_ce'):
        find_keys(['loss_ce'], runs)
    with pytest.raises(UserError, match='no keys match mIoU. .*loss, lr'):
        find_keys(['mIoU'], runs)


def test_curves(tmp_path):
    for name, level in (('a', 1.), ('b', 2.)):
        start(tmp_path / name, '20260101_000000', [
            train(1, 2 * level), train(2, level), {'mIoU': 9., 'step': 2}])
    runs = {name: read_run(tmp_path / name) for name in 'ab'}
    figure = draw_curves(runs, ['loss', 'lr', 'mIoU', 'loss'])
    loss, lr, miou, *_ = figure.axes
    assert [len(axis.lines) for axis in (loss, lr, miou)] == [2, 2, 2]
    # Two rows of three; the last two panels are empty.
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2
    assert list(loss.lines[0].get_ydata()) == [2., 1.]
    assert list(miou.lines[1].get_xdata()) == [2]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ['a', 'b']


def test_picture_of_two_runs(run_cli, tmp_path):
    for name in ('one', 'two'):
        start(tmp_path / name, '20261124_113430', [
            train(1, 3., epoch=1), train(2, 2., epoch=1),
            {'coco/bbox_mAP': .06, 'coco/bbox_mAP_50': .15, 'step': 1}])
    out = tmp_path / 'new' / 'curves.png'
    done = run_cli(COMMAND, tmp_path / 'one', tmp_path / 'two', '--out', out)
    assert done.stdout == f'{out}\n'
    # Three panels: loss, learning rate and mAP, and not mAP_50.
    assert cv2.imread(str(out)).shape[1] == 1200


@pytest.mark.parametrize('args, message', [
    (['gone'], 'there is no folder gone'),
    (['docs'], 'docs has no records of training'),
    (['docs', '--names', 'a', 'b'], '2 names for 1 runs'),
    (['docs', 'docs'], 'docs docs: several runs have one name'),
])
def test_mistakes(args, message, root, monkeypatch):
    monkeypatch.chdir(root)
    assert message in error_of(COMMAND, *args)
