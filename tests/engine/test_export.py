"""What is exported gives the same, at sizes it was not traced at."""

from importlib.util import find_spec

import pytest
import tiny
import torch
import torch.nn.functional as F
from in_process import complaint
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmcyclemlp import CycleNet
from mmcyclemlp.backbones.checkpoint import CheckpointError
from mmcyclemlp.engine.errors import UserError
from mmcyclemlp.engine.export import (
    Exportable,
    _AdaptivePool,
    build_model,
    check,
    export,
    for_any_size,
    load,
)
from mmcyclemlp.engine.launch import read_config

SIZES = [(1, 45, 71), (3, 90, 50), (2, 161, 96)]
needs_onnx = pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime is not installed')


@pytest.fixture(scope='module')
def make(root, drawn_data, tmp_path_factory):
    """Module and original model of a tiny config, with random weights."""
    from mmengine.registry import MODELS, init_default_scope

    folder = tmp_path_factory.mktemp('export')
    fpn = folder / 'fpn.py'
    fpn.write_text(f"""
_base_ = '{root}/configs/sem_fpn_ade20k/\
fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch=dict(
        _delete_=True, embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1],
        mlp_ratios=[2, 2, 2, 2]), init_cfg=None),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16))
""")
    paths = {name: tiny.write_config(folder, root, drawn_data, name)
             for name in ('retinanet', 'upernet')}
    paths['fpn'] = fpn

    def make(name, part='whole', normalize=None):
        cfg = read_config(str(paths[name]))
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        original = MODELS.build(cfg.model).eval()
        for parameter in original.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter[0].numel()**-.5)
        path = folder / f'{name}.pth'
        torch.save(dict(state_dict=original.state_dict(), meta={}), path)
        model = build_model(read_config(str(paths[name])), str(path), part)
        return Exportable(model, part, normalize), original, paths[name]

    return make


@pytest.mark.parametrize('bins', [1, 2, 3, 6])
def test_adaptive_pool(bins):
    for height in range(1, 14):
        x = torch.rand(1, 2, height, 17 - height, dtype=torch.float64)
        torch.testing.assert_close(
            _AdaptivePool((bins, bins))(x), F.adaptive_avg_pool2d(x, bins))


def expected(original, image):
    """What mm's own methods give for a normalised image."""
    if hasattr(original, 'bbox_head'):
        maps = original(image, mode='tensor')
        return [one for kind in maps for one in kind]
    logits = original(image, mode='tensor')
    return [F.interpolate(logits, image.shape[2:], mode='bilinear',
                          align_corners=original.align_corners)]


@needs_onnx
@pytest.mark.parametrize('name', ['retinanet', 'upernet', 'fpn'])
@torch.no_grad()
def test_whole_models_as_onnx(name, make, tmp_path):
    import onnx

    module, original, _ = make(name)
    path = str(tmp_path / 'model.onnx')
    export(module, path, (64, 96))
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} == {''}
    shape = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == [
        'batch', 3, 'height', 'width']
    names = [output.name for output in graph.output]
    assert names == (['logits'] if name != 'retinanet' else [
        f'{kind}{level}' for kind in ('cls_score', 'bbox_pred')
        for level in range(5)])
    run = load(path)
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        # Another backend than is exported.
        truth = expected(original, image)
        assert max(one.abs().max() for one in truth) > 0.1
        torch.testing.assert_close(
            run(image), truth, rtol=1e-4, atol=1e-4)


@needs_onnx
@torch.no_grad()
def test_neck_and_normalisation(make, tmp_path):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    module, original, _ = make('retinanet', 'neck', (mean, std))
    path = str(tmp_path / 'neck.onnx')
    export(module, path, (64, 96))
    image = torch.rand(2, 3, 83, 70) * 255
    normal = (image - torch.tensor(mean).view(3, 1, 1)) / (
        torch.tensor(std).view(3, 1, 1))
    torch.testing.assert_close(
        load(path)(image), list(original.extract_feat(normal)), rtol=1e-4,
        atol=1e-4)


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    torch.manual_seed(0)
    net = CycleNet('b1', fork_feat=False)
    path = tmp_path_factory.mktemp('weights') / 'CycleMLP_B1.pth'
    torch.save(dict(model=net.state_dict()), path)
    return net.eval(), path


