"""Conversions lose nothing, and report what they did."""

import definition
import pytest
import torch
from helpers import paddle_file

from mmcyclemlp import CycleNet, load_pretrained
from mmcyclemlp.backbones.convert import convert_checkpoint
from mmcyclemlp.backbones.weights import find_backbone
from mmcyclemlp.errors import CheckpointError

SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 2, 1, 1],
             mlp_ratios=[4, 4, 2, 2])
MERGING = dict(SMALL, downsample='patch_merging', reweight=False)
VARIANTS = [
    dict(), dict(stem='conv4'), dict(qkv_bias=True, in_channels=1),
    dict(arch=MERGING),
    dict(arch=dict(SMALL, downsample='patch_merging'), stem='conv4'),
]


@pytest.fixture(autouse=True)
def _small_is_known(monkeypatch):
    monkeypatch.setitem(CycleNet.arch_settings, 'small', SMALL)


def drawn(options, dtype=torch.float32, fork_feat=False):
    """Return a network with random weights."""
    options = {'arch': SMALL, **options, 'fork_feat': fork_feat}
    if not fork_feat:
        options['num_classes'] = 5
    model = CycleNet(**options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.to(dtype)


def official_file(model):
    """Return an official file, with offsets of the type of the weights."""
    state = definition.official_file(model)['model']
    weight = next(model.parameters())
    return {'model': {
        key: value.to(weight.dtype) for key, value in state.items()}}


def bits(state):
    return {key: (value.dtype, value.shape,
                  value.reshape(-1).view(torch.uint8).tolist())
            for key, value in state.items()}


def convert(source, target, layout='official', **kwargs):
    """Convert, and return the state dict that torch reads."""
    report = convert_checkpoint(source, target, layout, **kwargs)
    if target.suffix == '.safetensors':
        from safetensors.torch import load_file

        return load_file(target), report
    content = torch.load(target, weights_only=True)
    if layout == 'official':
        assert content.keys() == {'model'}
        return content['model'], report
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta']['backbone'] == dict(
        type='CycleNet', **report.network.options)
    return content['state_dict'], report


@pytest.mark.parametrize('options, fork_feat, dtype', [
    *((options, False, torch.float32) for options in VARIANTS),
    (VARIANTS[0], True, torch.float32),
    *((VARIANTS[0], False, dtype)
      for dtype in (torch.float16, torch.bfloat16, torch.float64)),
], ids=str)
def test_round_trips_are_exact(options, fork_feat, dtype, tmp_path):
    pytest.importorskip('safetensors')
    model = drawn(options, dtype, fork_feat)
    arch = options.get('arch')
    official = official_file(model)['model']
    backbone = {f'backbone.{key}': value
                for key, value in model.state_dict().items()}
    torch.save({'model': official}, tmp_path / 'a.pth')
    names = ['a.pth', 'b.pth', 'c.safetensors', 'd.pth', 'e.safetensors',
            'f.pth', 'g.pth', 'h.pth']
    layouts = ['mm', 'mm', 'official', 'official', 'mm', 'official', 'mm']
    for a, b, layout in zip(names, names[1:], layouts):
        state, report = convert(tmp_path / a, tmp_path / b, layout, arch=arch)
        expected = official if layout == 'official' else backbone
        assert bits(state) == bits(expected)
        assert report.parameters == sum(
            p.numel() for p in model.parameters())
        assert report.dtypes == str(dtype).replace('torch.', '')
        assert str(report.tensors) + ' tensors' in str(report)
    # The result has the same bytes for every source file.
    assert (tmp_path / 'b.pth').read_bytes() == (
        tmp_path / 'f.pth').read_bytes()
    assert list(convert(tmp_path / 'c.safetensors', tmp_path / 'z.pth',
                        'mm', arch=arch)[0]) == list(backbone)


@pytest.mark.parametrize('layout', ['plain', 'pairs'])
@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_paddle_to_all(options, layout, tmp_path):
    model, arch = drawn(options), options.get('arch')
    official = official_file(model)['model']
    content = getattr(paddle_file, layout)(official)
    if layout == 'pairs':
        content = {'model': content, 'epoch': 1}
    (tmp_path / 'a.pdparams').write_bytes(paddle_file.dumps(content))
    state, report = convert(tmp_path / 'a.pdparams', tmp_path / 'b.pth',
                            arch=arch)
    assert bits(state) == bits(official)
    assert report.transposed == sum(
        value.dim() == 2 for value in official.values()) > 20
    assert report.verified == 10
    assert report.left_out == (
        ['StructuredToParameterName@@'] if layout == 'plain' else ['epoch'])
    state, report = convert(tmp_path / 'b.pth', tmp_path / 'c.pth', 'mm',
                            arch=arch)
    assert report.transposed == 0
    assert bits(find_backbone({'state_dict': state}).tensors) == bits(
        model.state_dict())


