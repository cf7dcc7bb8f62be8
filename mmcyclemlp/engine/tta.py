"""Test-time augmentation of segmentors with one output channel."""

from __future__ import annotations

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample


class AnySegTTAModel(SegTTAModel):
    """mmseg's SegTTAModel, also for one output channel.

    mmseg applies the sigmoid twice to a single channel. The scores are then
    0.5 or more, so that every pixel is above the threshold.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]],
                    ) -> list[SegDataSample]:
        """Merge the predictions for augmented images.

        Args:
            data_samples_list (list[list[SegDataSample]]): For each image
                the predictions for all its augmentations.

        Returns:
            list[SegDataSample]: One for each image.
        """
        merged = super().merge_preds(data_samples_list)
        if self.module.out_channels == 1:
            for sample, augmented in zip(merged, data_samples_list):
                scores = torch.stack([
                    one.seg_logits.data for one in augmented]).mean(0)
                above = scores > self.module.decode_head.threshold
                sample.pred_sem_seg = PixelData(data=above.to(scores))
        return merged
