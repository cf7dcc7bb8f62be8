"""Predictions for single pictures, computed and drawn by mm."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import VISUALIZERS, init_default_scope
from torch import nn

from ..engine.mm_checkpoints import check_fit, name_mismatch, read_whole_model
from ..errors import UserError
from .class_names import name_areas, names_and_colors
from .image_pipeline import Loaded, TestPipeline
from .media import UnreadableError
from .models import build_model, find_device
from .pictures import to_picture


class Prediction(NamedTuple):
    """The prediction for a picture.

    Attributes:
        picture (np.ndarray): The picture with the prediction drawn into it,
            (H, W, 3) of uint8, BGR.
        record (dict): The prediction as plain values, for JSON.
        label_map (np.ndarray | None): Index of the class of each pixel,
            (H, W). Only of a segmentor.
    """

    picture: np.ndarray
    record: dict
    label_map: Any = None


def build_predictor(
    cfg: Any,
    checkpoint: str,
    device: str | None = None,
    classes: list[str] | None = None,
    palette: str | None = None,
    opacity: float = 0.6,
    trusted: bool = False,
) -> Predictor:
    """Build a model that predicts for pictures and draws the predictions.

    Args:
        cfg (Config): Config of a detector, a segmentor or a classifier;
            changed in place.
        checkpoint (str): Path or URL of a checkpoint of the whole model; for
            a classifier also a released file.
        device (str | None): Such as 'cpu' or 'cuda:0', as torch takes it.
            None for a GPU if there is one. Default: None.
        classes (list[str] | None): Names of the classes. None for those in
            the checkpoint, or else those of the config's test data.
            Default: None.
        palette (str | None): Name of a palette of mmdet or mmseg, or
            'random'. None for the one that belongs to the class names.
            Default: None.
        opacity (float): Opacity of what is drawn, 0 to 1. Default: 0.6.
        trusted (bool): Whether code in the checkpoint may be run.
            Default: False.

    Returns:
        Predictor: Call it with pictures.

    Raises:
        UserError: The config, the device, the names or the palette cannot
            be used.
        CheckpointError: The checkpoint cannot be read safely, or belongs to
            another model.
    """
    scope = cfg.get('default_scope')
    if scope not in _PREDICTORS:
        raise UserError(
            f'default_scope of the config is {scope}; only models of '
            f'{", ".join(_PREDICTORS)} can predict for pictures')
    if not cfg.get('model'):
        raise UserError('the config has no model')
    init_default_scope(scope)
    pipeline = TestPipeline(cfg)
    device = find_device(device)
    content = read_whole_model(checkpoint, cfg.model, trusted)
    before = cfg.get('data_preprocessor')
    if before and scope == 'mmpretrain':
        # mmpretrain has it beside the model.
        cfg.model.setdefault('data_preprocessor', before)
    with name_mismatch(checkpoint):
        model = build_model(cfg)
    check_fit(model, content['state_dict'], checkpoint)
    model.load_state_dict(content['state_dict'], strict=False)
    number, binary = _count_classes(model)
    meta = names_and_colors(cfg, content, classes, palette, number, binary)
    return _PREDICTORS[scope](
        model.to(device), pipeline, meta, opacity)


def _count_classes(model):
    """Return the number of classes, and whether there is a single output.

    A segmentor with one channel separates a class from everything else, so
    it has two labels, whatever its ``num_classes``.

    Returns:
        tuple[int | None, bool]: The number is None if it is unknown.
    """
    parts = [getattr(model, 'roi_head', None), model]
    heads = [getattr(part, name, None) for part in parts
             for name in ('bbox_head', 'decode_head', 'panoptic_head',
                          'mask_head')]
    # The head of a classifier is in its backbone.
    heads.append(getattr(getattr(model, 'backbone', None), 'head', None))
    head = next((head for head in heads if head is not None), None)
    if isinstance(head, torch.nn.ModuleList):
        head = head[-1]
    # Only heads of mmseg have both.
    if hasattr(head, 'conv_seg') and head.out_channels == 1:
        return 2, True
    return getattr(head, 'num_classes',
                   getattr(head, 'out_features', None)), False


class Predictor:
    """A model that predicts for pictures and draws the predictions.

    Args:
        model (nn.Module): Model with its weights, in eval mode.
        pipeline (TestPipeline): Loads the pictures.
        meta (dict): ``classes`` and ``palette``.
        opacity (float): Opacity of what is drawn, 0 to 1.
    """

    visualizer = None

    def __init__(self, model: nn.Module, pipeline: TestPipeline, meta: dict,
                 opacity: float):
        self.model, self.pipeline = model, pipeline
        self.classes = meta['classes']
        # Without the backends of the config, which would log.
        with VISUALIZERS.switch_scope_and_registry(None) as registry:
            self.visualizer = registry.get(self.visualizer)()
        self.visualizer.dataset_meta = meta
        self.visualizer.alpha = opacity

    def load(self, source: str) -> Loaded:
        """Load a file with the test pipeline of the config.

        Args:
            source (str): Path or URL.

        Returns:
            Loaded: Input of the predictor.

        Raises:
            UnreadableError: The config's pipeline cannot load it.
        """
        return self.pipeline.load(source)

    def __call__(self, images: list, score_thr: float = 0.3
                 ) -> list[Prediction]:
        """Predict for pictures of one size, as one batch.

        Args:
            images (list[Loaded | np.ndarray]): Results of :meth:`load`, or
                pictures, (H, W, 3) of uint8, BGR.
            score_thr (float): Lowest score of a detection. Default: 0.3.

        Returns:
            list[Prediction]: One for each picture.

        Raises:
            UnreadableError: The model does not take pictures of this size.
            UserError: The GPU is out of memory.
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
                    f'the GPU is out of memory for {len(images)} pictures '
                    f'of {width}x{height} at once: give a smaller '
                    '--batch-size, or --device cpu') from error
            raise UnreadableError(
                f'the model does not take {width}x{height} with '
                f'{_channels(images[0].image)} channels: '
                + ' '.join(f'{error}'.split())) from error
        return [self._describe(_picture(image), sample.cpu(), score_thr)
                for image, sample in zip(images, samples)]

    def _draw(self, image, sample, **kwargs):
        self.visualizer.add_datasample('picture', image[..., ::-1], sample,
                                       draw_gt=False, **kwargs)
        return self.visualizer.get_image()[..., ::-1]


