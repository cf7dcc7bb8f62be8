"""Files are written completely or not at all."""

import os
import sys

import pytest
from torch.testing import assert_close

from mmcyclemlp.checkpoint_files import (
    check_target,
    read_checkpoint,
    write_checkpoint,
)
from mmcyclemlp.errors import CheckpointError


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_written_file_is_read(name, state, tmp_path):
    pytest.importorskip('safetensors')
    write_checkpoint(state, tmp_path / name)
    assert_close(read_checkpoint(tmp_path / name), state, rtol=0, atol=0)
    assert os.listdir(tmp_path) == [name]


def test_targets_that_are_refused(tmp_path, monkeypatch):
    source = tmp_path / 'source.pth'
    source.write_bytes(b'source')
    (tmp_path / 'there.pth').write_bytes(b'there')
    (tmp_path / 'folder.pth').mkdir()
    (tmp_path / 'link.pth').symlink_to(source)
    (tmp_path / 'dangling.pth').symlink_to(tmp_path / 'gone.pth')
    monkeypatch.chdir(tmp_path)
    for target, message in [
            ('x.onnx', 'x.onnx: the ending.*one of .pth, .safetensors'),
            ('gone/x.pth', 'x.pth: there is no folder gone'),
            ('source.pth/x.pth', 'there is no folder source.pth'),
            ('folder.pth', 'folder.pth is a folder'),
            ('dangling.pth', 'dangling.pth exists'),
            ('there.pth', 'there.pth exists.*--force')]:
        with pytest.raises(CheckpointError, match=message):
            check_target(target, source)
    check_target('there.pth', source, force=True)
    for target in ('source.pth', 'link.pth', './folder.pth/../source.pth'):
        with pytest.raises(CheckpointError, match='is the file to read'):
            check_target(target, source, force=True)


def fail(*args):
    raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('where', ['os.fsync', 'os.replace'])
@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_failure_keeps_the_existing_file(where, name, state, tmp_path,
                                           monkeypatch):
    pytest.importorskip('safetensors')
    (tmp_path / name).write_bytes(b'before')
    monkeypatch.setattr(where, fail)
    with pytest.raises(CheckpointError, match=(
            f'{name} cannot be written: No space left on device')):
        write_checkpoint(state, tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b'before'


@pytest.mark.parametrize('change', [
    lambda state: state.pop('bias'),
    lambda state: state['bias'].neg_(),
    lambda state: state['offset'].neg_(),  # -0 for 0
    lambda state: state.update(half=state['half'].float()),
    lambda state: state.update(bias=state['bias'][None]),
])
def test_a_file_that_reads_back_differently_is_not_kept(
        change, state, tmp_path, monkeypatch):
    def read(path):
        content = read_checkpoint(path)
        change(content)
        return content

    monkeypatch.setattr(
        sys.modules['mmcyclemlp.checkpoint_files.writing'],
        'read_checkpoint', read)
    with pytest.raises(CheckpointError, match='returns other content'):
        write_checkpoint(state, tmp_path / 'x.pth')
    assert not os.listdir(tmp_path)


def test_a_disk_that_fills_up(run_python, tmp_path):
    pytest.importorskip('safetensors')
    code = """
import resource, sys, torch
from mmcyclemlp.checkpoint_files import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for path in sys.argv[1:]:
    try:
        write_checkpoint({'a': torch.ones(100000)}, path)
    except Exception as error:
        print(type(error).__name__, error)
"""
    paths = [tmp_path / 'x.pth', tmp_path / 'x.safetensors']
    done = run_python('-c', code, *paths)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for path, line in zip(paths, lines):
        assert line.startswith(f'CheckpointError {path} cannot be written')
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not os.path.isdir('/sys/kernel'), reason='needs Linux')
def test_a_folder_that_is_not_writable(state):
    with pytest.raises(CheckpointError, match='/sys/x.pth cannot be written'):
        write_checkpoint(state, '/sys/x.pth')