@needs_onnx
@torch.no_grad()
def test_a_released_size_as_a_user_would(released, run_python, tmp_path):
    net, path = released
    out = tmp_path / 'b1.onnx'
    done = run_python('tools/export.py', 'b1', path, out, '--part', 'whole')
    assert done.stdout.count('off by') == 2
    image = torch.randn(3, 3, 100, 75)
    torch.testing.assert_close(
        load(str(out))(image), [net(image)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('ending', ['.pt', '.pt2'])
@torch.no_grad()
def test_other_formats(ending, make, tmp_path):
    if ending == '.pt2' and not hasattr(
            getattr(getattr(torch, 'export', None), 'Dim', None), 'AUTO'):
        pytest.skip('torch.export needs torch 2.6 or later for this')
    module, original, _ = make('upernet')
    path = str(tmp_path / f'model{ending}')
    export(module, path, (64, 96))
    image = torch.randn(1, 3, 121, 77)
    torch.testing.assert_close(
        load(path)(image), expected(original, image), rtol=1e-4, atol=1e-4)


@needs_onnx
def test_the_check_sees_a_difference(make, tmp_path):
    module, *_ = make('retinanet', 'backbone')
    path = str(tmp_path / 'model.onnx')
    export(module, path, (64, 96))
    assert max(check(module, path, SIZES)) < 1e-5
    with torch.no_grad():
        module.model.norm2.bias += 1e-3
    with pytest.raises(UserError, match='differs by .* at 1x45x71'):
        check(module, path, SIZES)


def test_nothing_is_replaced_in_the_original(make):
    module, *_ = make('upernet')
    copy = for_any_size(module)
    kinds = [type(one) for one in module.modules()]
    assert nn.AdaptiveAvgPool2d in kinds and _AdaptivePool not in kinds
    assert nn.AdaptiveAvgPool2d not in map(type, copy.modules())


def test_what_cannot_be_exported(make, released, tmp_path):
    cfg = read_config('mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco')
    with torch.device('meta'):
        from mmengine.registry import MODELS, init_default_scope

        init_default_scope('mmdet')
        cfg.model.backbone.init_cfg = None
        two_stages = MODELS.build(cfg.model)
    with pytest.raises(UserError, match='heads are not exported'):
        Exportable(two_stages, 'whole')
    with pytest.raises(UserError, match='the model has no neck'):
        Exportable(released[0], 'neck')
    with pytest.raises(CheckpointError, match='CycleMLP_B1.pth'):
        build_model(read_config(str(make('retinanet')[2])),
                    str(released[1]), 'whole')
    # What lay there stays.
    old = tmp_path / 'old.onnx'
    old.write_bytes(b'old')

    class Fails(nn.Module):
        def names(self, outputs):
            return ['one']

        def forward(self, image):
            return (torch.linalg.matrix_exp(image), )

    pytest.importorskip('onnx')
    with pytest.raises(UserError, match='ONNX cannot express the network'):
        export(Fails(), str(old), (64, 64))
    assert old.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('args, message', [
    (['b1', 'gone.pth', 'x.onnx'], 'there is no checkpoint file gone.pth'),
    (['b1', 'gone.pth', 'x.tflite'], 'the ending says what to write'),
    (['b1', 'gone.pth', 'gone/x.onnx'], 'there is no folder gone'),
    (['b1', 'gone.pth', 'x.onnx', '--size', '8', '64'], '--size takes 64'),
    (['b9', 'gone.pth', 'x.onnx'], 'there is no config file b9'),
])
def test_mistakes(args, message, root):
    assert message in complaint(root / 'tools' / 'export.py', *args)
