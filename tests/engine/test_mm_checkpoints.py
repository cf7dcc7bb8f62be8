"""Read checkpoints for mm's runner."""

import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.engine import mm_checkpoints
from mmcyclemlp.engine.mm_checkpoints import (
    check_fit,
    check_readable,
    name_mismatch,
    read,
    read_whole_model,
    replace_loader,
)
from mmcyclemlp.errors import CheckpointError, MismatchError, RefusedError

ARCH = dict(embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1),
            mlp_ratios=(1, 1, 1, 1))


class Print:
    """Prints when it is unpickled."""

    def __reduce__(self):
        return print, ('unpickled', )


def test_reads_without_the_text_of_the_config(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict={}, meta=dict(config='exit()', iter=1)), path)
    assert read(path) == dict(state_dict={}, meta=dict(iter=1))


@pytest.mark.parametrize('name, message', [
    ('s3://bucket/a.pth', 'download the file'),
    ('pavi://a', 'download the file'),
    ('open-mmlab://gone', 'mm knows no file open-mmlab://gone')])
def test_refuses_schemes_that_mm_unpickles(name, message):
    with pytest.raises(CheckpointError, match=message):
        read(name)


def test_finds_names_of_mm(tmp_path, monkeypatch):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(w=torch.ones(1)), path)
    monkeypatch.setitem(mm_checkpoints._NAMED, 'torchvision://',
                        lambda: dict(mine=path))
    assert read('torchvision://mine') == dict(w=torch.ones(1))


def test_a_refused_object_is_not_damage(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(mm_checkpoints, 'print_log',
                        lambda text, **kwargs: logged.append(text))
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.ones(1), mine=Print()), path)
    with pytest.raises(RefusedError):
        read(str(path))
    check_readable(path)
    assert logged[0].endswith('To resume from it, give --trust-checkpoint.')
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError):
        check_readable(path)
    assert len(logged) == 1


def test_replaces_all_loaders_of_mm(tmp_path, monkeypatch):
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    path = tmp_path / 'a.pth'
    path.write_bytes(pickle.dumps(Print()))
    replace_loader(Config(), False, False)
    for name in (path, f'file://{path}', f's3://{path}'):
        with pytest.raises(CheckpointError):
            CheckpointLoader.load_checkpoint(str(name))


def test_checks_that_a_model_gets_every_tensor():
    model = nn.Linear(2, 3)
    state = model.state_dict()
    check_fit(model, dict(state, other=1), 'a.pth')
    with pytest.raises(CheckpointError, match='^a.pth lacks bias: give the'):
        check_fit(model, dict(weight=state['weight']), 'a.pth')
    with pytest.raises(CheckpointError, match=(
            r'^a.pth has another shape: bias \(2,\) for \(3,\): give')):
        check_fit(model, dict(state, bias=torch.zeros(2)), 'a.pth')


def test_names_the_file_of_a_mismatch_only():
    with pytest.raises(CheckpointError, match='^a.pth: no key$'), (
            name_mismatch('a.pth')):
        raise MismatchError('no key')
    with pytest.raises(CheckpointError, match='^b.pth is gone$'), (
            name_mismatch('a.pth')):
        raise CheckpointError('b.pth is gone')
    with pytest.raises(MismatchError, match='^no key$'), name_mismatch(None):
        raise MismatchError('no key')


def test_a_network_raises_a_mismatch():
    with pytest.raises(MismatchError, match='fit this CycleNet'):
        CycleNet(ARCH).load_state_dict({'patch_embed.proj.bias': (
            torch.zeros(8))})


def save(tmp_path, content):
    path = str(tmp_path / 'a.pth')
    torch.save(content, path)
    return path


def test_a_backbone_is_not_a_whole_model(tmp_path):
    state = CycleNet(ARCH).state_dict()
    mm = {f'backbone.{key}': value for key, value in state.items()}
    model = dict(backbone=dict(type='CycleNet'))
    for content, message in (
            (state, r'is a backbone alone \(bare state dict\), without'),
            ({'state_dict': mm}, r'is a backbone alone \(mm layout, prefix'),
            ({'backbone.w': torch.ones(1)}, 'is a backbone alone, without'),
            ({'state_dict': {}}, 'holds no weights of a model'),
            ([], 'holds no weights of a model')):
        with pytest.raises(CheckpointError, match=message):
            read_whole_model(save(tmp_path, content), model)
    whole = dict(mm, head=torch.ones(1))
    for content in (whole, {'state_dict': whole}):
        found = read_whole_model(save(tmp_path, content), model)
        assert found['state_dict'].keys() == whole.keys()


def test_a_classifier_is_a_backbone_with_a_head(tmp_path):
    network = CycleNet(ARCH, fork_feat=False, num_classes=3)
    state = network.state_dict()
    mm = {f'backbone.{key}': value for key, value in state.items()}
    model = dict(backbone=dict(type='CycleNet', fork_feat=False))
    for content in ({'model': state}, {'state_dict': mm}):
        found = read_whole_model(save(tmp_path, content), model)
        assert found['state_dict'].keys() == mm.keys()
    del state['head.weight']
    with pytest.raises(CheckpointError, match='a.pth has no head'):
        read_whole_model(save(tmp_path, state), model)
    with pytest.raises(CheckpointError, match='a.pth: not a CycleNet'):
        read_whole_model(save(tmp_path, {'w': torch.ones(1)}), model)
