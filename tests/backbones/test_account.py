"""Every key of a state dict and of the network is accounted for."""

import definition
import pytest
import torch

from mmcyclemlp import CycleNet
from mmcyclemlp.backbones.account import LoadReport, account_for

SIZES = dict(embed_dims=[6, 12], depths=[1, 1], mlp_ratios=[2, 2])


@pytest.fixture
def model():
    return CycleNet(SIZES, fork_feat=False, num_classes=5)


@pytest.fixture
def state(model):
    return dict(definition.official_file(model)['model'])


def test_a_state_dict_that_fits(model, state):
    account = account_for(state, model)
    assert account.adapted.keys() == model.state_dict().keys()
    assert len(account.dropped) == 4 and not account.misfits
    assert all(key.endswith('.offset') for key in account.dropped)


def test_keys_that_may_be_missing(state):
    backbone = CycleNet(SIZES, out_indices=(0, 1))
    account = account_for(state, backbone)
    assert account.kept == [
        'norm0.weight', 'norm0.bias', 'norm2.weight', 'norm2.bias']
    assert set(account.dropped) > {'norm.weight', 'head.bias'}
    assert not account.misfits
    # All output norms, or none.
    account = account_for({**state, 'norm0.bias': torch.zeros(6)}, backbone)
    assert account.missing == ['norm0.weight', 'norm2.weight', 'norm2.bias']


def test_each_kind_of_misfit(model, state):
    offset = 'network.0.0.attn.sfc_h.offset'
    del state['norm.bias']
    state.update({
        'gate': torch.zeros(1), 'head.bias': torch.zeros(3),
        offset: state[offset] + 1})
    account = account_for(state, model)
    assert account.reshaped == {'head.bias': ((3, ), (5, ))}
    assert account.misfits == [
        'of another shape: head.bias (3,) for (5,)',
        'missing: norm.bias', 'unexpected: gate', *account.wrong_offsets]
    assert account.wrong_offsets[0].startswith(
        f'{offset} (1, 12, 1, 1) does not hold the offsets of a CycleFC '
        'with kernel (1, 3)')


def test_the_report_as_text():
    assert str(LoadReport(['a', 'b'], [], [])) == '2 tensors loaded'
    assert str(LoadReport(['a'], ['head.bias', 'x.offset'], ['norm0'])) == (
        "1 tensors loaded; dropped 1 offsets (verified) and ['head.bias']; "
        "at their initial values: ['norm0']")
