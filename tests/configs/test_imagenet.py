"""The classifiers: recipe, sizes, and the images they are evaluated on."""

import io
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    MODELS,
    PARAM_SCHEDULERS,
    init_default_scope,
)
from PIL import Image

pytest.importorskip('mmpretrain')
transforms = pytest.importorskip('torchvision.transforms')

# Of the released classifiers, with 1000 classes.
PARAMETERS = [15155400, 26802504, 38385720, 51796552, 75747280]


def read(root, number=1):
    init_default_scope('mmpretrain')
    return Config.fromfile(
        root / 'configs' / 'imagenet'
        / f'cyclemlp-b{number}_8xb128_in1k.py')


def build(cfg):
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        return registry.build(cfg.copy())


@pytest.mark.parametrize('number, size', enumerate(PARAMETERS, 1))
def test_model(number, size, root):
    cfg = read(root, number)
    b1 = read(root)
    b1.model.backbone.arch = f'b{number}'
    assert cfg.to_dict() == b1.to_dict()
    model = build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == size
    assert all(key.startswith('backbone.') for key in model.state_dict())
    with torch.no_grad():
        logits = model.eval()(torch.zeros(1, 3, 64, 96), mode='tensor')
    assert logits.shape == (1, 1000)


def test_recipe(root):
    cfg = read(root)
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.train_dataloader.drop_last
    assert cfg.train_dataloader.sampler == dict(
        type='RepeatAugSampler', shuffle=True, num_repeats=3)
    assert cfg.auto_scale_lr.base_batch_size == 8 * 128
    # 5e-4 for 512 images.
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    average, = cfg.custom_hooks
    assert average.momentum == pytest.approx(1 - 0.99996)

    crop, flip, augment, erase = cfg.train_pipeline[1:-1]
    assert (crop.scale, crop.backend, crop.interpolation) == (
        224, 'pillow', 'bicubic')
    assert (flip.prob, flip.direction) == (0.5, 'horizontal')
    # rand-m9-mstd0.5-inc1; images are BGR here.
    assert (augment.policies, augment.num_policies, augment.total_level,
            augment.magnitude_level, augment.magnitude_std) == (
                'timm_increasing', 2, 10, 9, 0.5)
    mean = np.array([0.485, 0.456, 0.406]) * 255
    std = np.array([0.229, 0.224, 0.225]) * 255
    assert augment.hparams.pad_val == list(np.round(mean[::-1]))
    assert augment.hparams.interpolation == 'bicubic'
    assert (erase.erase_prob, erase.mode) == (0.25, 'rand')
    assert (erase.min_area_ratio, erase.max_area_ratio) == (0.02, 1 / 3)
    np.testing.assert_allclose(erase.fill_color, mean[::-1])
    np.testing.assert_allclose(erase.fill_std, std[::-1])
    np.testing.assert_allclose(cfg.model.data_preprocessor.mean, mean)
    np.testing.assert_allclose(cfg.model.data_preprocessor.std, std)


def test_decay(root):
    cfg = read(root)
    model = build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups
             for p in group['params']}
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim == 1 or name.endswith('.bias')
        assert decay.pop(id(parameter)) == (0 if exempt else 0.05), name
    assert not decay


def test_schedule(root):
    cfg = read(root)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))],
                                  lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer))
        for one in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()

    def official(t):
        if t < 5:
            return 1e-6 + t * (1e-3 - 1e-6) / 5
        return 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * t / 300))

    np.testing.assert_allclose(rates[:5], [official(t) for t in range(5)])
    # The official code is an epoch late, and its cosine begins under the
    # warm-up.
    np.testing.assert_allclose(
        rates[7:], [official(t) for t in range(6, 299)], rtol=0.04)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


def picture(size, mode='RGB', kind='PNG', **options):
    """The bytes of an image file, of noise on a slope."""
    width, height = size
    rng = np.random.default_rng(width * height)
    image = rng.integers(0, 120, (height, width, 4)) + np.linspace(
        0, 130, width).astype(int)[None, :, None]
    image = Image.fromarray(image.astype('uint8'), 'RGBA')
    file = io.BytesIO()
    image.convert('RGB' if mode != 'RGBA' else mode).convert(mode).save(
        file, kind, **options)
    return file.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    return exif


FILES = {
    **{f'{w}x{h}': picture((w, h)) for w, h in (
        (500, 375), (375, 500), (333, 499), (501, 333), (257, 256),
        (255, 256), (256, 256), (97, 301), (301, 97), (640, 427),
        (299, 300), (1001, 225))},
    'JPEG': picture((333, 251), kind='JPEG', quality=85),
    'CMYK': picture((251, 333), mode='CMYK', kind='JPEG'),
    'grey': picture((251, 333), mode='L', kind='JPEG'),
    'palette': picture((251, 333), mode='P'),
    'with alpha': picture((251, 333), mode='RGBA'),
    'with EXIF': picture((333, 251), kind='JPEG', exif=rotated()),
}


@pytest.mark.parametrize('resized', [256, 248])
@pytest.mark.parametrize('name', FILES)
def test_crop_is_the_official_one(name, resized, root, tmp_path):
    cfg = read(root)
    if resized != 256:
        cfg.merge_from_dict(
            {'test_dataloader.dataset.pipeline.1.scale': resized})
    path = tmp_path / 'file'
    path.write_bytes(FILES[name])
    official = transforms.Compose([
        transforms.Resize(resized, interpolation=Image.BICUBIC),
        transforms.CenterCrop(224)])(Image.open(path).convert('RGB'))
    from mmcv.transforms import Compose

    data = Compose(cfg.test_dataloader.dataset.pipeline)(
        dict(img_path=str(path), gt_label=0))
    assert data['inputs'].shape == (3, 224, 224)
    ours = data['inputs'].flip(0).permute(1, 2, 0).numpy()
    assert np.array_equal(ours, np.asarray(official))

    normalized = transforms.Compose([
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])(official)
    inputs = build(cfg.model).data_preprocessor(
        dict(inputs=data['inputs'][None],
             data_samples=[data['data_samples']]))['inputs']
    torch.testing.assert_close(inputs[0], normalized, rtol=0, atol=1e-5)


def test_what_is_validated_is_what_is_tested(root):
    cfg = read(root)
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator == cfg.test_evaluator == dict(
        type='Accuracy', topk=(1, 5))
