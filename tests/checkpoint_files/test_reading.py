"""Files are read by their content, and without running it."""

import contextlib
import os
import pickle

import pytest
import torch
from helpers import hostile_files as hostile
from helpers import paddle_file
from helpers.child_process import run_in_child
from torch.testing import assert_close

from mmcyclemlp.checkpoint_files import read_checkpoint, read_file
from mmcyclemlp.errors import CheckpointError


def write(kind, state, path):
    if kind == 'safetensors':
        pytest.importorskip('safetensors.torch').save_file(state, path)
    elif kind == 'Paddle':
        path.write_bytes(paddle_file.dumps(paddle_file.pairs(state)))
    else:
        torch.save(state, path,
                   _use_new_zipfile_serialization=kind == 'PyTorch')


KINDS = ['PyTorch', 'old PyTorch', 'Paddle', 'safetensors']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', ['x.pth', 'x.pdparams', 'x.safetensors',
                                  'x'])
def test_the_content_tells_the_format(kind, name, state, tmp_path):
    write(kind, state, tmp_path / name)
    file = read_file(tmp_path / name)
    assert file.kind == kind.replace('old ', '')
    assert_close(dict(file.content), state, rtol=0, atol=0)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('cut', [0, 1, 9, 100, -40, -1])
def test_truncated_files(cut, kind, state, tmp_path):
    path = tmp_path / 'x.pth'
    write(kind, state, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match='x.pth is damaged or not'):
        read_checkpoint(path)


def test_a_page_of_html(tmp_path):
    (tmp_path / 'x.pth').write_text('<html>Not Found</html>')
    with pytest.raises(CheckpointError, match=(
            'x.pth is damaged or not a checkpoint: it does not begin as a')):
        read_checkpoint(tmp_path / 'x.pth')


def test_no_such_file(tmp_path):
    with pytest.raises(CheckpointError, match='no checkpoint file.*gone.pth'):
        read_checkpoint(tmp_path / 'gone.pth')


def test_a_url_is_downloaded_once(state, tmp_path, monkeypatch):
    calls = []

    def download(url, path, progress):
        calls.append(url)
        torch.save(state, path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    url = 'https://example.com/v0.1/CycleMLP_B1.pth'
    for _ in range(2):
        assert read_checkpoint(url).keys() == state.keys()
    assert calls == [url]


def test_a_url_that_cannot_be_reached(tmp_path, monkeypatch):
    def download(url, path, progress):
        raise OSError('no route')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(CheckpointError, match='no route.*save it as'):
        read_checkpoint('https://example.com/CycleMLP_B1.pth')


def wait_for_children():
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def read_safely(path):
    try:
        read_checkpoint(path)
    finally:
        wait_for_children()


def read_trustingly(path):
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes())
    wait_for_children()


@pytest.mark.parametrize('name', hostile.HOSTILE)
def test_hostile_files_are_refused(name, tmp_path):
    canary, path = tmp_path / 'canary', tmp_path / 'x.pth'
    path.write_bytes(hostile.HOSTILE[name](
        f'touch {canary}', hostile.small_checkpoint(), tmp_path))
    # In a child, as a file that is run may change classes.
    outcome = run_in_child(read_safely, path)
    if name in hostile.READ:
        assert not outcome.error, outcome
    else:
        assert outcome.error in ('CheckpointError', 'RefusedError'), outcome
        assert len(outcome.text.splitlines()) == 1
    assert not canary.exists()
    if name not in hostile.SLEEPERS:  # the file does run the command
        run_in_child(read_trustingly, path, memory=4 << 30)
        assert canary.exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_a_trusted_file_is_read_with_all_that_it_calls(zipped, state,
                                                       tmp_path):
    canary = tmp_path / 'canary'
    torch.save({**state, 'more': hostile.Call(open, str(canary), 'w')},
               tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=(
            r'asks for _?io\.open, .* your own, --trust-checkpoint \(in '
            r'init_cfg: trusted=True\) reads it all the same$')):
        read_checkpoint(tmp_path / 'x.pth')
    assert not canary.exists()
    content = read_checkpoint(tmp_path / 'x.pth', trusted=True)
    assert canary.exists()
    content.pop('more').close()
    assert_close(content, state, rtol=0, atol=0)


def test_trust_does_not_apply_to_files_of_paddle(tmp_path):
    canary, path = tmp_path / 'canary', tmp_path / 'x.pdparams'
    path.write_bytes(pickle.dumps(hostile.Call(open, str(canary), 'w'), 4))
    with pytest.raises(CheckpointError, match=r'as \.safetensors$'):
        read_checkpoint(path, trusted=True)
    assert not canary.exists()
