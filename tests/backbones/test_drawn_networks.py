"""Networks with random arguments are right, or raise one clear error.

300 networks and 400 images; ten times as many by ``pytest --soak -m soak``.
"""

import math
import warnings
from collections import Counter
from functools import cache

import definition
import pytest
import torch
from helpers import fuzz
from hypothesis import assume
from hypothesis import strategies as st

from mmcyclemlp import CycleNet
from mmcyclemlp.errors import CheckpointError

_NAN = math.nan
_SIZES = {'embed_dims': [8, 8], 'depths': [1, 1], 'mlp_ratios': [2, 2]}
WRONG = {
    'arch': ['b9', '', None, 5, {}, [], ('b1', ), {'embed_dims': [4]}] + [
        {**_SIZES, **change} for change in (
            {'embed_dims': [8, 0]}, {'embed_dims': [8, -8]}, {'extra': 1},
            {'embed_dims': [8, 2.5]}, {'embed_dims': [8, '8']},
            {'embed_dims': 8}, {'embed_dims': None}, {'depths': []},
            {'depths': [1]}, {'depths': [1, 0]}, {'depths': [1, None]},
            {'depths': [1, _NAN]}, {'mlp_ratios': [2, math.inf]},
            {'mlp_ratios': [2, -1]}, {'mlp_ratios': [2, _NAN]},
            {'embed_dims': [8, 10**30]}, {'downsample': 'pool'},
            {'downsample': None}, {'reweight': 'yes'},
            {'reweight': None}, {'embed_dims': [8, [8]]})],
    'stem': ['conv5', '', None, 7, ['conv7']],
    'in_channels': [0, -1, '3', 2.5, None, _NAN],
    'out_indices': [(), (1, 0), (0, 0), (-1, ), (99, ), 'ab', None, 3,
                    (0.5, ), ('0', ), (None, ), [[0]], (_NAN, )],
    'num_classes': [0, -1, 2.5, 'a', None],
    'drop_rate': [-.1, 1., 1.5, 'a', None, _NAN],
    'drop_path_rate': [-.1, 1., 1.5, 'a', None, _NAN],
    'skip_lam': [0, 0., -1., 'a', None, _NAN, math.inf],
    'frozen_stages': [-2, 99, 1.5, 'a', None, _NAN],
    'norm_cfg': [None, {}, 'LN', {'type': 'BN'}, {'type': None},
                 {'type': 'LN', 'epsilon': 1e-5}, {'type': ['LN']},
                 {'type': 'LN', 'eps': 'a'}, {'type': 'LN', 'eps': -1.},
                 {'type': 'LN', 'eps': None}],
    'act_cfg': [None, {}, 'GELU', {'type': 'Tanh'}, {'type': None},
                {'type': 'GELU', 'approximate': 'tanh'}, {'type': []}],
    'backend': ['cuda', '', 5, ['torch']],
    'init_cfg': [{}, 'x.pth', {'type': 'Pretrained'}, 5,
                 {'type': 'Kaiming', 'checkpoint': 'x.pth'},
                 {'type': 'Pretrained', 'checkpoint': 'x', 'map': 1}],
    'unknown': [1],
}
WRONG_IMAGES = {
    'channels': lambda x: x.repeat(1, 2, 1, 1), '3-D': lambda x: x[:, 0],
    '5-D': lambda x: x[None], 'integers': lambda x: x.long(),
    'no height': lambda x: x[:, :, :0], 'no width': lambda x: x[..., :0],
    'an array': lambda x: x.numpy(), 'nothing': lambda x: None,
    'double': lambda x: x.double(),
}