def test_weights_of_paddle_have_the_outputs_of_the_definition(tmp_path):
    # mlp_c and proj are square, so a transposed matrix would load too.
    model = drawn({})
    state = {key: value.double() for key, value in
             model.state_dict().items()}
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = definition.classifier(state, x, SMALL['depths'])
    path = tmp_path / 'x.pdparams'
    path.write_bytes(paddle_file.dumps(paddle_file.plain(
        official_file(model)['model'])))
    loaded = CycleNet(SMALL, fork_feat=False, num_classes=5)
    load_pretrained(loaded, path)
    torch.testing.assert_close(loaded.double()(x), expected)
    by_config = CycleNet(SMALL, init_cfg=dict(
        type='Pretrained', checkpoint=str(path)))
    by_config.init_weights()
    last = definition.stages(state, x, SMALL['depths'])[-1]
    by_config.double().norm6 = torch.nn.Identity()
    torch.testing.assert_close(by_config(x)[-1], last.permute(0, 3, 1, 2))


def test_swins_naming(tmp_path):
    model = drawn(dict(arch=MERGING, stem='conv4'))
    official = official_file(model)['model']
    renamed = {}
    for key, value in official.items():
        name, *rest = key.split('.')
        if name == 'network' and int(rest[0]) % 2:
            key = f'layers.{int(rest[0]) // 2}.downsample.' + '.'.join(
                rest[1:])
        elif name == 'network':
            key = f'layers.{int(rest[0]) // 2}.blocks.' + '.'.join(rest[1:])
        renamed[key] = value
    assert 'layers.2.downsample.reduction.weight' in renamed
    assert 'layers.3.blocks.0.attn.sfc_h.offset' in renamed
    torch.save({'model': renamed}, tmp_path / 'a.pth')
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth',
                            arch=MERGING)
    assert bits(state) == bits(official)
    assert "Swin's naming" in report.source
    assert "stem='conv4'" in str(report.network)
    loaded = CycleNet(MERGING, stem='conv4', fork_feat=False, num_classes=5)
    load_pretrained(loaded, tmp_path / 'a.pth')
    assert bits(loaded.state_dict()) == bits(model.state_dict())
    # All keys that do not fit are named.
    renamed['layers.0.blocks.0.attn.relative_position_index'] = torch.ones(1)
    renamed['layers.0.blocks.0.attn.qkv.weight'] = torch.ones(3, 1)
    torch.save({'model': renamed}, tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match=(
            r"c\.pth \(official layout, Swin's naming .*2 keys: unexpected: "
            r'network\.0\.0\.attn\.relative_position_index; unexpected: '
            r'network\.0\.0\.attn\.qkv\.weight$')):
        convert(tmp_path / 'c.pth', tmp_path / 'd.pth', arch=MERGING)


@pytest.mark.parametrize('last3', [False, True])
def test_the_backbone_of_a_detector(last3, tmp_path):
    model = CycleNet(SMALL, fork_last3=last3)
    state = {f'backbone.{key}': value
             for key, value in model.state_dict().items()}
    torch.save({
        'meta': {}, 'message_hub': {}, 'optimizer': {'state': {}},
        'state_dict': {
            'data_preprocessor.mean': torch.zeros(3), **state,
            'neck.fpn.weight': torch.full((3, ), float('nan')),
            'neck.fpn.bias': torch.zeros(3),
            'roi_head.bbox_head.fc.weight': torch.zeros(3)},
    }, tmp_path / 'a.pth')
    out, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert report.left_out == [
        'meta', 'message_hub', 'optimizer', 'data_preprocessor (1 tensors)',
        'neck (2 tensors)', 'roi_head (1 tensors)']
    assert report.network.options == (
        dict(arch='small', fork_last3=True) if last3
        else dict(arch='small'))
    assert {key for key in out if not key.endswith('.offset')} == set(
        model.state_dict())
    again, _ = convert(tmp_path / 'b.pth', tmp_path / 'c.pth', 'mm')
    assert bits(again) == bits(state)
    assert report.what == 'backbone'
    loaded = CycleNet(SMALL, fork_last3=last3)
    assert not load_pretrained(loaded, tmp_path / 'b.pth').kept
    assert bits(loaded.state_dict()) == bits(model.state_dict())


