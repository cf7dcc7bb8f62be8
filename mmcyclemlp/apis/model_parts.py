"""The parts of a config's model that can be exported."""

import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..backbones import CycleNet
from ..backbones.weights import load_pretrained
from ..engine.config_nodes import is_classifier
from ..engine.mm_checkpoints import check_fit, read_whole_model
from ..errors import CheckpointError, UserError, describe

PARTS = ('backbone', 'neck', 'whole')


class Part(nn.Module):
    """A part of a model, from normalised images to tensors.

    Args:
        model (nn.Module): Backbone, classifier, detector or segmentor.
        part (str): 'backbone', 'neck' (with what is before it) or 'whole':
            logits of a classifier; of a segmentor, at the size of the
            image; of a detector like RetinaNet what its head gives.

    Inputs:
        image (Tensor): (B, C, H, W).

    Raises:
        UserError: The model has no such part, or it cannot be exported.
    """

    def __init__(self, model, part):
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

    def forward(self, image):
        return self._run(self.model, image)

    @torch.no_grad()
    def outputs(self, image):
        """Shapes of the outputs for an image, by the outputs' names."""
        tensors = [one for kind in _as_list(self(image))
                   for one in _as_list(kind)]
        return {self._name(i): tuple(one.shape)
                for i, one in enumerate(tensors)}


def _as_list(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else outputs


def _body(model):
    return getattr(model, 'backbone', model)


def _find_head(model):
    """What the whole model computes, and the names of its outputs."""
    kind, head = type(model).__name__, getattr(model, 'bbox_head', None)
    if hasattr(model, 'roi_head'):
        raise UserError(
            f'--part whole: of a {kind} the heads are not exported, as what '
            'they compute depends on the boxes found before: give --part '
            'neck')
    # Not what gives other things than scores and boxes, masks or points.
    if hasattr(head, 'prior_generator') and hasattr(head, 'bbox_coder') and (
            not hasattr(model, 'mask_head')):
        levels = len(head.prior_generator.strides)
        kinds = ['cls_score', 'bbox_pred', 'centerness']
        return _detect, lambda i: f'{kinds[i // levels]}{i % levels}'
    if hasattr(getattr(model, 'decode_head', None), 'align_corners'):
        return _segment, _logits
    raise UserError(
        f'--part whole: of a {kind} the heads are not exported, but those '
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
    """A network on images of 0 to 255.

    Args:
        module (nn.Module): Takes normalised images.
        mean (Sequence[float]): One a channel.
        std (Sequence[float]): One a channel.

    Inputs:
        image (Tensor): (B, C, H, W), of 0 to 255.
    """

    def __init__(self, module, mean, std):
        super().__init__()
        self.module = module
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(
                values, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image):
        return self.module((image - self.mean) / self.std)


def build_part(cfg, checkpoint, part, trusted=False):
    """Build a config's model, load its weights, and take a part.

    Args:
        cfg (Config): Of a detector, a segmentor or a classifier; changed in
            place.
        checkpoint (str | None): Of the whole model; for the backbone or a
            classifier any file of weights. None leaves them at random.
        part (str): One of :data:`PARTS`.
        trusted (bool): Whether code in the checkpoint may be run.
            Default: False.

    Returns:
        Part: To be evaluated.

    Raises:
        UserError: The model cannot be built, has no such part, or it cannot
            be exported.
        CheckpointError: The checkpoint cannot be read or does not fit.
    """
    if cfg.model.get('backbone') is None:
        raise UserError('the model of the config has no backbone')
    cfg.model.backbone.init_cfg = None
    scope = cfg.get('default_scope') or 'mmengine'
    # A classifier is a backbone whose mm head has no parameters.
    alone = part == 'backbone' or scope in ('mmengine', 'mmpretrain')
    init_default_scope(scope)
    try:
        model = MODELS.build(cfg.model.backbone if alone else cfg.model)
    except Exception as error:  # of the model: the user's own Python
        raise UserError(
            f'the model cannot be built: {describe(error)}') from error
    if alone and not isinstance(model, CycleNet):
        raise UserError(f'the backbone is a {type(model).__name__}, and '
                        'alone only a CycleNet is exported')
    if alone and part == 'whole' and not is_classifier(model):
        raise UserError('--part whole: the backbone has no classifier in it '
                        '(fork_feat=False): give --part backbone')
    model = revert_sync_batchnorm(model).eval()
    chosen = Part(model, part)
    if checkpoint is None:
        return chosen
    if alone:
        report = load_pretrained(model, checkpoint, trusted=trusted)
        if any(key.startswith('head.') for key in report.kept):
            raise CheckpointError(
                f'{checkpoint} has no classifier, and its logits are to be '
                'exported: give --part backbone')
        return chosen
    state = read_whole_model(
        checkpoint, cfg.model, trusted)['state_dict']
    check_fit(model, state, checkpoint)
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    return chosen
