"""The parts of a model that can be exported.

This module needs torch alone. mm is imported only for a whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones.weights import load_pretrained
from ..engine.config_nodes import is_classifier
from ..errors import CheckpointError, UserError
from .models import build_backbone, build_model, is_backbone_alone

PARTS = ('backbone', 'neck', 'whole')


class Part(nn.Module):
    """A part of a model, from normalized images to tensors.

    Args:
        model (nn.Module): Backbone, classifier, detector or segmentor.
        part (str): 'backbone', 'neck' (with the backbone before it) or
            'whole': the logits of a classifier; the logits of a segmentor
            at the size of the image; the outputs of the head of a detector
            like RetinaNet.

    Inputs:
        image (Tensor): (B, C, H, W).

    Raises:
        UserError: The model has no such part, or it cannot be exported.
    """

    def __init__(self, model: nn.Module, part: str):
        super().__init__()
        self.model = model
        if part == 'neck' and getattr(model, 'neck', None) is None:
            raise UserError('--part neck: the model has no neck')
        if part == 'neck':
            self._run, self._name = _maps, 'level{}'.format
        elif part == 'backbone' or is_classifier(model):
            self._run = _backbone
            self._name = (
                _logits if is_classifier(model)
                else lambda i: f'stage{_body(model).out_indices[i] + 1}')
        else:
            self._run, self._name = _find_head(model)

    def forward(self, image: torch.Tensor) -> Any:
        """Return the outputs of the part."""
        return self._run(self.model, image)

    @torch.no_grad()
    def outputs(self, image: torch.Tensor) -> dict[str, tuple]:
        """Return the shapes of the outputs for an image, by their names."""
        tensors = [one for kind in _as_list(self(image))
                   for one in _as_list(kind)]
        return {self._name(i): tuple(one.shape)
                for i, one in enumerate(tensors)}


def _as_list(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else outputs


def _body(model):
    return getattr(model, 'backbone', model)


def _find_head(model):
    """Return the function of the whole model, and its outputs' names."""
    kind, head = type(model).__name__, getattr(model, 'bbox_head', None)
    if hasattr(model, 'roi_head'):
        raise UserError(
            f'--part whole: the heads of a {kind} are not exported, since '
            'they depend on the boxes that are found first: give --part '
            'neck')
    # Other heads have other outputs, such as masks or points.
    if hasattr(head, 'prior_generator') and hasattr(head, 'bbox_coder') and (
            not hasattr(model, 'mask_head')):
        levels = len(head.prior_generator.strides)
        kinds = ['cls_score', 'bbox_pred', 'centerness']
        return _detect, lambda i: f'{kinds[i // levels]}{i % levels}'
    if hasattr(getattr(model, 'decode_head', None), 'align_corners'):
        return _segment, _logits
    raise UserError(
        f'--part whole: the heads of a {kind} are not exported, only those '
        'of segmentors and of detectors like RetinaNet: give --part neck or '
        '--part backbone')


def _logits(i):
    return 'logits'


def _backbone(model, image):
    return _body(model)(image)


def _maps(model, image):
    return model.extract_feat(image)


def _detect(model, image):
    return model.bbox_head(model.extract_feat(image))


def _segment(model, image):
    logits = model.decode_head(model.extract_feat(image))
    return F.interpolate(logits, size=image.shape[2:], mode='bilinear',
                         align_corners=model.align_corners)


class Normalized(nn.Module):
    """A network with the normalization before it.

    Args:
        module (nn.Module): Takes normalized images.
        mean (Sequence[float]): One value per channel.
        std (Sequence[float]): One value per channel.

    Inputs:
        image (Tensor): (B, C, H, W), values of 0 to 255.
    """

    def __init__(self, module: nn.Module, mean: Sequence[float],
                 std: Sequence[float]):
        super().__init__()
        self.module = module
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(
                values, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: torch.Tensor) -> Any:
        """Return the network's outputs for the normalized images."""
        return self.module((image - self.mean) / self.std)


def build_part(cfg: Any, checkpoint: str | None, part: str,
               trusted: bool = False) -> Part:
    """Build the model of a config, load its weights, and take a part.

    Args:
        cfg (Config | dict): Of an arch, a detector, a segmentor or a
            classifier; changed in place.
        checkpoint (str | None): Checkpoint of the whole model; for the
            backbone or a classifier any file of weights. None leaves the
            weights random.
        part (str): One of :data:`PARTS`.
        trusted (bool): Whether code in the checkpoint may be run.
            Default: False.

    Returns:
        Part: In eval mode.

    Raises:
        UserError: The model cannot be built, has no such part, or it cannot
            be exported.
        CheckpointError: The checkpoint cannot be read or does not fit.
    """
    alone = part == 'backbone' or is_backbone_alone(cfg)
    if alone:
        model = build_backbone(cfg)
        if part == 'whole' and not is_classifier(model):
            raise UserError('--part whole: the backbone has no classifier, '
                            'which fork_feat=False adds: give --part backbone')
    else:
        if cfg['model'].get('backbone'):
            cfg['model']['backbone']['init_cfg'] = None
        model = build_model(cfg)
    chosen = Part(model, part)
    if checkpoint is None:
        return chosen
    if alone:
        report = load_pretrained(model, checkpoint, trusted=trusted)
        if any(key.startswith('head.') for key in report.kept):
            raise CheckpointError(
                f'{checkpoint} has no classifier, whose logits are exported: '
                'give --part backbone')
        return chosen
    from ..engine.mm_checkpoints import check_fit, read_whole_model

    state = read_whole_model(checkpoint, cfg['model'], trusted)['state_dict']
    check_fit(model, state, checkpoint)
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    return chosen
