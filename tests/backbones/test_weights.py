"""Find weights in files of any layout, and load them strictly."""

import argparse

import definition
import pytest
import torch

from mmcyclemlp import CycleNet, load_pretrained
from mmcyclemlp.backbones.weights import find_backbone
from mmcyclemlp.errors import CheckpointError

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 1, 1, 1],
             mlp_ratios=[4, 4, 2, 2])


@pytest.fixture
def classifier():
    return CycleNet(SMALL, fork_feat=False, num_classes=5)


@pytest.fixture
def official(classifier):
    return definition.official_file(classifier)


def loaded(model, classifier, keep=()):
    """Check that the model has every tensor of the classifier."""
    theirs = classifier.state_dict()
    return all(torch.equal(value, theirs[key])
               for key, value in model.state_dict().items()
               if key not in keep and key in theirs)


@pytest.mark.parametrize('layout', [
    'official', 'namespace beside it', 'bare', 'mm', 'mm whole model',
    'data parallel', 'safetensors', 'legacy format'])
def test_layouts(layout, official, classifier, tmp_path):
    path, content, options = tmp_path / 'file.pth', official, {}
    if layout == 'namespace beside it':
        content = dict(official, args=argparse.Namespace(lr=0.1), epoch=3)
    elif layout == 'bare':
        content = official['model']
    elif layout == 'mm':
        content = dict(meta=dict(epoch=1), state_dict=official['model'])
    elif layout == 'mm whole model':
        content = dict(state_dict={
            f'backbone.{k}': v for k, v in official['model'].items()
        } | {'bbox_head.weight': torch.zeros(3)})
    elif layout == 'data parallel':
        content = {f'module.{k}': v for k, v in official['model'].items()}
    elif layout == 'legacy format':
        options = dict(_use_new_zipfile_serialization=False)
    if layout == 'safetensors':
        safetensors = pytest.importorskip('safetensors.torch')
        path = tmp_path / 'file.safetensors'
        safetensors.save_file(official['model'], path)
    else:
        torch.save(content, path, **options)
    model = CycleNet(SMALL)
    before = model.norm0.weight.clone()
    report = load_pretrained(model, path)
    assert loaded(model, classifier)
    assert len(report.loaded) == len(model.state_dict()) - 8
    assert torch.equal(model.norm0.weight, before)
    assert len(report.kept) == 8
    assert [k for k in report.dropped if 'offset' not in k] == [
        'head.bias', 'head.weight', 'norm.bias', 'norm.weight']
    assert sum('offset' in k for k in report.dropped) == 8


def test_a_classifier_loads_its_head_and_returns_its_logits(
        official, classifier, tmp_path):
    torch.save(official, tmp_path / 'file.pth')
    model = CycleNet(SMALL, fork_feat=False, num_classes=5)
    report = load_pretrained(model, tmp_path / 'file.pth')
    assert not report.kept and 'head.weight' in report.loaded
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(x), classifier.eval()(x))


def test_init_cfg_and_prefix(classifier, tmp_path):
    student = CycleNet(SMALL, fork_feat=False, num_classes=5)
    torch.save({'state_dict': {
        **{f'teacher.{k}': v for k, v in classifier.state_dict().items()},
        **{f'student.{k}': v for k, v in student.state_dict().items()},
    }}, tmp_path / 'file.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth'))
    model = CycleNet(SMALL, init_cfg=init_cfg)
    with pytest.raises(CheckpointError, match='student.*teacher.*prefix'):
        model.init_weights()
    model = CycleNet(SMALL, init_cfg=dict(init_cfg, prefix='teacher.'))
    model.init_weights()
    assert loaded(model, classifier)
    model = CycleNet(SMALL, init_cfg=dict(init_cfg, prefix='techer'))
    with pytest.raises(CheckpointError, match="'techer.'.*'student.'"):
        model.init_weights()


def test_the_log_has_the_report(official, tmp_path, caplog):
    torch.save(official, tmp_path / 'file.pth')
    caplog.set_level('INFO', 'mmcyclemlp')
    report = load_pretrained(CycleNet(SMALL), tmp_path / 'file.pth')
    assert str(report) in caplog.text and 'file.pth' in caplog.text


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_the_prefix_is_found(prefix, official):
    state = {prefix + key: value for key, value in official['model'].items()}
    found = find_backbone({'state_dict': state, 'meta': {}})
    assert found.tensors.keys() == official['model'].keys()
    assert found.prefix == prefix.replace('module.', '')
    assert found.beside == ['meta']


