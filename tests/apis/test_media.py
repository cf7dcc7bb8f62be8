"""Whatever a user points at is found once, named apart, and read whole."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from mmcyclemlp.apis.media import (
    UnreadableError,
    find_inputs,
    open_video,
    read_image,
)
from mmcyclemlp.errors import UserError

PICTURE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@pytest.fixture
def folder(tmp_path):
    for name in ('a/x.png', 'b/x.png', 'b/deep/y.bmp'):
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), PICTURE)
    (tmp_path / 'in' / 'notes.txt').write_text('no picture')
    film = cv2.VideoWriter(
        str(tmp_path / 'in' / 'film.mp4'),
        cv2.VideoWriter_fourcc(*'mp4v'), 5, (32, 16))
    for level in (0, 100, 200):
        film.write(np.full((16, 32, 3), level, np.uint8))
    film.release()
    return tmp_path / 'in'


def named(inputs):
    return [one.name for one in inputs]


def test_folder(folder):
    found = find_inputs([str(folder)])
    assert named(found) == ['a/x', 'deep/y', 'b/x', 'in/film']
    assert [one.is_video for one in found] == [False, False, False, True]


def test_names_are_as_short_as_tells_them_apart(folder):
    one, two = f'{folder}/a/x.png', f'{folder}/b/deep/y.bmp'
    assert named(find_inputs([one])) == ['x']
    assert named(find_inputs([one, two])) == ['x', 'y']
    # The same file by two ways is one input.
    assert named(find_inputs([one, f'{folder}/b/../a/x.png', two])) == [
        'x', 'y']
    cv2.imwrite(f'{folder}/a/x.jpg', PICTURE)
    assert named(find_inputs([f'{folder}/a'])) == ['x.jpg', 'x.png']
    urls = ['http://h:1/x.png?v=1', 'http://h:1/x.png?v=2']
    assert named(find_inputs(urls)) == ['x.png_v=1', 'x.png_v=2']


def test_patterns_and_what_was_written_before(folder):
    assert named(find_inputs([f'{folder}/*/x.*'])) == ['a/x', 'b/x']
    assert named(find_inputs([str(folder)], skip=f'{folder}/b')) == [
        'x', 'film']


def test_other_suffixes(folder):
    for name in ('a/one.npy', 'a/._x.png', 'b/two.NPY'):
        (folder / name).write_bytes(b'')
    # In a folder what the loader of a config reads.
    assert named(find_inputs([f'{folder}/a'])) == ['x']
    assert named(find_inputs([f'{folder}/a', f'{folder}/b'],
                             suffixes=('.npy', ))) == [
        'a/one', 'a/x', 'deep/y', 'b/two', 'b/x']
    # What is named is taken.
    assert named(find_inputs([f'{folder}/a/one.npy'])) == ['one']
    assert named(find_inputs([f'{folder}/*/*.npy'])) == ['one']


@pytest.mark.parametrize('given, message', [
    ('{}/none.jpg', 'there is no file or folder'),
    ('{}/*.webp', 'as a pattern it matches none'),
    ('{}/notes*', 'has no pictures or videos in it'),
])
def test_nothing_there(given, message, folder):
    with pytest.raises(UserError, match=message):
        find_inputs([given.format(folder)])


def test_read(folder):
    assert (read_image(f'{folder}/a/x.png') == PICTURE).all()
    with open_video(f'{folder}/film.mp4') as video:
        assert (video.fps, video.length) == (5, 3)
        levels = [frame.mean() for frame in video.frames]
    np.testing.assert_allclose(levels, [0, 100, 200], atol=5)


def test_unreadable(folder):
    content = (folder / 'a/x.png').read_bytes()
    for name, part in (('cut.png', content[:-20]), ('empty.png', b''),
                       ('text.png', b'no picture')):
        (folder / name).write_bytes(part)
        with pytest.raises(UnreadableError, match='cannot be read'):
            read_image(str(folder / name))
    with pytest.raises(UnreadableError, match='no video'), open_video(
            str(folder / 'notes.txt')):
        pass


@pytest.fixture
def served(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(
        ('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_url(served):
    film, picture = find_inputs([f'{served}/film.mp4', f'{served}/a/x.png'])
    assert (film.is_video, film.name, picture.name) == (True, 'film', 'x')
    assert (read_image(picture.source) == PICTURE).all()
    with open_video(film.source) as video:
        assert len(list(video.frames)) == 3
    with pytest.raises(UnreadableError, match='404'):
        read_image(f'{served}/none.jpg')
    with pytest.raises(UnreadableError, match='404'), open_video(
            f'{served}/none.mp4'):
        pass