def test_a_checkpoint_of_a_1x_recipe(tmp_path):
    # MultiStepLR counts its milestones in a collections.Counter.
    model = CycleNet(SMALL)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 11])
    torch.save({
        'state_dict': {f'backbone.{key}': value
                       for key, value in model.state_dict().items()},
        'param_schedulers': [schedule.state_dict()]}, tmp_path / 'a.pth')
    out, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert report.left_out == ['param_schedulers']


def test_a_key_with_a_line_break_is_escaped(tmp_path):
    state = {'model': CycleNet(SMALL).state_dict(), 'epo\nerror: \x1b[31m': 3}
    torch.save(state, tmp_path / 'a.pth')
    _, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert len(str(report).split('\n')) == 8
    assert r'left out    epo\nerror: \x1b[31m' in str(report)
    state['model']['network.0.0.x\nerror'] = torch.zeros(1)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / 'a.pth', tmp_path / 'c.pth')
    assert '\n' not in str(caught.value)
    assert r'network.0.0.x\nerror' in str(caught.value)


@pytest.mark.parametrize('key, value, message', [
    # Billions of numbers that share one element.
    ('network.0.0.norm1.bias', torch.zeros(1).expand(2**40),
     r'a tensor of \(1099511627776,\) in 1 elements'),
    ('head.weight', torch.zeros(0, 24), r'head\.weight \(0, 24\) is empty'),
    (3, torch.zeros(1), '3 is not a name of a tensor'),
])
def test_tensors_that_are_refused(key, value, message, tmp_path):
    state = CycleNet(SMALL, fork_feat=False).state_dict()
    state[key] = value
    torch.save({'model': dict(state)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_several_networks(tmp_path):
    teacher, student = drawn({}), drawn({})
    torch.save({'state_dict': {
        **{f'teacher.backbone.{k}': v
           for k, v in teacher.state_dict().items()},
        **{f'student.backbone.{k}': v
           for k, v in student.state_dict().items()},
        'student.head.fc': torch.zeros(1),
    }}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth: it has several.*teach'):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth',
                            prefix='student.backbone')
    assert bits(state) == bits(official_file(student)['model'])
    assert report.left_out == [
        'student.head (1 tensors)', f'teacher ({len(teacher.state_dict())} '
        'tensors)']


def test_the_average_beside_the_weights(tmp_path):
    model, average = drawn({}), drawn({})
    torch.save({
        'meta': {},
        'state_dict': {f'backbone.{key}': value
                       for key, value in model.state_dict().items()},
        'ema_state_dict': {'steps': torch.tensor(3), **{
            f'module.backbone.{key}': value
            for key, value in average.state_dict().items()}},
    }, tmp_path / 'a.pth')
    state, _ = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert bits(state) == bits(official_file(model)['model'])
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'c.pth',
                            entry='ema_state_dict')
    assert bits(state) == bits(official_file(average)['model'])
    assert "entry 'ema_state_dict'" in report.source
    assert report.left_out == ['meta', 'state_dict', 'steps (1 tensors)']
    with pytest.raises(CheckpointError, match=(
            "a.pth: no state dict under 'model_ema'; .*'ema_state_dict'")):
        convert(tmp_path / 'a.pth', tmp_path / 'd.pth', entry='model_ema')


def test_the_head_can_be_dropped(tmp_path):
    model = drawn({})
    torch.save(official_file(model), tmp_path / 'a.pth')
    other = CycleNet(SMALL, fork_feat=False, num_classes=3)
    with pytest.raises(CheckpointError, match='head.*num_classes.*drop-head'):
        load_pretrained(other, tmp_path / 'a.pth')
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth',
                            drop_head=True)
    assert 'norm.weight' in state and 'head.weight' not in state
    assert report.left_out == ['head.weight', 'head.bias']
    before = other.head.weight.clone()
    loaded = load_pretrained(other, tmp_path / 'b.pth')
    assert loaded.kept == ['head.weight', 'head.bias']
    assert 'initial values: [\'head.weight' in str(loaded)
    assert torch.equal(other.head.weight, before)
    assert torch.equal(other.norm.weight, model.norm.weight)
    report = convert(tmp_path / 'b.pth', tmp_path / 'mm.pth', 'mm')[1]
    assert report.what == 'classifier without head'
    assert not report.left_out
    with pytest.raises(CheckpointError, match='b.pth.*the file has no head'):
        convert(tmp_path / 'b.pth', tmp_path / 'c.pth', drop_head=True)
    # All of it, or nothing.
    state['head.bias'] = torch.zeros(3)
    with pytest.raises(CheckpointError, match='missing: head.weight'):
        other.load_state_dict(state)
    del state['head.bias'], state['norm.bias']
    with pytest.raises(CheckpointError, match='missing: norm.bias'):
        other.load_state_dict(state)


