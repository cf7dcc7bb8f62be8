"""Predictions for pictures of one's own, as mm makes and draws them."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, VISUALIZERS, init_default_scope

from ..backbones.cyclenet import CycleNet
from ..backbones.weights import adapt_state_dict, find_state_dict
from ..engine.config import read_config
from ..engine.mm_checkpoints import (
    check_fit,
    name_mismatch,
    read,
    read_whole_model,
)
from ..errors import UserError, describe, first_line
from .drawing import name_areas, names_and_colors, to_picture
from .media import UnreadableError
from .pipeline import Loaded, TestPipeline


class Prediction(NamedTuple):
    """What a model says of a picture.

    Attributes:
        picture (np.ndarray): The picture with it drawn in, (H, W, 3) of
            uint8, BGR.
        record (dict): In words and numbers, for JSON.
        label_map (np.ndarray | None): Index of the class of each pixel,
            (H, W), of a segmentor.
    """

    picture: np.ndarray
    record: dict
    label_map: Any = None


def build_predictor(cfg, checkpoint, device=None, classes=None, palette=None,
                    opacity=0.6, trusted=False):
    """Build what predicts and draws.

    Args:
        cfg (Config): Config of a detector, a segmentor or a classifier;
            changed in place.
        checkpoint (str): Path or URL of a checkpoint of the whole model; for
            a classifier also a released file.
        device (str | None): Such as 'cpu' or 'cuda:0'; None for a GPU if
            there is one. Default: None.
        classes (list[str] | None): Names of the classes. None for those in
            the checkpoint, or else those of the config's test data.
            Default: None.
        palette (str | None): Name of colors that mmdet or mmseg has, or
            'random'. None for those that go with the names. Default: None.
        opacity (float): Of what is drawn, 0 to 1. Default: 0.6.
        trusted (bool): Whether code in the checkpoint may be run.
            Default: False.

    Returns:
        Predictor: Call it with pictures.

    Raises:
        UserError: Config, device, names or palette do not serve.
        CheckpointError: The checkpoint cannot be read safely, or is of
            another model.
    """
    scope = cfg.get('default_scope')
    if scope not in _PREDICTORS:
        raise UserError(
            f'the config is of {scope}; what predicts for pictures is a '
            f'model of {", ".join(_PREDICTORS)}')
    if not cfg.get('model'):
        raise UserError('the config has no model')
    init_default_scope(scope)
    pipeline = TestPipeline(cfg)
    device = find_device(device)
    content = read_whole_model(checkpoint, cfg.model, trusted)
    before = cfg.get('data_preprocessor')
    if before and scope == 'mmpretrain':
        # It has it beside the model.
        cfg.model.setdefault('data_preprocessor', before)
    try:
        with name_mismatch(checkpoint):
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
    except Exception as error:  # of the model: the user's own Python
        raise UserError(
            f'the model cannot be built: {describe(error)}') from error
    check_fit(model, content['state_dict'], checkpoint)
    model.load_state_dict(content['state_dict'], strict=False)
    number, binary = _count_classes(model)
    meta = names_and_colors(cfg, content, classes, palette, number, binary)
    return _PREDICTORS[scope](
        model.to(device).eval(), pipeline, meta, opacity)


def find_device(name=None):
    """See that a device is there.

    Args:
        name (str | None): Such as 'cpu' or 'cuda:0'; None for a GPU if
            there is one. Default: None.

    Returns:
        str: Its name.

    Raises:
        UserError: It is not.
    """
    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # of many kinds
        reason = first_line(error).rstrip('.')
        raise UserError(f'--device {name}: {reason}; it can be cpu'
                        + (', cuda or cuda:NUMBER' if torch.cuda.is_available()
                           else ', and there is no GPU')) from error
    return name


def _count_classes(model):
    """How many classes a model knows, and whether it has one output alone.

    A segmentor with one channel tells a class from all else, so it has two
    labels, whatever its ``num_classes``.

    Returns:
        tuple[int | None, bool]: None if the model does not say.
    """
    parts = [getattr(model, 'roi_head', None), model]
    heads = [getattr(part, name, None) for part in parts
             for name in ('bbox_head', 'decode_head', 'panoptic_head',
                          'mask_head')]
    # A classifier's is in its backbone.
    heads.append(getattr(getattr(model, 'backbone', None), 'head', None))
    head = next((head for head in heads if head is not None), None)
    if isinstance(head, torch.nn.ModuleList):
        head = head[-1]
    # No other heads than mmseg's have both.
    if hasattr(head, 'conv_seg') and head.out_channels == 1:
        return 2, True
    return getattr(head, 'num_classes',
                   getattr(head, 'out_features', None)), False


class Predictor:
    """A model, and how its predictions are drawn and told.

    Args:
        model (nn.Module): With its weights, in eval mode.
        pipeline (TestPipeline): Loads the pictures.
        meta (dict): ``classes`` and ``palette``.
        opacity (float): Of what is drawn, 0 to 1.
    """

    visualizer = None

    def __init__(self, model, pipeline, meta, opacity):
        self.model, self.pipeline = model, pipeline
        self.classes = meta['classes']
        # No back end of the config's: nothing is to be logged.
        with VISUALIZERS.switch_scope_and_registry(None) as registry:
            self.visualizer = registry.get(self.visualizer)()
        self.visualizer.dataset_meta = meta
        self.visualizer.alpha = opacity

    def load(self, source):
        """Load a file as the test data of the config is loaded.

        Args:
            source (str): Path or URL.

        Returns:
            Loaded: What predictions can be made for.

        Raises:
            UnreadableError: The config's pipeline cannot load it.
        """
        return self.pipeline.load(source)

    def __call__(self, images, score_thr=0.3):
        """Predict.

        Args:
            images (list[Loaded | np.ndarray]): What :meth:`load` gave, or
                pictures, (H, W, 3) of uint8, BGR. All are equally large;
                they go through the model at once.
            score_thr (float): Score from which a detection counts.
                Default: 0.3.

        Returns:
            list[Prediction]: For each picture.

        Raises:
            UnreadableError: The model does not take pictures of this size.
            UserError: The device has not the memory.
        """
        images = [one if isinstance(one, Loaded)
                  else self.pipeline.load_frame(one) for one in images]
        height, width = images[0].size
        try:
            with torch.no_grad():
                samples = self.model.test_step(
                    pseudo_collate([one.data for one in images]))
        except (AssertionError, RuntimeError, ValueError, cv2.error) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise UserError(
                    f'{len(images)} times {width}x{height} at once is too '
                    'much for the memory of the GPU: make --batch-size '
                    'smaller, or use --device cpu') from error
            raise UnreadableError(
                f'the model does not take {width}x{height} with '
                f'{_channels(images[0].image)} channels: '
                + ' '.join(f'{error}'.split())) from error
        return [self._tell(_picture(image), sample.cpu(), score_thr)
                for image, sample in zip(images, samples)]

    def _draw(self, image, sample, **kwargs):
        self.visualizer.add_datasample('picture', image[..., ::-1], sample,
                                       draw_gt=False, **kwargs)
        return self.visualizer.get_image()[..., ::-1]


def _channels(image):
    return image.shape[2] if image.ndim > 2 else 1


def _picture(loaded):
    """What predictions are drawn in, of the size that they have."""
    try:
        picture = to_picture(loaded.image)
    except ValueError as error:
        raise UnreadableError(f'it cannot be drawn: {error}') from error
    if picture.shape[:2] != loaded.size:
        picture = cv2.resize(picture, loaded.size[::-1])
    return picture


class _Detector(Predictor):

    visualizer = 'DetLocalVisualizer'

    def _tell(self, image, sample, score_thr):
        if 'pred_instances' not in sample:
            raise UserError('the model gives no boxes or masks of instances, '
                            'which is all that is drawn for a detector')
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        sample.pred_instances = found
        picture = self._draw(image, sample, pred_score_thr=-1.)
        instances = [
            {'class': self.classes[label], 'label': label,
             'score': round(score, 4)}
            for label, score in zip(found.labels.tolist(),
                                    found.scores.tolist())]
        if 'bboxes' in found:
            for instance, box in zip(instances, found.bboxes.tolist()):
                instance['box'] = [round(value, 2) for value in box]
        if 'masks' in found:
            from mmdet.structures.mask import encode_mask_results

            for instance, mask in zip(
                    instances, encode_mask_results(found.masks.numpy())):
                mask['counts'] = mask['counts'].decode()
                instance['mask'] = mask
        return Prediction(picture, dict(instances=instances))


class _Segmentor(Predictor):

    visualizer = 'SegLocalVisualizer'

    def _tell(self, image, sample, score_thr):
        if 'pred_sem_seg' not in sample:
            raise UserError('the model gives no label maps, which is all '
                            'that is drawn for a segmentor')
        # Of a sigmoid they are floating-point numbers.
        labels = sample.pred_sem_seg.data[0].numpy().astype(np.int64)
        pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
        order = sorted(pixels.nonzero()[0], key=lambda label: -pixels[label])
        fractions = {self.classes[label]: round(
            pixels[label] / labels.size, 6) for label in order}
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        # mmseg's own way to place names takes seconds for a large picture.
        picture = name_areas(self._draw(image, sample, with_labels=False),
                              labels, self.classes)
        return Prediction(picture, dict(fractions=fractions),
                          labels.astype(kind))


class _Classifier(Predictor):

    visualizer = 'UniversalVisualizer'

    def _tell(self, image, sample, score_thr):
        best = sample.pred_score.topk(min(5, len(self.classes)))
        classes = [
            {'class': self.classes[label], 'label': label,
             'score': round(score, 4)}
            for label, score in zip(best.indices.tolist(),
                                    best.values.tolist())]
        self.visualizer.visualize_cls(image[..., ::-1], sample, self.classes,
                                      draw_gt=False)
        return Prediction(self.visualizer.get_image()[..., ::-1],
                          dict(classes=classes))


_PREDICTORS = dict(mmdet=_Detector, mmseg=_Segmentor, mmpretrain=_Classifier)


def build_backbone(name, weights=None, options=None, trusted=False):
    """Build a backbone to look into.

    Args:
        name (str): An arch such as 'b1', or path or name of a config.
        weights (str | None): File or URL of any kind that
            :func:`~mmcyclemlp.load_pretrained` takes; None leaves the
            weights random. Default: None.
        options (dict | None): Values that win over the config.
            Default: None.
        trusted (bool): Whether code in the file may be run. Default: False.

    Returns:
        tuple[CycleNet, list, list]: In eval mode; mean and std (RGB) by
        which its images are normalized, a number for all channels or one
        for each.

    Raises:
        UserError: There is no such config, or its backbone is another's.
        CheckpointError: The file cannot be read or does not fit.
    """
    state = weights and find_state_dict(read(weights, trusted))[0]
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    if name in CycleNet.arch_settings:
        norms = [key for key in state or () if key.startswith('norm')]
        model = CycleNet(name, fork_last3=bool(
            'norm2.weight' in norms and 'norm0.weight' not in norms))
    else:
        cfg = read_config(name, options=options)
        settings = cfg.get('model', {}).get('backbone')
        model = settings and MODELS.build(dict(settings, init_cfg=None))
        if not isinstance(model, CycleNet):
            raise UserError(f'the backbone of {name} is no CycleNet')
        before = cfg.model.get('data_preprocessor') or cfg.get(
            'data_preprocessor') or {}
        # mm leaves values as they are without a mean.
        mean = before.get('mean') or [0.]
        std = before.get('std') or [1.]
    if state:
        with name_mismatch(weights):
            adapt_state_dict(state, model)
            # Not strict, as output norms may stay.
            model.load_state_dict(state, strict=False)
    return model.eval(), list(mean), list(std)
