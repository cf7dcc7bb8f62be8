"""The command check_dataset on drawn data, and on real data if there is some.

    pytest --real-data DIR tests/commands/test_check_dataset.py
"""

import json
import shutil

import pytest
from helpers import planted_faults as planted
from helpers.spoiled_data import on_copy

from mmcyclemlp.commands import check_dataset
from mmcyclemlp.data_checks import DataCheck, Look
from mmcyclemlp.errors import UserError

CAMVID = ('Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol',
          'Fence', 'Car', 'Pedestrian', 'Bicyclist')


@pytest.fixture(scope='module')
def real_data(request):
    folder = request.config.getoption('real_data')
    if folder is None:
        pytest.skip('no --real-data DIR with minicoco and camvid')
    return folder


@pytest.fixture
def command(root, monkeypatch, tmp_path, capsys):
    """Run the command in this process: code, report and what it printed."""
    def run(data, *args):
        data.cfg.dump(tmp_path / 'mine.py')
        report = tmp_path / 'report.json'
        code = 0
        try:
            check_dataset.main([
                str(tmp_path / 'mine.py'), '--json', str(report),
                '--workers', '0', *args])
        except SystemExit as error:
            code = error.code
        return code, json.loads(report.read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def real(request, root, real_data, tmp_path):
    """A copy of minicoco or CamVid, laid out as the drawn data."""
    model, folder = request.node.callspec.params['model'], tmp_path / 'data'
    if model == 'mask_rcnn':
        mini = real_data / 'minicoco'
        (folder / 'annotations').mkdir(parents=True)
        for split in ('train', 'val'):
            shutil.copytree(mini / 'images' / f'{split}2017',
                            folder / 'images' / split)
            shutil.copy(
                mini / 'annotations' / f'person_keypoints_{split}2017.json',
                folder / 'annotations' / f'instances_{split}.json')
        data = on_copy(root, folder, model, ['person'])
    else:
        shutil.copytree(real_data / 'camvid', folder)
        data = on_copy(root, folder, model, CAMVID, void=11)
    yield data
    shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.parametrize('model', ['mask_rcnn', 'upernet'])
def test_real_data_is_clean(model, real, command):
    code, report, printed = command(real, '--workers', '2')
    assert code == 0 and '\n0 errors, ' in printed
    assert all(one['listed'] == one['opened']
               for one in report['images'].values())


@pytest.mark.soak
@pytest.mark.parametrize('model, name', [
    (model, name) for model, name in planted.FAULTS
    if planted.fault(model, name).needs == 1 or model == 'upernet'])
def test_fault_in_real_data(model, name, real, command, record_property):
    fault = planted.fault(model, name)
    where = fault.plant(real)
    code, report, printed = command(real)
    found = [one for one in report['findings']
             if (one['kind'], one['split']) == (fault.kind, fault.split)]
    assert len(found) == 1, report
    level = 'error' if fault.error else 'remark'
    assert found[0]['level'] == level
    assert where in ' '.join([found[0]['message'], *found[0]['names']])
    assert f'  {level}: {fault.kind} (' in printed
    assert code == any(one['level'] == 'error' for one in report['findings'])
    # For the table in the docs.
    quick = any((one.kind, one.split) == (fault.kind, fault.split)
                for one in DataCheck(real.cfg, ('train', 'val'),
                                     Look(32)).run())
    record_property('row', [model, name, level, quick, found[0]['message']])


@pytest.fixture
def drawn(root, drawn_data, tmp_path):
    folder = shutil.copytree(drawn_data, tmp_path / 'data')
    return on_copy(root, folder, 'mask_rcnn', (
        'disc', 'square', 'triangle', 'star', 'ring'))


def test_all_findings_are_reported(drawn, command):
    for name in ('missing image', 'no such image id'):
        planted.fault('mask_rcnn', name).plant(drawn)
    for path in drawn.images('val'):
        path.write_bytes(b'')
    val = [str(path) for path in drawn.images('val')]
    code, report, printed = command(drawn)
    assert code == 1
    assert report['images'] == dict(train=dict(listed=7, opened=7),
                                    val=dict(listed=4, opened=4))
    kinds = {(one['split'], one['kind'], one['level'])
             for one in report['findings']}
    assert {('train', 'annotation without image', 'remark'),
            ('train', 'missing image', 'error'),
            ('val', 'undecodable image', 'error')} <= kinds
    broken, = (one for one in report['findings'] if one['split'] == 'val'
               and one['level'] == 'error')
    assert broken['names'] == val
    assert printed.index('train: 7 images, 7 opened') < printed.index(
        'val: 4 images, 4 opened') < printed.index(
        '  error: undecodable image (4)')


def test_more_than_five_names(drawn, command):
    for path in drawn.images():
        path.unlink()
    code, report, printed = command(drawn, '--splits', 'train')
    assert code == 1 and '  error: missing image (8)' in printed
    assert printed.count('\n      ') == 6 and 'and 3 more' in printed


def test_by_command(root, drawn, run_cli, tmp_path):
    drawn.cfg.dump(tmp_path / 'mine.py')
    drawn.images()[0].write_bytes(b'')
    done = run_cli(
        'check_dataset', tmp_path / 'mine.py', '--splits', 'train',
        '--workers', '2', expect=1)
    assert '0000.jpg cannot be decoded (the file is empty): 1 of 8' in (
        done.stdout)
    assert '8/8' in done.stderr  # the progress bar
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('args, message', [
    (['--workers', '-1'], '--workers: -1 is less than 0'),
    (['--splits', 'test'], r'--splits: .*mine\.py has no test_dataloader'),
    (['--json', '/'], '--json: / cannot be written'),
])
def test_mistakes(args, message, drawn, command):
    drawn.cfg.test_dataloader = None
    with pytest.raises(UserError, match=message):
        command(drawn, *args)
