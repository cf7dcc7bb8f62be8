"""Head and hook of classifiers, for mmpretrain.

Only the configs in configs/imagenet import this module. Detectors and
segmentors do not need mmpretrain.
"""

from mmengine.model import BaseTTAModel

from ..errors import UserError, first_line

try:
    from mmpretrain.engine import EMAHook
    from mmpretrain.models import ClsHead
    from mmpretrain.registry import HOOKS, MODELS
except Exception as error:  # torchvision raises RuntimeError on a mismatch
    raise UserError(
        f'classifiers need mmpretrain and torchvision ({first_line(error)}): '
        "pip install -e '.[pretrain]' beside OneDL's libraries, "
        "'.[openmmlab-pretrain]' beside OpenMMLab's") from error


@MODELS.register_module()
class LogitsHead(ClsHead):
    """Compute loss and predictions from the logits of the backbone.

    ``CycleNet`` with ``fork_feat=False`` ends in a norm and a linear layer,
    as in the released files. So this head has no parameters, and each key
    of a checkpoint is ``backbone.`` and the key in such a file.

    Args:
        loss (dict): Config of the loss.
            Default: dict(type='CrossEntropyLoss', loss_weight=1.0).
        topk (int | tuple[int]): Top-k accuracies in training.
            Default: (1, ).
        cal_acc (bool): Whether to compute the accuracy in training. Set
            False if batches are mixed. Default: False.
        init_cfg (dict | None): Config of the initialization. Default: None.
    """

    def pre_logits(self, feats):
        """Return the logits (B, num_classes) unchanged."""
        return feats


@HOOKS.register_module()
class EMABesideHook(EMAHook):
    """mmpretrain's EMAHook that keeps the trained weights in ``state_dict``.

    mm saves the average as ``state_dict`` and the trained weights as
    ``ema_state_dict``, and starts a new training from the average. This hook
    saves them the other way round, as the released files have the trained
    weights under ``model``.
    """

    def before_run(self, runner):
        """Build the average, also of a model in test-time augmentation."""
        super().before_run(runner)
        if isinstance(self.src_model, BaseTTAModel):
            self.src_model = self.src_model.module
            self.ema_model = MODELS.build(
                self.ema_cfg, default_args=dict(model=self.src_model))

    def _swap_ema_state_dict(self, checkpoint):
        """Do not swap the two when mm saves or loads a checkpoint."""

    def after_load_checkpoint(self, runner, checkpoint):
        """Load the average only if the checkpoint has one."""
        super().after_load_checkpoint(runner, checkpoint)
        self.load_ema_from_ckpt = False
