import logging

import definition
import pytest
import torch
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

ARCHS = {
    'b1': 15_155_400,
    'b2': 26_802_504,
    'b3': 38_385_720,
    'b4': 51_796_552,
    'b5': 75_747_280,
    't': 28_269_928,
    's': 49_558_888,
    'b': 87_705_064,
}
SMALL = dict(embed_dims=[6, 12, 16, 24], depths=[1, 2, 1, 1],
             mlp_ratios=[4, 4, 2, 2])
LIKE_SWIN = dict(SMALL, downsample='patch_merging', reweight=False)


def small(arch=SMALL, **kwargs):
    """Return a small network in float64 without parameters at 0 or 1."""
    model = CycleNet(arch, **kwargs).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize('arch, number', ARCHS.items())
def test_parameters_of_the_classifier(arch, number):
    model = CycleNet(arch, fork_feat=False)
    assert sum(p.numel() for p in model.parameters()) == number


def test_keys_of_a_block_are_the_official_ones():
    keys = set(small().state_dict())
    block = {
        'norm1.weight', 'norm1.bias', 'attn.mlp_c.weight',
        'attn.sfc_h.weight', 'attn.sfc_h.bias', 'attn.sfc_w.weight',
        'attn.sfc_w.bias', 'attn.reweight.fc1.weight',
        'attn.reweight.fc1.bias', 'attn.reweight.fc2.weight',
        'attn.reweight.fc2.bias', 'attn.proj.weight', 'attn.proj.bias',
        'norm2.weight', 'norm2.bias', 'mlp.fc1.weight', 'mlp.fc1.bias',
        'mlp.fc2.weight', 'mlp.fc2.bias'}
    prefix = 'network.2.1.'
    assert {k[len(prefix):] for k in keys if k.startswith(prefix)} == block
    rest = {k for k in keys if k.count('.') < 4 and 'network' not in k}
    assert rest == {
        'patch_embed.proj.weight', 'patch_embed.proj.bias',
        *(f'norm{i}.{p}' for i in (0, 2, 4, 6) for p in ('weight', 'bias'))}


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (5, 64)], ids=str)
@pytest.mark.parametrize('last3', [False, True])
def test_backbone_equals_definition(size, last3):
    model = small(fork_last3=last3, qkv_bias=last3)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = definition.backbone(
        model.state_dict(), x, SMALL['depths'], last3)
    outs = model(x)
    assert len(outs) == 4
    for ours, theirs in zip(outs, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (5, 64)], ids=str)