def test_views_and_parameters_and_shared_memory(tmp_path):
    pytest.importorskip('safetensors')
    model = drawn({})
    official = official_file(model)['model']
    torch.save({'model': official}, tmp_path / 'a.pth')
    plain, _ = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    size = (tmp_path / 'b.pth').stat().st_size
    odd = dict(official)
    odd['head.weight'] = torch.nn.Parameter(
        official['head.weight'].t().contiguous().t())
    big = torch.zeros(1 << 20)
    big[7:31] = official['norm.bias']
    odd['norm.bias'] = big[7:31]
    key = 'network.2.0.attn.proj.weight'
    odd[key] = odd['network.2.1.attn.proj.weight'] = official[key]
    torch.save({'model': odd}, tmp_path / 'c.pth')
    state, _ = convert(tmp_path / 'c.pth', tmp_path / 'd.pth')
    plain['network.2.1.attn.proj.weight'] = plain[key]
    assert bits(state) == bits(plain)
    assert (tmp_path / 'd.pth').stat().st_size == size
    state, _ = convert(tmp_path / 'c.pth', tmp_path / 'e.safetensors')
    assert bits(state) == bits(plain)


@pytest.mark.parametrize('kind', ['PyTorch', 'Paddle'])
@pytest.mark.parametrize('value, message', [
    (float('nan'), r'network\.4\.0\.mlp\.fc2\.bias holds 1 values that are'),
    (float('inf'), r'network\.4\.0\.mlp\.fc2\.bias holds 1 values that are'),
    (torch.zeros(16, dtype=torch.int64), r'fc2\.bias is of type int64'),
    (torch.zeros(16, dtype=torch.bool), r'fc2\.bias is of type bool'),
    (torch.zeros(17), r'fc2\.bias \(17,\) for \(16,\)'),
    (None, r'missing: network\.4\.0\.mlp\.fc2\.bias'),
    ([1, 2], r'fc2\.bias is not a tensor, but a list'),
])
def test_a_bad_weight_is_named(value, message, kind, tmp_path):
    key = 'network.4.0.mlp.fc2.bias'
    state = official_file(drawn({}))['model']
    if value is None:
        del state[key]
    elif isinstance(value, float):
        state[key][3] = value
    else:
        state[key] = value
    if kind == 'PyTorch':
        torch.save({'model': state}, tmp_path / 'a.pth')
    else:
        wrong = {} if not isinstance(value, list) else {key: state.pop(key)}
        (tmp_path / 'a.pth').write_bytes(paddle_file.dumps(
            {'model': {**paddle_file.pairs(state), **wrong}}))
    with pytest.raises(CheckpointError, match=rf'a\.pth.*: .*{message}'):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_another_network_and_another_operator(tmp_path):
    torch.save({'conv1.weight': torch.zeros(4, 3, 7, 7)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=(
            r'a\.pth: not a CycleNet: .*conv1\.weight')):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    state = official_file(drawn({}))['model']
    key = 'network.2.0.attn.sfc_{}.offset'
    state[key.format('h')] = state[key.format('w')]
    torch.save({'model': state}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=(
            r'a\.pth .*1 keys: network\.2\.0\.attn\.sfc_h\.offset '
            r'\(1, 24, 1, 1\) does not hold the offsets')):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_missing_offsets_are_added(tmp_path):
    official = official_file(drawn({}))['model']
    some = dict(official)
    del some['network.0.0.attn.sfc_h.offset']
    key = 'network.6.0.attn.sfc_w.offset'
    some[key] = some[key].half()
    torch.save({'model': some}, tmp_path / 'a.pth')
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert report.verified == 9
    official[key] = official[key].half()
    assert bits(state) == bits(official)


def test_a_trunk(tmp_path):
    trunk = {key: value for key, value in official_file(
        drawn({}))['model'].items() if key.startswith(('network', 'patch'))}
    torch.save({**trunk, 'epoch': 3}, tmp_path / 'a.pth')
    state, report = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert bits(state) == bits(trunk)
    assert report.what == 'backbone without output norms'
    assert report.left_out == ['epoch']


def test_an_unknown_layout(tmp_path):
    with pytest.raises(CheckpointError, match="'official', 'mm'.*'timm'"):
        convert_checkpoint('a.pth', tmp_path / 'b.pth', 'timm')
