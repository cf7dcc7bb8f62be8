"""Test-time augmentation of segmentors with one output channel."""

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel


class AnySegTTAModel(SegTTAModel):
    """mmseg's SegTTAModel, that averages the scores of a sigmoid rightly.

    mmseg takes the sigmoid of scores that went through one already: they
    are 0.5 or more then, and above the threshold everywhere.
    """

    def merge_preds(self, data_samples_list):
        """Merge the predictions for augmented images.

        Args:
            data_samples_list (list[list[SegDataSample]]): For each image
                those of all its augmentations.

        Returns:
            list[SegDataSample]: For each image.
        """
        merged = super().merge_preds(data_samples_list)
        if self.module.out_channels == 1:
            for sample, augmented in zip(merged, data_samples_list):
                scores = torch.stack([
                    one.seg_logits.data for one in augmented]).mean(0)
                above = scores > self.module.decode_head.threshold
                sample.pred_sem_seg = PixelData(data=above.to(scores))
        return merged