@pytest.mark.parametrize('stem', ['conv7', 'conv4'])
@pytest.mark.parametrize('backend', [None, 'plain'])
def test_like_swin_equals_definition(size, stem, backend):
    model = small(LIKE_SWIN, stem=stem, backend=backend)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = definition.backbone(model.state_dict(), x, SMALL['depths'])
    for ours, theirs in zip(model(x), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('arch', [SMALL, LIKE_SWIN], ids=['b1', 't'])
def test_a_trace_has_stock_operators_and_accepts_other_sizes(arch):
    model = small(arch, fork_last3=True)
    traced = torch.jit.trace(
        model, torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert {node.kind().split('::')[0] for node in
            traced.inlined_graph.nodes()} <= {'aten', 'prim'}
    assert 'PythonOp' not in str(traced.inlined_graph)
    x = torch.randn(2, 3, 65, 46, dtype=torch.float64)
    for ours, theirs in zip(traced(x), model(x)):
        torch.testing.assert_close(ours, theirs)


def test_classifier_equals_definition():
    model = small(fork_feat=False, num_classes=7)
    x = torch.randn(2, 3, 40, 32, dtype=torch.float64)
    torch.testing.assert_close(
        model(x),
        definition.classifier(model.state_dict(), x, SMALL['depths']))


def test_gradients_equal_definition():
    model = small(fork_feat=False, num_classes=7)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    names, parameters = zip(*model.named_parameters())
    grad = torch.randn(2, 7, dtype=torch.float64)
    ours = torch.autograd.grad(model(x), parameters, grad)
    state = dict(zip(names, parameters))
    theirs = torch.autograd.grad(
        definition.classifier(state, x, SMALL['depths']), parameters, grad)
    for name, a, b in zip(names, ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, msg=name)


def test_strides_at_full_size():
    model = CycleNet('b1').eval()
    with torch.no_grad():
        outs = model(torch.randn(1, 3, 64, 96))
    assert [tuple(y.shape) for y in outs] == [
        (1, 64, 16, 24), (1, 128, 8, 12), (1, 320, 4, 6), (1, 512, 2, 3)]


@pytest.mark.parametrize('channels_last', [False, True])
def test_maps_are_right_for_roi_align(channels_last):
    # mmcv's kernel ignores strides and reads memory as (B, C, H, W).
    ops = pytest.importorskip('mmcv.ops')
    model, x = small().float(), torch.randn(1, 3, 64, 64)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    rois = torch.tensor([[0, 1., 1., 9., 9.]])
    for y in model(x):
        align = ops.RoIAlign(3, aligned=True)
        expected = align(y.clone(memory_format=torch.contiguous_format),
                         rois)
        assert torch.equal(align(y, rois), expected)


def test_init():
    model = CycleNet('b1')
    attn = model.network[2][1].attn
    for weight in (attn.sfc_h.weight, attn.mlp_c.weight):
        assert abs(weight.std().item() - 0.02) < 1e-3
    assert not attn.sfc_h.bias.any() and not attn.proj.bias.any()
    # The convolutions keep PyTorch's default, uniform to 1 / sqrt(fan in).
    bound = (3 * 7 * 7)**-0.5
    top = model.patch_embed.proj.weight.abs().max().item()
    assert 0.95 * bound < top <= bound


@pytest.mark.parametrize('config, variable, last3, source', [
    (None, None, False, None),
    (None, '', False, None),
    (None, '0', True, 'environment variable'),
    (None, '1', True, 'environment variable'),
    (True, None, True, 'config'),
    (False, '1', False, 'config'),
    (True, '1', True, 'config'),
])
def test_fork_last3(config, variable, last3, source, monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'mmcyclemlp')  # also without mm
    if variable is not None:
        monkeypatch.setenv('FORK_LAST3', variable)
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger('mmcyclemlp')
    logger.addHandler(handler)
    try:
        model = CycleNet(SMALL, fork_last3=config)
    finally:
        logger.removeHandler(handler)
    assert isinstance(model.norm0, nn.Identity) == last3
    assert isinstance(model.norm2, nn.LayerNorm)
    if source is None:
        assert not records
    else:
        assert f'fork_last3={last3}' in records[0] and source in records[0]


def test_stages_after_the_last_output_are_neither_run_nor_trained():
    part = small(out_indices=(0, 1))
    x = torch.rand(1, 3, 64, 64).double()
    run = []
    for place, layer in enumerate(part.network):
        layer.register_forward_hook(
            lambda *args, place=place: run.append(place))
    sum(map(torch.sum, part.train()(x))).backward()
    assert run == [0, 1, 2]
    trained = {name for name, value in part.named_parameters()
               if value.grad is not None}
    assert trained == {name for name, value in part.named_parameters()
                       if value.requires_grad}
    assert not any(name.startswith(f'network.{place}.') for name in trained
                   for place in range(3, 7))


def test_out_indices_are_stages_and_only_their_norms_exist():
    full, part = small(), small(out_indices=(1, 3))
    assert {n for n, _ in part.named_children() if n.startswith('norm')} == {
        'norm2', 'norm6'}
    keys = part.state_dict().keys()
    part.load_state_dict({k: v for k, v in full.state_dict().items()
                          if k in keys})
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    outs = full(x)
    for a, b in zip(part(x), (outs[1], outs[3])):
        assert torch.equal(a, b)


@pytest.mark.parametrize('indices, last3', [
    ((0, 1, 2, 3), False), ((0, 1, 2, 3), True), ((1, 2, 3), False)])
def test_no_parameter_goes_unused(indices, last3):
    model = small(out_indices=indices, fork_last3=last3).train()
    outs = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    outs = outs[1:] if last3 else outs
    sum(y.square().sum() for y in outs).backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen):
    model = CycleNet(SMALL, frozen_stages=frozen, drop_path_rate=0.5)
    for _ in range(2):
        trained = {n.split('.')[0] + '.' + n.split('.')[1]
                   for n, p in model.named_parameters() if p.requires_grad}
        stem_and_stages = {'patch_embed.proj'} | {
            f'network.{i}' for i in range(7)}
        count = max(frozen, 0)
        still = {f'network.{i}' for i in range(2 * count - 1)}
        if count:
            still.add('patch_embed.proj')
        assert trained & stem_and_stages == stem_and_stages - still
        assert 'norm6.weight' in trained
        model.train()
        assert model.patch_embed.training == (count == 0)
        assert model.network[6].training == (frozen < 4)


def test_with_cp_gives_the_same_gradients():
    plain, recomputed = small(), small(with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for model in (plain, recomputed):
        model.train()
        sum(y.square().sum() for y in model(x)).backward()
    for a, b in zip(plain.parameters(), recomputed.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_drop_path_drops_both_branches():
    model = small(drop_path_rate=0.5).train()
    block, x = model.network[6][0], torch.randn(64, 2, 3, 24).double()
    unchanged = (block(x) == x).flatten(1).all(1).float().mean()
    assert 0.1 < unchanged < 0.45  # a quarter is expected


def test_drop_path_grows_linearly():
    model = CycleNet(SMALL, drop_path_rate=0.4)
    rates = [m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_drop_rate_is_not_ignored():
    model = small(drop_rate=0.5).train()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert not torch.equal(model(x)[3], model(x)[3])


@pytest.mark.parametrize('arch', ARCHS)
def test_all_sizes_equal_the_textbook(arch):
    # In double precision, and with a tolerance in single precision.
    for dtype, rounding in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        torch.manual_seed(0)
        model = CycleNet(arch, fork_last3=False).to(dtype).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
            x = torch.randn(1, 3, 72, 104, dtype=dtype)
            expected = definition.backbone(
                model.double().state_dict(), x.double(),
                model.arch_settings[arch]['depths'])
            outs = model.to(dtype)(x)
        for ours, theirs in zip(outs, expected):
            error = (ours.double() - theirs).abs().max()
            assert error <= rounding * theirs.abs().max()


@pytest.mark.parametrize('backend', ['torch', 'triton', 'reference'])
def test_backends_give_the_same(backend):
    from mmcyclemlp.ops import triton

    x = torch.randn(2, 3, 64, 96)
    if backend == 'triton' and triton.unavailable_reason(x):
        pytest.skip(triton.unavailable_reason(x))
    expected, model = small().float(), small(backend=backend).float()
    model.load_state_dict(expected.state_dict())
    for a, b in zip(model(x), expected(x)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_mixed_precision_trains_as_the_textbook_does():
    def losses(backend, enabled=True):
        torch.manual_seed(0)
        model = CycleNet(SMALL, fork_feat=False, num_classes=4,
                         backend=backend)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        history = []
        for step in range(100):
            torch.manual_seed(step)
            y = torch.randint(4, (8, ))
            # The class is the strength of a brightness ramp.
            x = torch.randn(8, 3, 32, 32) + y.view(-1, 1, 1, 1) * (
                torch.linspace(-1, 1, 32))
            with torch.autocast('cpu', torch.bfloat16, enabled):
                loss = nn.functional.cross_entropy(model(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return torch.tensor(history)

    ours, textbook = losses(None), losses('reference')
    exact = losses('reference', enabled=False)
    assert ours.isfinite().all()
    assert ours[-20:].mean() < 0.7 * ours[:5].mean()
    assert (ours[:10] - textbook[:10]).abs().max() < 0.02
    # Later, rounding errors grow in both networks.
    noise = (textbook - exact).abs().mean()
    assert (ours - exact).abs().mean() < 1.5 * noise


def test_two_runs_are_bit_equal():
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = CycleNet(SMALL, drop_path_rate=0.2).train()
        outs = model(torch.randn(2, 3, 96, 128))
        sum(y.square().mean() for y in outs).backward()
        runs.append([*outs, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_skip_lam_divides_the_branches():
    once, half = small(), small(skip_lam=2.)
    half.load_state_dict(once.state_dict())
    block, halved = once.network[0][0], half.network[0][0]
    x = torch.randn(1, 4, 4, 6, dtype=torch.float64)
    y = x + block.attn(block.norm1(x)) / 2
    y = y + block.mlp(block.norm2(y)) / 2
    torch.testing.assert_close(halved(x), y)


def test_autocast_and_channels_last():
    model = CycleNet(SMALL).train()
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    expected = model(x)
    with torch.autocast('cpu', torch.bfloat16):
        outs = model(x)
    for a, b in zip(outs, expected):
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.1)
    sum(y.float().sum() for y in outs).backward()
    outs = model.to(memory_format=torch.channels_last)(x)
    for a, b in zip(outs, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_compile():
    model = CycleNet(dict(embed_dims=[8], depths=[1], mlp_ratios=[2]),
                     out_indices=(0, ))
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(
        model, fullgraph=HAS_CUSTOM_OP)
    torch.testing.assert_close(
        compiled(x)[0], model(x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_gpu_autocast(dtype):
    model = CycleNet('b1').cuda().eval()
    x = torch.randn(2, 3, 96, 64, device='cuda')
    with torch.no_grad():
        expected = model(x)
        with torch.autocast('cuda', dtype):
            outs = model(x)
    for a, b in zip(outs, expected):
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)


def test_a_typo_raises():
    with pytest.raises(TypeError, match='drop_path'):
        CycleNet(drop_path=0.1)


@pytest.mark.parametrize('image, message', [
    (torch.zeros(1, 3, 2, 9), 'images of 3x3 or more, got 2x9'),
    (torch.zeros(3, 9, 9), r'\(B, 3, H, W\), got \(3, 9, 9\)'),
    (torch.zeros(1, 4, 9, 9), r'got \(1, 4, 9, 9\) as a Tensor'),
    (torch.zeros(1, 3, 9, 9).numpy(), 'as a ndarray'),
    (None, 'got None as a NoneType'),
])
def test_invalid_images(image, message):
    model = CycleNet(dict(embed_dims=[6], depths=[1], mlp_ratios=[1]),
                     out_indices=[0])
    with pytest.raises(ValueError, match=message):
        model(image)


@pytest.mark.parametrize('backend', ['torch', 'plain', 'reference'])
def test_an_empty_batch_gives_every_weight_a_gradient(backend):
    model = CycleNet(dict(embed_dims=[6], depths=[1], mlp_ratios=[1]),
                     out_indices=[0], backend=backend)
    model(torch.zeros(0, 3, 9, 9))[0].sum().backward()
    assert all(value.grad is not None and not value.grad.any()
               for value in model.parameters())
