"""What the classifiers of configs/imagenet need beside mmpretrain.

Imported by those configs alone: detectors and segmentors do without it.
"""

from mmengine.model import BaseTTAModel

from ..errors import UserError, first_line

try:
    from mmpretrain.engine import EMAHook
    from mmpretrain.models import ClsHead
    from mmpretrain.registry import HOOKS, MODELS
except Exception as error:  # also what a torchvision of another torch does
    raise UserError(
        f'classifiers need mmpretrain and torchvision ({first_line(error)}): '
        "pip install -e '.[pretrain]' beside OneDL's libraries, "
        "'.[openmmlab-pretrain]' beside OpenMMLab's") from error


@MODELS.register_module()
class LogitsHead(ClsHead):
    """Loss and predictions from logits that the backbone gives itself.

    ``CycleNet`` with ``fork_feat=False`` ends in norm and linear layer, as
    in the released files. So this head has no parameters, and a checkpoint
    of the classifier is such a file with ``backbone.`` before each key.

    Args:
        loss (dict): Config of the loss.
            Default: dict(type='CrossEntropyLoss', loss_weight=1.0).
        topk (int | tuple[int]): For which k the accuracy in training is.
            Default: (1, ).
        cal_acc (bool): Whether to give the accuracy in training, which
            batches that were mixed do not have. Default: False.
        init_cfg (dict | None): As of any module of mm. Default: None.
    """

    def pre_logits(self, feats):
        """The logits (B, num_classes) as they come."""
        return feats


@HOOKS.register_module()
class EMABesideHook(EMAHook):
    """mmpretrain's EMAHook, but the trained weights stay in their place.

    In checkpoints mm puts the average under ``state_dict`` and the trained
    weights under ``ema_state_dict``, and begins another training with the
    average. Here neither is done: ``state_dict`` is what is trained and
    evaluated, as under ``model`` in the released files, and the average
    lies beside it.
    """

    def before_run(self, runner):
        """Average the classifier, also inside test-time augmentation."""
        super().before_run(runner)
        if isinstance(self.src_model, BaseTTAModel):
            self.src_model = self.src_model.module
            self.ema_model = MODELS.build(
                self.ema_cfg, default_args=dict(model=self.src_model))

    def _swap_ema_state_dict(self, checkpoint):
        """Leave the two where they are, when saving and when loading."""

    def after_load_checkpoint(self, runner, checkpoint):
        super().after_load_checkpoint(runner, checkpoint)
        self.load_ema_from_ckpt = False
