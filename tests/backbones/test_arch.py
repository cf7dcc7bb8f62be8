"""The network of a state dict is recognized by keys and shapes."""

import definition
import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.backbones import arch as archs
from mmcyclemlp.backbones.arch import is_transposed, same_arch
from mmcyclemlp.errors import CheckpointError

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 1, 1, 1],
             mlp_ratios=[4, 4, 2, 2])


def recognize(state, arch=None):
    return archs.recognize(state, CycleNet.on_meta, arch)


def recognize_arch(state):
    return archs.recognize_arch(state, CycleNet.on_meta)


def keys_of(arch, **options):
    """A state dict without memory."""
    with torch.device('meta'):
        return CycleNet(arch, **options).state_dict()


CLASSIFIER = dict(fork_feat=False, num_classes=7)


@pytest.mark.parametrize('arch, options', [
    *((arch, CLASSIFIER) for arch in CycleNet.arch_settings),
    ('b1', dict()),
    ('b1', dict(in_channels=4, out_indices=(2, 3))),
    ('t', dict(stem='conv4', qkv_bias=True)),
    ('t', dict(stem='conv4', fork_feat=False, num_classes=1)),
], ids=str)
def test_every_arch_is_recognized(arch, options):
    network = recognize(keys_of(arch, **options))
    assert network.options == dict(arch=arch, **options)
    assert str(network).startswith(f'CycleNet({arch!r}')
    assert network.model.state_dict().keys() == keys_of(
        arch, **options).keys()
    assert recognize_arch(keys_of(arch, **options)) == arch


def test_without_norms_and_without_head():
    state = keys_of('b1')
    trunk = {key: value for key, value in state.items()
             if not key.startswith('norm')}
    assert recognize(trunk).options == dict(arch='b1')
    state = keys_of('b1', fork_feat=False)
    del state['head.weight'], state['head.bias']
    assert recognize(state).options == dict(arch='b1', fork_feat=False)


def test_the_environment_variable_of_the_official_code_is_ignored(
        monkeypatch):
    monkeypatch.setenv('FORK_LAST3', '1')
    assert recognize(keys_of('b1', fork_last3=False)).options == dict(
        arch='b1')


@pytest.mark.parametrize('sizes', [
    SMALL, dict(SMALL, downsample='patch_merging', reweight=False),
    dict(embed_dims=[8, 12], depths=[2, 1], mlp_ratios=[1.5, 0.5])], ids=str)
def test_sizes_without_a_name_must_be_given(sizes):
    state = keys_of(sizes, out_indices=(0, 1))
    assert same_arch(recognize_arch(state), sizes)
    assert recognize(state, sizes).options['arch'] == sizes
    with pytest.raises(CheckpointError, match=(
            r'of no known arch; the nearest is .*shape: patch_embed\..*give '
            r'''--arch '{"embed_dims": \[''')) as caught:
        recognize(state)
    assert '\n' not in str(caught.value)


def test_a_ratio_that_rounds():
    sizes = dict(SMALL, mlp_ratios=[2.7] * 4)
    assert recognize(keys_of(sizes), sizes).options == dict(arch=sizes)


def test_a_new_entry_of_the_settings_is_recognized(monkeypatch):
    monkeypatch.setitem(CycleNet.arch_settings, 'small', SMALL)
    assert recognize(keys_of(SMALL)).options == dict(arch='small')


@pytest.mark.parametrize('arch, given, message', [
    ('b1', 'b2', r'not of arch b2, which differs in \d+ keys: missing: '
     r'network\.2\.2\..* It is of arch b1$'),
    ('b4', 'b5', r'of another shape: patch_embed\.proj\.weight '
     r'\(64, 3, 7, 7\) for \(96, 3, 7, 7\)'),
    ('b1', SMALL, r'not of arch {"embed_dims": \[6.*arch b1$'),
    (SMALL, 'b1', r'not of arch b1.*It is of arch {"embed_dims": \[6'),
    ('b1', 'b9', "arch b9: .*got 'b9'"),
    ('b1', dict(SMALL, depth=[1]), "an arch dict has the keys.*'depth'"),
    ('b1', dict(SMALL, depths='1111'), 'arch {.*"1111"'),
    ('b1', dict(SMALL, depths=[1, 1]), 'one positive number a stage'),
])
def test_another_arch_than_given(arch, given, message):
    with pytest.raises(CheckpointError, match=message):
        recognize(keys_of(arch, fork_feat=False), given)