def corrupt(state, what):
    state = dict(state)
    key = 'network.0.0.attn.sfc_h.offset'
    if what == 'missing':
        del state['network.2.0.mlp.fc1.bias']
    elif what == 'unexpected':
        state['network.2.0.mlp.fc3.bias'] = torch.zeros(3)
    elif what == 'another shape':
        state['network.2.0.mlp.fc1.bias'] = torch.zeros(3)
    elif what == 'swapped offset':
        state[key] = state['network.0.0.attn.sfc_w.offset']
    elif what == 'short offset':
        state[key] = state[key][:, :4]
    elif what == 'some output norms':
        state['norm2.weight'] = torch.ones(12)
        state['norm2.bias'] = torch.zeros(12)
    return state


@pytest.mark.parametrize('what, message', [
    ('missing', r'missing: network\.2\.0\.mlp\.fc1\.bias'),
    ('unexpected', r'unexpected: network\.2\.0\.mlp\.fc3\.bias'),
    ('another shape', r'another shape: network\.2\.0\.mlp\.fc1\.bias \(3,\) '
     r'for \(48,\)'),
    ('swapped offset', r'network\.0\.0\.attn\.sfc_h\.offset.*\(1, 3\)'),
    ('short offset', r'sfc_h\.offset \(1, 4, 1, 1\)'),
    ('some output norms', r'missing: norm0\.weight.*fork_last3'),
])
def test_misfits_raise_and_change_nothing(what, message, official, tmp_path):
    torch.save({'model': corrupt(official['model'], what)},
               tmp_path / 'file.pth')
    model = CycleNet(SMALL)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(model, tmp_path / 'file.pth')
    assert 'file.pth' in str(caught.value)
    assert all(torch.equal(v, before[k])
               for k, v in model.state_dict().items())


def test_another_arch_is_recognized(tmp_path):
    torch.save(definition.official_file(CycleNet('b1', fork_feat=False)),
               tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match="file is of arch='b1'"):
        load_pretrained(CycleNet('b2'), tmp_path / 'file.pth')


def test_another_number_of_classes(official, tmp_path):
    torch.save(official, tmp_path / 'file.pth')
    model = CycleNet(SMALL, fork_feat=False, num_classes=6)
    with pytest.raises(CheckpointError, match='head.*set num_classes'):
        load_pretrained(model, tmp_path / 'file.pth')


@pytest.mark.parametrize('content, message', [
    ([1, 2], 'a list'),
    ({'model': {}, 'epoch': 3}, "no tensors.*'epoch', 'model'"),
    ({'model': {'conv1.weight': torch.zeros(1)}}, 'not a CycleNet.*conv1'),
])
def test_files_without_a_cyclenet(content, message, tmp_path):
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(CycleNet(SMALL), tmp_path / 'file.pth')


def test_a_file_that_loads_nothing_raises(official):
    # mmengine loads load_from with strict=False and accepts any keys.
    detector = torch.nn.ModuleDict({'backbone': CycleNet(SMALL)})
    with pytest.raises(CheckpointError, match='nothing would be loaded'):
        detector.load_state_dict(official['model'], strict=False)
    with pytest.raises(CheckpointError, match='nothing would be loaded'):
        detector.load_state_dict(official, strict=False)


def test_an_official_file_is_not_a_state_dict(official):
    model = CycleNet(SMALL, fork_feat=False, num_classes=5)
    with pytest.raises(CheckpointError, match="'model' is not a tensor.*load"):
        model.load_state_dict(official)


def test_a_whole_model_still_loads(classifier):
    detector = torch.nn.ModuleDict({'backbone': CycleNet(SMALL)})
    other = torch.nn.ModuleDict({'backbone': CycleNet(SMALL)})
    detector.load_state_dict(other.state_dict())
    for a, b in zip(detector.parameters(), other.parameters()):
        assert torch.equal(a, b)
