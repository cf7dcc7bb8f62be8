"""The command draws pictures, folders and videos, and names what it cannot."""

import json

import cv2
import numpy as np
import pytest
from helpers.commands import error_of, run_command
from helpers.tiny_configs import write_checkpoint, write_config

COMMAND = 'image_demo'


@pytest.fixture
def inputs(drawn_data, tmp_path):
    """Two pictures of one name, a damaged one and a film."""
    pictures = sorted((drawn_data / 'images' / 'val').glob('*.jpg'))
    for folder, path in zip(('one', 'two'), pictures):
        (tmp_path / 'in' / folder).mkdir(parents=True)
        (tmp_path / 'in' / folder / 'x.jpg').write_bytes(path.read_bytes())
    (tmp_path / 'in' / 'one' / 'cut.jpg').write_bytes(
        pictures[0].read_bytes()[:500])
    film = cv2.VideoWriter(
        str(tmp_path / 'in' / 'film.mp4'),
        cv2.VideoWriter_fourcc(*'mp4v'), 5, (128, 128))
    for path in pictures[:3]:
        film.write(cv2.imread(str(path)))
    film.release()
    return tmp_path / 'in'


def model(name, root, drawn_data, tmp_path):
    config = write_config(tmp_path, root, drawn_data, name)
    return config, write_checkpoint(config, tmp_path / f'{name}.pth')


def files(folder):
    return sorted(str(path.relative_to(folder))
                  for path in folder.rglob('*') if path.is_file())


def test_detector(inputs, root, drawn_data, run_cli, tmp_path):
    pytest.importorskip('mmdet')
    # Among the inputs, and none of them the next time.
    out = inputs / 'out'
    args = (*model('retinanet', root, drawn_data, tmp_path), inputs,
            '--out-dir', out, '--score-thr', '0', '--batch-size', '2',
            '--device', 'cpu')
    done = run_cli(COMMAND, *args, expect=1)
    # The others are done.
    assert f'3 of 4 done: {out}' in done.stdout
    assert 'in/one/cut.jpg: it cannot be read' in (
        done.stderr.splitlines()[-1])
    assert done.stderr.count('error: ') == 1
    assert files(out) == [
        'pictures/in/film.mp4', 'pictures/one/x.jpg', 'pictures/two/x.jpg',
        'predictions/in/film.jsonl', 'predictions/one/x.json',
        'predictions/two/x.json']
    one, two = (json.loads((out / f'predictions/{name}/x.json').read_text())
                for name in ('one', 'two'))
    assert one['input'] == str(inputs / 'one' / 'x.jpg')
    assert one['width'] == 128 and len(one['instances']) == 10
    assert one['instances'] != two['instances']
    assert set(one['instances'][0]) == {'class', 'label', 'score', 'box'}
    lines = [json.loads(line) for line in (
        out / 'predictions/in/film.jsonl').read_text().splitlines()]
    assert [(line['frame'], line['time']) for line in lines] == [
        (0, 0.), (1, .2), (2, .4)]
    assert all(len(line['instances']) == 10 for line in lines)
    film = cv2.VideoCapture(str(out / 'pictures/in/film.mp4'))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert film.get(cv2.CAP_PROP_FPS) == 5
    before = cv2.VideoCapture(str(inputs / 'film.mp4'))
    away = np.abs(film.read()[1].astype(int) - before.read()[1])
    before.release()
    # Ten boxes and their names, on a frame with its own colors.
    assert (away > 80).sum() > 1000 and np.median(away) < 15
    film.release()


def test_segmentor(inputs, root, drawn_data, tmp_path, capsys):
    pytest.importorskip('mmseg')
    out = tmp_path / 'out'
    assert run_command(
        COMMAND, *model('upernet', root, drawn_data, tmp_path),
        f'{inputs}/*/x.jpg', '--out-dir', out, '--palette', 'random',
        '--classes', *'abcdefg') == 0
    assert f'2 of 2 done: {out}' in capsys.readouterr().out
    assert files(out) == [f'{kind}/{name}/x.{suffix}' for kind, suffix in (
        ('labels', 'png'), ('pictures', 'jpg'), ('predictions', 'json'))
        for name in ('one', 'two')]
    record = json.loads((out / 'predictions/one/x.json').read_text())
    labels = cv2.imread(str(out / record['label_map']), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (128, 128) and labels.dtype == np.uint8
    assert record['fractions'] == {
        'abcdefg'[label]: pytest.approx((labels == label).mean(), abs=1e-6)
        for label in np.unique(labels)}


def test_names_that_differ_by_folder_or_suffix(root, drawn_data, tmp_path):
    pytest.importorskip('mmseg')
    source = sorted((drawn_data / 'images' / 'val').glob('*.jpg'))[0]
    for name in ('cam1/0.jpg', 'cam2/0.jpg', 'cam2/0.png'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'in' / name), cv2.imread(str(source)))
    assert run_command(
        COMMAND, *model('upernet', root, drawn_data, tmp_path),
        tmp_path / 'in', '--out-dir', tmp_path / 'out') == 0
    assert files(tmp_path / 'out' / 'labels') == [
        'cam1/0.jpg.png', 'cam2/0.jpg.png', 'cam2/0.png.png']
    assert len(files(tmp_path / 'out')) == 9


@pytest.mark.parametrize('args, message', [
    (['gone.py', 'x.pth', 'x.jpg'], 'there is no config file gone.py'),
    (['{}', 'gone.pth', 'x.jpg'], 'there is no checkpoint file gone.pth'),
    (['{}', 'LICENSE', 'gone.jpg'], 'there is no file or folder gone.jpg'),
    (['{}', 'LICENSE', 'LICENSE', '--out-dir', 'LICENSE'],
     'LICENSE cannot be written'),
    (['{}', 'LICENSE', 'LICENSE', '--device', 'nope', '--out-dir', '{tmp}'],
     '--device nope: '),
    (['{}', 'LICENSE', 'LICENSE', '--device', 'cpu', '--out-dir', '{tmp}'],
     'LICENSE is damaged or not a checkpoint'),
    (['{}', 'LICENSE', 'x.jpg', '--score-thr', '2'], '--score-thr: 2.0'),
    (['{}', 'LICENSE', 'x.jpg', '--batch-size', '0'], '--batch-size: 0'),
])
def test_mistakes(args, message, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    args = [arg.format('fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512',
                       tmp=tmp_path) for arg in args]
    assert message in error_of(COMMAND, *args)