def corrupted(what):
    state = dict(keys_of('b1', fork_feat=False))
    if what == 'missing':
        del state['network.4.3.attn.proj.bias']
    elif what == 'unexpected':
        state['network.4.3.attn.gate'] = torch.zeros(1)
    elif what == 'another shape':
        state['network.4.3.attn.proj.bias'] = torch.zeros(2)
    elif what == 'no shape':
        state['patch_embed.proj.weight'] = torch.tensor(1.)
        state['head.weight'] = torch.tensor(1.)
    elif what == 'both ends':
        state['norm0.weight'] = torch.zeros(64)
    elif what == 'offset of none':
        state['network.4.3.attn.mlp_c.offset'] = torch.zeros(1)
    elif what == 'no fc1':
        del state['network.0.0.mlp.fc1.weight']
    elif what == 'empty':
        state['network.0.0.mlp.fc1.weight'] = torch.zeros(0, 0)
    elif what == 'far stage':
        state['network.900.0.x.weight'] = torch.zeros(1)
    return state


@pytest.mark.parametrize('what, message', [
    ('missing', r'1 keys: missing: network\.4\.3\.attn\.proj\.bias'),
    ('unexpected', r'1 keys: unexpected: network\.4\.3\.attn\.gate'),
    ('another shape', r'1 keys: of another shape: network\.4\.3\.attn\.proj'
     r'\.bias \(2,\) for \(320,\)'),
    ('no shape', r'2 keys: of another shape: patch_embed\.proj\.weight \(\)'),
    ('both ends', r'unexpected: norm0\.weight'),
    ('offset of none', r'unexpected: network\.4\.3\.attn\.mlp_c\.offset'),
    ('no fc1', r'missing: network\.0\.0\.mlp\.fc1\.weight'),
    ('empty', r'of another shape: network\.0\.0\.mlp\.fc1\.weight \(0, 0\)'),
    ('far stage', r'unexpected: network\.900\.0\.x\.weight'),
])
def test_a_corrupted_key_is_named_with_the_nearest_arch(what, message):
    with pytest.raises(CheckpointError,
                       match=f'the nearest is b1, which differs in {message}'
                       if 'keys' in message else message):
        recognize(corrupted(what))


def test_another_networks_weights():
    state = {'patch_embed.proj.weight': torch.zeros(96, 3, 16, 16),
             'blocks.0.attn.qkv.weight': torch.zeros(288, 96)}
    with pytest.raises(CheckpointError, match=(
            r'of no known arch.*patch_embed\.proj\.weight \(96, 3, 16, 16\)')):
        recognize(state)


def test_keys_that_differ_in_numbers_are_listed_as_one():
    state = {key.replace('mlp_c', 'mlp_v'): value
             for key, value in keys_of('t', fork_feat=False).items()}
    with pytest.raises(CheckpointError, match=(
            r'nearest is t, which differs in 24 keys: '
            r'missing: network\.0\.0\.attn\.mlp_c\.weight \(and 11 like it\); '
            r'unexpected: network\.0\.0\.attn\.mlp_v\.weight '
            r'\(and 11 like it\)$')):
        recognize(state)


def test_offsets_must_be_those_of_the_formula():
    model = CycleNet(SMALL, fork_feat=False)
    state = definition.official_file(model)['model']
    recognize(state, SMALL)
    state['network.0.0.attn.sfc_h.offset'][0, 3] += 1
    with pytest.raises(CheckpointError, match=(
            r'1 keys: network\.0\.0\.attn\.sfc_h\.offset .* does not hold')):
        recognize(state, SMALL)


def test_transposed_matrices():
    model = CycleNet(SMALL)
    state = model.state_dict()
    assert not is_transposed(state, model)
    state = {key: value.t() if value.dim() == 2 else value
             for key, value in state.items()}
    assert is_transposed(state, model)
    with pytest.raises(CheckpointError, match='matrices are transposed'):
        recognize(state, SMALL)
    state['network.0.0.mlp.fc1.weight'] = torch.zeros(2, 2)
    assert not is_transposed(state, model)
