"""Files are loaded by a config's own pipeline, without annotations."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope

from mmcyclemlp.apis.image_pipeline import TestPipeline
from mmcyclemlp.apis.media import UnreadableError
from mmcyclemlp.engine.config_nodes import leaves
from mmcyclemlp.errors import UserError


@TRANSFORMS.register_module(force=True)
class LoadBandsOfReading(BaseTransform):

    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        results['ori_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module(force=True)
class ChangeLabelsOfReading(BaseTransform):

    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 100
        return results


@TRANSFORMS.register_module(force=True)
class NeedDepthOfReading(BaseTransform):

    def transform(self, results):
        return dict(results, depth=results['depth_path'])


PACK = dict(type='PackSegInputs')


@pytest.fixture(autouse=True)
def _scope():
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')


def pipeline(*steps, **more):
    return TestPipeline(Config(dict(test_dataloader=dict(dataset=dict(
        more, type='BaseSegDataset', pipeline=list(steps))))))


def test_own_loader(tmp_path):
    bands = np.random.RandomState(0).rand(6, 8, 5)
    np.save(tmp_path / 'a.npy', bands)
    found = pipeline(dict(type='LoadBandsOfReading'), PACK,
                     img_suffix='_x.TIF')
    assert found.suffixes == ('.npy', '.npz', '.tif')
    loaded = found.load(str(tmp_path / 'a.npy'))
    assert (loaded.image == bands).all() and loaded.size == (6, 8)
    assert loaded.data['inputs'].shape == (5, 6, 8)
    with pytest.raises(UnreadableError, match='by LoadBandsOfReading: '):
        found.load_frame(np.zeros((6, 8, 3), np.uint8))


def test_settings_of_the_loader(tmp_path):
    image = np.arange(6 * 8 * 3, dtype=np.uint16).reshape(6, 8, 3) * 400
    cv2.imwrite(str(tmp_path / 'a.tif'), image)
    for settings, expected in (
            (dict(color_type='unchanged', to_float32=True),
             image.astype(np.float32)),
            ({}, image // 256)):
        found = pipeline(dict(type='LoadImageFromFile', **settings), PACK)
        loaded = found.load(str(tmp_path / 'a.tif'))
        np.testing.assert_allclose(loaded.image, expected, atol=1)
        assert loaded.image.dtype == (np.float32 if settings else np.uint8)
    assert found.suffixes == ()


def test_steps_for_annotations_are_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((6, 8, 3), np.uint8))
    found = pipeline(
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='ChangeLabelsOfReading'), PACK)
    for _ in range(2):
        assert found.load(str(tmp_path / 'a.png')).data['inputs'].shape == (
            3, 6, 8)
    assert found._skipped == {'LoadAnnotations', 'ChangeLabelsOfReading'}
    found = pipeline(dict(type='LoadImageFromFile'),
                     dict(type='NeedDepthOfReading'), PACK)
    with pytest.raises(UnreadableError, match="NeedDepthOfReading of the test "
                       "pipeline needs 'depth_path'"):
        found.load(str(tmp_path / 'a.png'))


def test_wrappers():
    first, second = dict(pipeline=[]), dict(pipeline=[PACK])
    concat = dict(datasets=[dict(dataset=first), second])
    assert leaves(concat) == [first, second]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(
        type='MultiImageMixDataset', pipeline=[PACK], dataset=dict(
            pipeline=[dict(type='LoadImageFromFile')])))))
    assert [type(step).__name__ for step in TestPipeline(cfg).steps] == [
        'LoadImageFromFile', 'PackSegInputs']


@pytest.mark.parametrize('steps, message', [
    ([], 'has no pipeline'),
    ([dict(type='NoSuchStep')], 'pipeline cannot be built: '),
])
def test_no_pipeline(steps, message):
    with pytest.raises(UserError, match=message):
        pipeline(*steps)
