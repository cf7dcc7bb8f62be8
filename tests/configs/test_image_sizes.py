"""Whole detectors and segmentors take an image of any size.

80 images here, 800 by ``pytest --soak -m soak``.
"""

import warnings

import pytest
import torch
from helpers import fuzz
from hypothesis import strategies as st

CONFIGS = {
    'retinanet': 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco',
    'mask_rcnn': 'mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco',
    'sem_fpn': 'sem_fpn_ade20k/fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512',
    'upernet': 'upernet_ade20k/upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512',
}


def build(path):
    """Build the model of a config with a small backbone."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    dims = [6, 8, 12, 16]
    cfg.model.backbone.update(init_cfg=None, arch=dict(
        embed_dims=dims, depths=[1] * 4, mlp_ratios=[2] * 4))
    for key in ('neck', 'decode_head', 'auxiliary_head'):
        head = cfg.model.get(key)
        if head and head.in_channels == [64, 128, 320, 512]:
            head.in_channels = dims
        elif head and head.in_channels == 320:
            head.in_channels = dims[2]
    return cfg.default_scope, MODELS.build(cfg.model).eval()


def predict(scope, model, height, width):
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    size = height, width
    sample = Sample(metainfo=dict(
        img_shape=size, ori_shape=size, pad_shape=size,
        scale_factor=(1., 1.)))
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return model.test_step(dict(inputs=[image], data_samples=[sample]))[0]


@pytest.mark.soak
@pytest.mark.parametrize('name', CONFIGS)
def test_images_of_any_size(name, root, rounds):
    torch.manual_seed(0)
    scope, model = build(str(root / 'configs' / f'{CONFIGS[name]}.py'))

    def check(size):
        height, width = size
        try:
            sample = predict(scope, model, *size)
        except ValueError as error:  # detectors pad, segmentors do not
            assert min(size) < 3 and f'{height}x{width}' in str(error)
            return
        if scope == 'mmseg':
            assert sample.pred_sem_seg.shape == size
            assert sample.seg_logits.data.isfinite().all()
            return
        found = sample.pred_instances
        assert found.scores.isfinite().all()
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height] * 2)).all()
        if name == 'mask_rcnn':
            assert found.masks.shape[1:] == size

    fuzz.run(check, st.tuples(fuzz.SIZES, fuzz.SIZES), rounds(20, 200))
