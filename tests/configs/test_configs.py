"""Every config builds, runs, and says what figures and recipes demand."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

URL = ('https://github.com/ShoufaChen/CycleMLP/releases/download/v0.1/'
       'CycleMLP_B{}.pth')
DIMS = {5: [96, 192, 384, 768]}
# Parameters in millions with 80 classes, counted with the released code.
DETECTORS = [
    (family, number, size)
    for family, sizes in dict(
        retinanet=[24.89, 36.54, 48.12, 61.53, 85.92],
        mask_rcnn=[34.81, 46.46, 58.04, 71.45, 95.25]).items()
    for number, size in enumerate(sizes, 1)]


# The same, 150 classes.
SEM_FPN = [18.91, 30.56, 42.14, 55.55, 79.35]


def read(root, family, number, multi_scale=False):
    found = [
        path for path in (root / 'configs' / family).glob(
            f'*cyclemlp-b{number}_*.py')
        if ('_ms-3x_' in path.name) is multi_scale]
    assert len(found) == 1, found
    return Config.fromfile(found[0])


def build(cfg):
    init_default_scope(cfg.default_scope)
    model = cfg.model.copy()
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        return registry.build(model).eval()


def check_backbone(cfg, number, last3):
    backbone = cfg.model.backbone
    assert backbone.type == 'CycleNet' and backbone.arch == f'b{number}'
    assert backbone.fork_last3 is last3
    assert backbone.init_cfg == dict(
        type='Pretrained', checkpoint=URL.format(number))
    assert cfg.custom_imports.imports == ['mmcyclemlp']


@pytest.mark.parametrize('family, number, size', DETECTORS)
def test_detector(family, number, size, root):
    pytest.importorskip('mmdet')
    cfg = read(root, family, number)
    check_backbone(cfg, number, family == 'retinanet')
    assert cfg.model.neck.in_channels == DIMS.get(
        number, [64, 128, 320, 512])
    assert cfg.model.neck.num_outs == 5
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4 if family == 'retinanet' else 2e-4,
        weight_decay=1e-4)
    assert cfg.train_cfg.max_epochs == 12
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end) == (1e-3, 500)
    assert steps.milestones == [8, 11]
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.model.data_preprocessor.pad_size_divisor == 32
    resize = next(step for step in cfg.train_pipeline
                  if step.type == 'Resize')
    assert resize.scale == (1333, 800) and resize.keep_ratio
    if family == 'retinanet':
        assert cfg.model.neck.start_level == 1
        assert cfg.model.neck.add_extra_convs == 'on_input'

    model = build(cfg)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(size, abs=0.01)
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 64, 96))
    first = 8 if family == 'retinanet' else 4
    assert [tuple(y.shape[1:]) for y in maps][0] == (
        256, 64 // first, 96 // first)
    assert len(maps) == 5


@pytest.mark.parametrize('number', range(2, 6))
@pytest.mark.parametrize('family', ['retinanet', 'mask_rcnn'])
def test_multi_scale_3x(family, number, root):
    pytest.importorskip('mmdet')
    cfg = read(root, family, number, multi_scale=True)
    once = read(root, family, number)
    # The model is the one that test_detector builds and runs.
    for key in ('default_scope', 'model', 'optim_wrapper', 'auto_scale_lr',
                'tta_model', 'tta_pipeline', 'custom_imports'):
        assert cfg.get(key) == once.get(key), key
    for key in ('type', 'metric', 'ann_file'):
        assert cfg.test_evaluator[key] == once.test_evaluator[key], key
    assert cfg.train_dataloader.batch_size == 2
    repeated = cfg.train_dataloader.dataset
    assert (repeated.type, repeated.times) == ('RepeatDataset', 3)
    assert cfg.train_cfg.max_epochs == 12
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end) == (1e-3, 500)
    assert steps.milestones == [9, 11] and steps.end == 12
    load, resize = repeated.dataset.pipeline[1:3]
    assert load.get('with_mask', False) is (family == 'mask_rcnn')
    assert resize.type == 'RandomResize' and resize.keep_ratio
    assert resize.scale == [(1333, 640), (1333, 800)]
    assert cfg.test_pipeline[1].scale == (1333, 800)


def check_ade20k(cfg):
    steps = {step.type: step for step in cfg.train_pipeline}
    assert steps['RandomCrop'].crop_size == (512, 512)
    assert steps['RandomResize'].scale == (2048, 512)
    assert steps['RandomResize'].ratio_range == (0.5, 2.0)
    assert steps['RandomFlip'].prob == 0.5
    assert 'PhotoMetricDistortion' in steps
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        load = next(s for s in pipeline if s.type == 'LoadAnnotations')
        assert load.reduce_zero_label


@pytest.mark.parametrize('number, size', enumerate(SEM_FPN, 1))
def test_sem_fpn(number, size, root):
    pytest.importorskip('mmseg')
    cfg = read(root, 'sem_fpn_ade20k', number)
    check_backbone(cfg, number, False)
    check_ade20k(cfg)
    neck, head = cfg.model.neck, cfg.model.decode_head
    assert neck.in_channels == DIMS.get(number, [64, 128, 320, 512])
    assert (neck.type, neck.out_channels) == ('FPN', 256)
    assert (head.type, head.channels, head.dropout_ratio) == (
        'FPNHead', 128, 0.1)
    assert head.norm_cfg.type == 'SyncBN' and head.num_classes == 150
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
    assert cfg.train_cfg.max_iters == 40000
    poly, = cfg.param_scheduler
    assert (poly.type, poly.power) == ('PolyLR', 0.9)
    assert (poly.begin, poly.end, poly.by_epoch) == (0, 40000, False)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.default_hooks.checkpoint.interval == 4000

    model = build(cfg)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(size, abs=0.01)
    with torch.no_grad():
        # No side is a multiple of 32.
        logits = model(torch.zeros(1, 3, 68, 100), mode='tensor')
    assert logits.shape == (1, 150, 17, 25)


@pytest.mark.parametrize('number', range(1, 6))
def test_upernet(number, root):
    pytest.importorskip('mmseg')
    cfg = read(root, 'upernet_ade20k', number)
    check_backbone(cfg, number, False)
    check_ade20k(cfg)
    dims = DIMS.get(number, [64, 128, 320, 512])
    assert cfg.model.backbone.drop_path_rate == 0.3
    head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.in_channels == dims and aux.in_channels == dims[2]
    assert head.num_classes == aux.num_classes == 150
    assert (aux.channels, aux.loss_decode.loss_weight) == (256, 0.4)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01)
    assert cfg.train_cfg.max_iters == 160000
    warmup, poly = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end) == (1e-6, 1500)
    assert (poly.power, poly.begin, poly.end) == (1.0, 1500, 160000)
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.default_hooks.checkpoint.interval == 16000

    model = build(cfg)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 64, 96), mode='tensor')
    assert logits.shape == (1, 150, 16, 24)


NORMS = (torch.nn.LayerNorm, torch.nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize('family, of_norms, of_others', [
    ('upernet_ade20k', 0., 0.01),
    ('sem_fpn_ade20k', 1e-4, 1e-4),
    ('retinanet', 1e-4, 1e-4),
    ('mask_rcnn', 1e-4, 1e-4),
])
def test_decay(family, of_norms, of_others, root):
    cfg = read(root, family, 1)
    pytest.importorskip(cfg.default_scope)
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups
             for p in group['params']}
    places = set()
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            is_norm = isinstance(module, NORMS)
            assert decay.pop(id(parameter)) == (
                of_norms if is_norm else of_others), name
            if is_norm:
                places.add(name.split('.')[0])
    assert not decay
    assert 'backbone' in places
    # The heads' norms are not called norm.
    assert ('decode_head' in places) is ('ade20k' in family)
