"""Choose the checkpoint that a run starts from."""

import os

import pytest
import torch
from mmengine.config import Config

from mmcyclemlp import CycleNet
from mmcyclemlp.engine import mm_checkpoints, start_checkpoint
from mmcyclemlp.engine.start_checkpoint import (
    find_resumable,
    resume_from,
    use_backbone_file,
)
from mmcyclemlp.errors import CheckpointError, UserError

ARCH = dict(embed_dims=(8, 12, 16, 24), depths=(1, 1, 1, 1),
            mlp_ratios=(2, 2, 2, 2))


def write(path, number, **meta):
    """Save a checkpoint of a run; later ones have a later time."""
    torch.save(dict(state_dict={'w': torch.zeros(1)},
                    meta=dict(iter=number, epoch=number, **meta)), path)
    os.utime(path, (number, number))


@pytest.fixture
def reads(monkeypatch):
    """Files that are read, in order."""
    found = []
    read = start_checkpoint.read

    def spy(path, *args):
        found.append(path)
        return read(path, *args)

    monkeypatch.setattr(start_checkpoint, 'read', spy)
    return found


def test_skips_what_cannot_be_resumed(tmp_path, monkeypatch, reads):
    logged = []
    monkeypatch.setattr(
        start_checkpoint, 'print_log',
        lambda text, **kwargs: logged.append(text))
    assert find_resumable(str(tmp_path)) == (None, None)
    for number in (1, 2, 3):
        write(tmp_path / f'epoch_{number}.pth', number)
    (tmp_path / 'best_x.pth').write_bytes(b'')
    (tmp_path / 'last_checkpoint').write_text('')
    first, second, third = (
        str(tmp_path / f'epoch_{number}.pth') for number in (1, 2, 3))
    content = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(content[:-100])
    os.utime(third, (3, 3))
    torch.save({'state_dict': {}}, tmp_path / 'weights.pth')
    path, content = find_resumable(str(tmp_path))
    assert path == second and content['meta']['epoch'] == 2
    assert first not in reads
    assert len(logged) == 2
    # The newest first.
    assert 'weights.pth is not from a run' in logged[0]
    assert logged[1].startswith(f'skipped: {third} is damaged')
    for path in tmp_path.glob('epoch_*.pth'):
        path.write_bytes(b'PK')
    with pytest.raises(UserError, match='no checkpoint in .* can be resumed'):
        find_resumable(str(tmp_path))


@pytest.mark.parametrize('given', [True, False])
def test_reads_the_resumed_checkpoint_once(given, tmp_path, reads):
    path = tmp_path / 'epoch_1.pth'
    write(path, 1, seed=5)
    cfg = Config(dict(work_dir=str(tmp_path), model=dict(type='RetinaNet'),
                      randomness=dict(seed=1, deterministic=True)))
    content = resume_from(cfg, str(path) if given else None)
    assert cfg.resume and cfg.load_from == str(path)
    assert cfg.randomness == dict(seed=5, deterministic=True)
    assert reads == [str(path)]
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mm_checkpoints.CheckpointLoader, '_schemes', {'': None})
        mm_checkpoints.replace_loader(cfg, False, False, content)
        load = mm_checkpoints.CheckpointLoader.load_checkpoint
        assert load(str(path)) is content
        # mm changes what it loads, so that it is not given twice.
        with pytest.raises(CheckpointError, match='there is no checkpoint'):
            load(str(path))


def test_starts_from_the_beginning_without_checkpoint(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert resume_from(cfg) is None
    assert cfg.resume is False and 'load_from' not in cfg


def test_weights_cannot_be_resumed(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='not from a run of mm'):
        resume_from(Config(), str(tmp_path / 'w.pth'))


@pytest.fixture
def state():
    return CycleNet(ARCH).state_dict()


def test_a_backbone_file_reaches_a_network_inside_another(state, tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(state, path)
    cfg = Config(dict(load_from=path, model=dict(
        type='SoftTeacher', detector=dict(backbone=dict(type='CycleNet')))))
    assert use_backbone_file(cfg) is None
    assert cfg.model.detector.backbone.init_cfg.checkpoint == path
    assert cfg.load_from is None


def test_a_backbone_file_needs_a_backbone(state, tmp_path):
    torch.save(state, tmp_path / 'a.pth')
    cfg = Config(dict(load_from=str(tmp_path / 'a.pth'), model={}))
    with pytest.raises(UserError, match="has no 'backbone'"):
        use_backbone_file(cfg)


@pytest.mark.parametrize('prefix', ['backbone.', 'other.'])
def test_a_whole_model_stays_load_from(prefix, state, tmp_path):
    keys = state if prefix == 'backbone.' else {'weight': torch.zeros(1)}
    path = str(tmp_path / 'a.pth')
    torch.save({prefix + key: value for key, value in (
        state if keys is state else keys).items()}, path)
    cfg = Config(dict(load_from=path, model=dict(
        backbone=dict(type='CycleNet'))))
    assert use_backbone_file(cfg).keys() == {prefix + key for key in keys}
    assert cfg.load_from == path and 'init_cfg' not in cfg.model.backbone