@st.composite
def right_arguments(draw):
    stages = draw(st.sampled_from([4, 1, 2, 3, 5]))

    def per_stage(*values):
        return st.lists(st.sampled_from(values), min_size=stages,
                        max_size=stages)

    sizes = st.fixed_dictionaries({
        'embed_dims': per_stage(8, 1, 2, 3, 4, 5, 12, 20),
        'depths': per_stage(1, 1, 1, 2),
        'mlp_ratios': per_stage(2, .1, 1, 1.5, 4),
    }, optional={'downsample': st.sampled_from(['conv', 'patch_merging']),
                 'reweight': st.booleans()})
    arguments = draw(st.fixed_dictionaries({'arch': sizes}, optional={
        name: st.sampled_from(values) for name, values in {
            'stem': ['conv7', 'conv4'], 'in_channels': [1, 2, 3, 4, 6],
            'fork_feat': [True, True, False],
            'fork_last3': [None, True, False],
            'num_classes': [1, 2, 7, 30], 'drop_rate': [0, .1, .5, .9],
            'drop_path_rate': [0, .1, .5, .99], 'qkv_bias': [True, False],
            'skip_lam': [1., .5, 3], 'frozen_stages': range(-1, stages + 1),
            'with_cp': [True, False],
            'norm_cfg': [{'type': 'LN'}, {'type': 'LN', 'eps': 1e-3},
                         {'type': 'LN', 'bias': False},
                         {'type': 'LN', 'elementwise_affine': False}],
            'act_cfg': [{'type': name} for name in (
                'GELU', 'ReLU', 'SiLU', 'Hardswish')],
            'backend': [None, 'torch', 'plain', 'reference'],
            'init_cfg': [None]}.items()}))
    if stages != 4 or draw(st.booleans()):  # the default is of four stages
        arguments['out_indices'] = sorted(draw(st.sets(
            st.integers(0, stages - 1), min_size=1)))
    return arguments


@st.composite
def wrong_arguments(draw):
    arguments = draw(right_arguments())
    name = draw(st.sampled_from(list(WRONG)))
    arguments[name] = draw(st.sampled_from(WRONG[name]))
    if name in ('out_indices', 'num_classes'):
        arguments['fork_feat'] = name == 'out_indices'
    return name, arguments


def assert_clear(error, values):
    """Check that an error is one line with one of the values."""
    text, kinds = str(error), (ValueError, TypeError, CheckpointError)
    if text.startswith('Input type ('):  # an error of torch that is clear
        kinds, values = RuntimeError, ['Input type']
    assert isinstance(error, kinds) and text and '\n' not in text, repr(error)
    assert any(form in text for value in values
               for form in (repr(value), str(value)) if form), repr(error)


@pytest.mark.soak
def test_wrong_arguments_are_refused(rounds):
    def check(example):
        name, arguments = example
        values = [arguments[name], name]
        if isinstance(arguments['arch'], dict):
            values += arguments['arch'].values()
        with pytest.raises(Exception) as caught:
            CycleNet(**arguments)
        assert_clear(caught.value, values)

    fuzz.run(check, wrong_arguments(), rounds(400, 4_000))


