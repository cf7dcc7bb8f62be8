"""Test-time augmentation of a segmentor with one output channel."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmseg')


@pytest.mark.parametrize('channels', [1, 2])
def test_averages_scores(channels):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from mmcyclemlp.engine.tta import AnySegTTAModel

    def sample(*scores):
        logits = torch.tensor(scores).view(1, 1, -1)
        if channels == 2:  # mmseg applies a softmax to these
            logits = torch.cat([1 - logits, logits]).log()
        one = SegDataSample(metainfo=dict(img_path='a.png'))
        one.seg_logits = PixelData(data=logits)
        one.gt_sem_seg = PixelData(data=torch.zeros(1, 1, 3).long())
        return one

    model = AnySegTTAModel.__new__(AnySegTTAModel)
    torch.nn.Module.__init__(model)
    # mmseg's merge_preds reads these of the segmentor.
    model.__dict__['module'] = SimpleNamespace(
        out_channels=channels,
        decode_head=SimpleNamespace(threshold=.5, out_channels=channels))
    # Means 0.2, 0.45 and 0.6; a second sigmoid would make all positive.
    merged, = model.merge_preds(
        [[sample(.1, .8, .7), sample(.3, .1, .5)]])
    assert merged.pred_sem_seg.data.view(-1).tolist() == [0, 0, 1]
