"""Curves of what mmengine records, of one run or several on one picture."""

import json

import cv2
import pytest
from helpers.commands import error_of

COMMAND = 'plot_curves'


def test_two_runs(run_cli, tmp_path):
    for name in ('one', 'two'):
        # As tools/train.py leaves it: a folder for each start.
        for stamp, steps in (('20261124_113430', (1, 2)),
                             ('20261124_113456', (3, 4))):
            folder = tmp_path / name / stamp / 'vis_data'
            folder.mkdir(parents=True)
            records = [dict(lr=1e-3, loss=3. / step, time=.2, epoch=step // 2,
                            iter=step, step=step) for step in steps]
            records.append({'coco/bbox_mAP': .06, 'coco/bbox_mAP_50': .15,
                            'time': .02, 'step': steps[1] // 2})
            (folder / 'scalars.json').write_text(
                '\n'.join(map(json.dumps, records)))
    out = tmp_path / 'new' / 'curves.png'
    done = run_cli(COMMAND, tmp_path / 'one', tmp_path / 'two',
                      '--smooth', '0.5', '--out', out)
    assert done.stdout == f'{out}\n'
    # Three panels: loss, learning rate and mAP, and not mAP_50.
    assert cv2.imread(str(out)).shape[1] == 1200
    listed = run_cli(COMMAND, tmp_path / 'one', '--list').stdout.split()
    assert listed == ['coco/bbox_mAP', 'coco/bbox_mAP_50', 'loss', 'lr']


@pytest.mark.parametrize('args, message', [
    (['gone'], 'there is no folder gone'),
    (['docs'], 'docs has no records of training'),
    (['docs', '--smooth', '1'], '--smooth: 1.0 is not within 0 and 1'),
    (['docs', '--names', 'a', 'b'], '2 names for 1 runs'),
])
def test_mistakes(args, message, root, monkeypatch):
    monkeypatch.chdir(root)
    assert message in error_of(COMMAND, *args)
