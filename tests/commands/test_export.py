"""Models of configs are exported, and give what mm's own methods give."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_configs as tiny
from helpers.commands import error_of, run_command
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmcyclemlp import CycleNet
from mmcyclemlp.export import load

COMMAND = 'export'
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
needs_onnx = pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime is not installed')
ENDING = '.onnx' if find_spec('onnxruntime') else '.pt'


@pytest.fixture(scope='module')
def make(root, drawn_data, tmp_path_factory):
    """Config, checkpoint with random weights, and model of that."""
    from mmengine.config import Config
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

    def make(name):
        cfg = Config.fromfile(paths[name])
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                # What is wrong in one layer shows behind the last.
                nn.init.normal_(parameter, std=parameter[0].numel()**-.5)
        path = folder / f'{name}.pth'
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
        return paths[name], path, model

    return make


def expected(model, image):
    """What mm's own methods give for a normalized image."""
    if hasattr(model, 'bbox_head'):
        maps = model(image, mode='tensor')
        return [one for kind in maps for one in kind]
    logits = model(image, mode='tensor')
    return [F.interpolate(logits, image.shape[2:], mode='bilinear',
                          align_corners=model.align_corners)]


@pytest.mark.parametrize('name', ['retinanet', 'upernet', 'fpn'])
@torch.no_grad()
def test_whole_models(name, make, root, tmp_path, capsys):
    config, checkpoint, model = make(name)
    out = str(tmp_path / f'model{ENDING}')
    assert run_command(COMMAND, config, checkpoint, '--out', out,
                       '--size', 64, 96) == 0
    report = capsys.readouterr().out
    lines = report[report.index(out):].splitlines()
    assert 'image (1, 3, 64, 96): RGB, (x - [123.675' in lines[1]
    assert [line.split(' at ')[1] for line in lines if 'off by' in line] == [
        f'{size} (batch, height, width)'
        for size in ('1x97x79', '3x42x160', '2x99x44')]
    if name == 'retinanet':
        assert lines[2:12] == [
            f'{kind}{level} (1, {channels}, {height}, {width})'
            for kind, channels in (('cls_score', 45), ('bbox_pred', 36))
            for level, (height, width) in enumerate(
                [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)])]
    else:
        classes = model.decode_head.num_classes
        assert lines[2] == f'logits (1, {classes}, 64, 96)'
    run = load(out)
    for size in [(1, 45, 71), (3, 90, 50), (2, 161, 96)]:
        image = torch.randn(size[0], 3, *size[1:])
        # By another backend than is exported.
        truth = expected(model, image)
        assert max(one.std() for one in truth) > 0.1
        torch.testing.assert_close(run(image), truth, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_neck_and_normalization(make, root, tmp_path):
    config, checkpoint, model = make('retinanet')
    out = str(tmp_path / f'neck{ENDING}')
    assert run_command(
        COMMAND, config, checkpoint, '--out', out, '--size', 64, 96,
        '--part', 'neck', '--normalize') == 0
    image = torch.rand(2, 3, 83, 70) * 255
    normal = (image - torch.tensor(MEAN).view(3, 1, 1)) / (
        torch.tensor(STD).view(3, 1, 1))
    torch.testing.assert_close(
        load(out)(image), list(model.extract_feat(normal)), rtol=1e-4,
        atol=1e-4)


@torch.no_grad()
def test_the_backbone_of_a_whole_model(make, root, tmp_path, capsys):
    config, checkpoint, model = make('retinanet')
    out = str(tmp_path / 'maps.pt')
    assert run_command(
        COMMAND, config, checkpoint, '--out', out, '--size', 64, 96,
        '--part', 'backbone', '--no-check') == 0
    report = capsys.readouterr().out
    assert 'stage4 (1, 32, 2, 3)' in report and 'off by' not in report
    image = torch.randn(2, 3, 83, 70)
    torch.testing.assert_close(
        load(out)(image), list(model.backbone(image)), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    torch.manual_seed(0)
    net = CycleNet('b1', fork_feat=False)
    path = tmp_path_factory.mktemp('weights') / 'CycleMLP_B1.pth'
    torch.save(dict(model=net.state_dict()), path)
    return net.eval(), path


@needs_onnx
@torch.no_grad()
def test_a_released_size_as_a_user_would(released, run_cli, tmp_path):
    net, path = released
    out = tmp_path / 'b1.onnx'
    done = run_cli(COMMAND, 'b1', path, '--out', out, '--part', 'whole')
    assert 'logits (1, 1000)' in done.stdout
    assert done.stdout.count('off by') == 3
    image = torch.randn(3, 3, 100, 75)
    torch.testing.assert_close(
        load(str(out))(image), [net(image)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('args, message', [
    (['b1'], 'give a checkpoint, or --random-weights'),
    (['b1', 'gone.pth'], 'there is no checkpoint file gone.pth'),
    (['b1', 'gone.pth', '--out', 'x.tflite'], 'the ending selects the format'),
    (['b1', 'gone.pth', '--out', 'gone/x.pt'], 'there is no folder gone'),
    (['b1', 'gone.pth', '--size', '8', '64'], '--size: 8 64 is less than 64'),
    (['b9', 'gone.pth'], 'there is no config file b9'),
    (['b1', '--part', 'neck', '--random-weights'],
     '--part neck: the model has no neck'),
    (['{config}', '{b1}'], 'CycleMLP_B1.pth is a backbone'),
    (['{config}', '{fpn}'], 'fpn.pth lacks'),
    (['{config}', '{b1}', '--part', 'backbone'], 'CycleMLP_B1.pth'),
    (['mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco', '--random-weights',
      '--cfg-options', 'model.backbone.init_cfg=None'],
     'since they depend on the boxes that are found first'),
])
def test_mistakes(args, message, make, released, root, tmp_path):
    files = dict(config=make('retinanet')[0], b1=released[1],
                 fpn=make('fpn')[1])
    args = [arg.format(**files) for arg in args]
    if '--out' not in args:
        args += ['--out', str(tmp_path / 'x.pt')]
    assert message in error_of(COMMAND, *args)
    assert not list(tmp_path.iterdir())