def build(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        warnings.simplefilter('error', RuntimeWarning)
        # torch warns if a fraction of the channels rounds to 0.
        warnings.filterwarnings('ignore', 'Initializing zero-element')
        model = CycleNet(**arguments)
    for value in model.parameters():
        value.data += .2 * torch.randn_like(value)
    return model


def outputs(model, x):
    out = model(x)
    assert isinstance(out, tuple) is model.fork_feat
    return out if model.fork_feat else (out, )


def shapes(model, arguments, x):
    """Return the shapes of the outputs; None if the image is too small."""
    batch, _, *size = x.shape
    if arguments.get('stem', 'conv7') == 'conv7':
        if min(size) < 3:
            return None
        size = [(n - 3) // 4 + 1 for n in size]
    else:
        size = [-(-n // 4) for n in size]
    if not model.fork_feat:
        return [(batch, arguments.get('num_classes', 1000))]
    found = []
    for dim in model.embed_dims:
        found.append((batch, dim, *size))
        size = [-(-n // 2) for n in size]
    return [found[i] for i in arguments.get('out_indices', (0, 1, 2, 3))]


def assert_near(ours, theirs, tolerance=2e-4):
    for a, b in zip(ours, theirs):
        if a is None or b is None:
            assert a is b
        elif a.numel():
            scale = max(1., float(b.abs().max()))
            assert float((a - b).abs().max()) < tolerance * scale


@st.composite
def networks(draw):
    return (draw(right_arguments()), draw(st.sampled_from([1, 0, 2])),
            draw(fuzz.SIZES), draw(fuzz.SIZES))


@pytest.mark.soak
@pytest.mark.parametrize('train', [False, True])
def test_networks(train, rounds, tmp_path, caplog):
    caplog.set_level('WARNING', 'mmcyclemlp')  # loading logs
    counts = Counter()

    def check(example):
        torch.manual_seed(train)
        arguments, batch, height, width = example
        model = build(arguments).eval()
        x = torch.randn(batch, arguments.get('in_channels', 3), height, width)
        expected = shapes(model, arguments, x)
        counts[expected is not None] += 1
        if expected is None:
            with pytest.raises(ValueError) as caught:
                model(x)
            assert_clear(caught.value, [f'{height}x{width}'])
            return
        with torch.no_grad():
            outs = outputs(model, x)
        assert [tuple(out.shape) for out in outs] == expected
        assert all(out.is_contiguous() and out.isfinite().all()
                   for out in outs)
        check_loading(model, arguments, x, outs, tmp_path / 'x.pth')
        other = CycleNet(
            **{**arguments, 'backend': 'reference', 'with_cp': False})
        other.load_state_dict(model.state_dict())
        other.eval()
        with torch.no_grad():
            if min(model.embed_dims) > 2:  # else norms are steep
                assert_near(outs, outputs(other, x))
            model, other, x = model.double(), other.double(), x.double()
            assert_near(outputs(model, x), outputs(other, x), 1e-8)
        dropout = arguments.get('drop_rate') or arguments.get(
            'drop_path_rate')
        check_gradients(model, other, x, expected, train,
                        exact=not (train and dropout))

    fuzz.run(check, networks(), rounds(150, 1_500))
    assert len(counts) == 2, counts


def check_loading(model, arguments, x, outs, path):
    torch.save({'model': model.state_dict()}, path)
    fresh = CycleNet(**{
        **arguments, 'init_cfg': dict(type='Pretrained',
                                      checkpoint=str(path))})
    fresh.init_weights()
    with torch.no_grad():
        again = outputs(fresh.eval(), x)
    assert all(torch.equal(a, b) for a, b in zip(outs, again))


def check_gradients(model, other, x, expected, train, exact):
    """Check that they are right, and only where weights are trained."""
    found = []
    weights = [torch.randn(shape).double() for shape in expected]
    for network in (model, other):
        network.train(train)
        y = x.detach().requires_grad_()
        outs = outputs(network, y)
        sum((out * w).sum() for out, w in zip(outs, weights)).backward()
        found.append([y.grad, *(p.grad for p in network.parameters())])
    last = model.out_indices[-1] if model.fork_feat else model.num_stages - 1
    frozen = model.frozen_stages
    for name, value in model.named_parameters():
        parts = name.split('.')
        place = int(parts[1]) if parts[0] == 'network' else -1
        is_frozen = place > 2 * last or (
            frozen > 0 and parts[0] in ('patch_embed', 'network')
            and place < 2 * frozen - 1)
        assert value.requires_grad is not is_frozen, name
        assert (value.grad is None) is is_frozen, name
        assert is_frozen or value.grad.isfinite().all(), name
    if exact:
        assert_near(*found, tolerance=1e-6)


@cache
def small_network(kind):
    torch.manual_seed(kind)
    arch = dict(embed_dims=[6, 8, 12, 16], depths=[1, 2, 1, 1],
                mlp_ratios=[4, 4, 2, 2])
    if kind in (1, 2):
        arch.update(downsample='patch_merging', reweight=False)
    return build(dict(
        arch=arch, stem='conv4' if kind == 2 else 'conv7',
        fork_feat=kind != 3, num_classes=5, fork_last3=kind == 0)).eval()


@pytest.mark.soak
@pytest.mark.parametrize('kind', range(4))
def test_images_of_any_size_and_layout(kind, rounds):
    model, depths = small_network(kind), [1, 2, 1, 1]

    def check(example):
        (height, width), batch, channels_last, is_part = example
        torch.manual_seed(0)
        x = torch.randn(batch, 3, height, width)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        if is_part:  # of a larger image
            x = x[:, :, height // 2:, width // 3:]
        assume(kind == 2 or min(x.shape[2:]) >= 3)
        with torch.no_grad():
            outs, state = outputs(model, x), model.state_dict()
            theirs = [definition.classifier(state, x, depths)] if (
                kind == 3) else definition.backbone(
                    state, x, depths, last3=kind == 0)
        assert [a.shape for a in outs] == [b.shape for b in theirs]
        assert_near(outs, theirs)

    fuzz.run(check, st.tuples(
        st.tuples(fuzz.SIZES, fuzz.SIZES), st.sampled_from([1, 2]),
        st.booleans(), st.booleans()), rounds(100, 1_000))


@pytest.mark.parametrize('what', WRONG_IMAGES)
def test_wrong_images_are_refused(what):
    x = WRONG_IMAGES[what](torch.randn(1, 3, 32, 40))
    shape = getattr(x, 'shape', ())
    with pytest.raises(Exception) as caught:
        small_network(0)(x)
    assert_clear(caught.value, [
        getattr(x, 'dtype', x), type(x), tuple(shape),
        'x'.join(map(str, shape[-2:]))])