def _channels(image):
    return image.shape[2] if image.ndim > 2 else 1


def _picture(loaded):
    """Return the picture to draw into, of the size of the predictions."""
    try:
        picture = to_picture(loaded.image)
    except ValueError as error:
        raise UnreadableError(f'it cannot be drawn: {error}') from error
    if picture.shape[:2] != loaded.size:
        picture = cv2.resize(picture, loaded.size[::-1])
    return picture


class _Detector(Predictor):

    visualizer = 'DetLocalVisualizer'

    def _describe(self, image, sample, score_thr):
        if 'pred_instances' not in sample:
            raise UserError('the detector predicts no instances; only boxes '
                            'and masks of instances can be drawn')
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

    def _describe(self, image, sample, score_thr):
        if 'pred_sem_seg' not in sample:
            raise UserError('the segmentor predicts no label maps, and only '
                            'these can be drawn')
        # A sigmoid's labels are floating-point numbers.
        labels = sample.pred_sem_seg.data[0].numpy().astype(np.int64)
        pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
        order = sorted(pixels.nonzero()[0], key=lambda label: -pixels[label])
        fractions = {self.classes[label]: round(
            pixels[label] / labels.size, 6) for label in order}
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        # mmseg takes seconds to place names in a large picture.
        picture = name_areas(self._draw(image, sample, with_labels=False),
                             labels, self.classes)
        return Prediction(picture, dict(fractions=fractions),
                          labels.astype(kind))


class _Classifier(Predictor):

    visualizer = 'UniversalVisualizer'

    def _describe(self, image, sample, score_thr):
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
