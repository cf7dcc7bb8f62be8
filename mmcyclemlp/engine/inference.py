"""Predictions for pictures of one's own, by mm's inferencers."""

from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import CheckpointLoader

from ..backbones.checkpoint import (
    CheckpointError,
    adapt_state_dict,
    find_state_dict,
)
from ..backbones.cyclenet import CycleNet
from .errors import UserError, describe
from .inputs import UnreadableError
from .launch import read_config
from .loading import check_fit, naming, read, read_whole


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
        palette (str | None): Name of colours that mmdet or mmseg has, or
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
    if not cfg.get('test_dataloader'):
        raise UserError('the config has no test_dataloader, whose pipeline '
                        'says how a picture is prepared')
    device = find_device(device)
    content = read_whole(checkpoint, cfg.model, trusted)
    init_default_scope(scope)
    meta = _names_and_colours(cfg, content, classes, palette)
    content = dict(state_dict=content['state_dict'],
                   meta=dict(dataset_meta=meta))

    try:
        with _handing_over(content), naming(checkpoint):
            predictor = _PREDICTORS[scope](cfg, checkpoint, device, meta)
    except (UserError, CheckpointError):
        raise
    except Exception as error:  # of the model: the user's own Python
        raise UserError(
            f'the model cannot be built: {describe(error)}') from error
    check_fit(predictor.inferencer.model, content['state_dict'], checkpoint)
    _check_number(predictor.inferencer.model, meta['classes'])
    predictor.inferencer.visualizer.alpha = opacity
    return predictor


@contextmanager
def _handing_over(content):
    """Have mm's loader give what was read already, whatever it asks for."""
    # mm logs the end of its name.
    def load_from_file(filename, map_location=None):
        return content

    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict.fromkeys(before, load_from_file)
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


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
        reason = f'{error}'.partition('\n')[0].rstrip('.')
        raise UserError(f'--device {name}: {reason}; it can be cpu'
                        + (', cuda or cuda:NUMBER' if torch.cuda.is_available()
                           else ', and there is no GPU')) from error
    return name


def _names_and_colours(cfg, checkpoint, classes, palette):
    """Class names and as many colours.

    Returns:
        dict: ``classes``, a list of str, and ``palette``, a list of RGB.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    meta = meta.get('dataset_meta') or meta  # mm 2.x has them beside it
    meta = {str(key).lower(): value for key, value in meta.items()}
    if not meta.get('classes') and not classes:
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        meta = DATASETS.build(dict(dataset, lazy_init=True)).metainfo
    names = [str(name) for name in classes or meta.get('classes') or ()]
    if not names:
        raise UserError('neither the checkpoint nor the config has names of '
                        'classes: give --classes')
    if palette is None:
        try:
            colours = _colours(meta.get('palette'), len(names))
        except (TypeError, ValueError):
            colours = _random_palette(len(names))
    else:
        colours = _named_palette(palette, len(names), cfg.default_scope)
    return dict(classes=names, palette=colours)


def _colours(palette, number):
    """The first of a palette as tuples of RGB, if it has so many."""
    if len(palette) < number:
        raise ValueError(f'it has {len(palette)} colours')
    return [tuple(int(value) for value in colour)
            for colour in palette[:number]]


def _named_palette(name, number, scope):
    if name == 'random':
        return _random_palette(number)
    try:
        if scope == 'mmdet':
            from mmdet.visualization.palette import get_palette

            return _colours(get_palette(name, number), number)
        from mmseg.utils import get_palette

        return _colours(get_palette(name), number)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f'--palette {name}: {scope} has no such colours for {number} '
            'classes; random will do for any number') from error


def _random_palette(number):
    """The same at each call."""
    colours = np.random.RandomState(42).randint(0, 256, (number, 3))
    return [tuple(colour) for colour in colours.tolist()]


def _check_number(model, names):
    """See that each class of the model has a name."""
    parts = [getattr(model, 'roi_head', None), model]
    heads = [getattr(part, name, None) for part in parts
             for name in ('bbox_head', 'decode_head', 'panoptic_head',
                          'mask_head')]
    # A classifier's is in its backbone.
    heads.append(getattr(model.backbone, 'head', None))
    head = next((head for head in heads if head is not None), None)
    if isinstance(head, torch.nn.ModuleList):
        head = head[-1]
    number = getattr(head, 'num_classes', getattr(
        head, 'out_features', len(names)))
    if number != len(names):
        raise UserError(
            f'the model knows {number} classes, and {len(names)} names are '
            f'known: {", ".join(names[:5])}'
            f'{" ..." if len(names) > 5 else ""}. Give --classes with '
            f'{number} names')


class Predictor:
    """A model, and how its predictions are drawn and told.

    Args:
        cfg (Config): The config.
        checkpoint (str): What to load.
        device (str): Where to run.
        meta (dict): ``classes`` and ``palette``.
    """

    scope = visualizer = None

    def __init__(self, cfg, checkpoint, device, meta):
        # No back end of the config's: nothing is to be logged.
        cfg.visualizer = ConfigDict(type=self.visualizer)
        self.inferencer = self._inferencer()(cfg, checkpoint, device=device)
        self.inferencer.show_progress = False
        self.classes = meta['classes']

    def __call__(self, images, score_thr=0.3):
        """Predict.

        Args:
            images (list[np.ndarray]): Pictures of equal size, (H, W, 3) of
                uint8, BGR; they go through the model at once.
            score_thr (float): Score from which a detection counts.
                Default: 0.3.

        Returns:
            list[Prediction]: For each picture.

        Raises:
            UnreadableError: The model does not take pictures of this size.
            UserError: The device has not the memory.
        """
        size = f'{images[0].shape[1]}x{images[0].shape[0]}'
        try:
            samples = self._run(images)
        except (ValueError, cv2.error) as error:
            raise UnreadableError(
                f'the model does not take {size}: '
                + f'{error}'.strip().replace('\n', ' ')) from error
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f'{len(images)} times {size} at once is too much for the '
                'memory of the GPU: make --batch-size smaller, or use '
                '--device cpu') from error
        return [self._tell(image, sample, score_thr)
                for image, sample in zip(images, samples)]

    def _draw(self, image, sample, **kwargs):
        visualizer = self.inferencer.visualizer
        visualizer.add_datasample('picture', image[..., ::-1], sample,
                                  draw_gt=False, **kwargs)
        return visualizer.get_image()[..., ::-1]


class _Detector(Predictor):

    visualizer = 'DetLocalVisualizer'

    def _inferencer(self):
        from mmdet.apis import DetInferencer

        return DetInferencer

    def _run(self, images):
        return self.inferencer(
            images, batch_size=len(images),
            return_datasamples=True)['predictions']

    def _tell(self, image, sample, score_thr):
        if 'pred_instances' not in sample:
            raise UserError('the model gives no boxes or masks of instances, '
                            'which is all that is drawn for a detector')
        found = sample.pred_instances.cpu()
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

    def __init__(self, cfg, checkpoint, device, meta):
        super().__init__(cfg, checkpoint, device, meta)
        self.inferencer.visualizer.set_dataset_meta(**meta)

    def _inferencer(self):
        from mmseg.apis import MMSegInferencer

        return MMSegInferencer

    def _run(self, images):
        samples = self.inferencer(images, batch_size=len(images),
                                  return_datasamples=True)
        return samples if isinstance(samples, list) else [samples]

    def _tell(self, image, sample, score_thr):
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
        order = sorted(pixels.nonzero()[0], key=lambda label: -pixels[label])
        fractions = {self.classes[label]: round(
            pixels[label] / labels.size, 6) for label in order}
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        # mmseg's own way to place names takes seconds for a large picture.
        picture = _name_areas(self._draw(image, sample, with_labels=False),
                              labels, self.classes)
        return Prediction(picture, dict(fractions=fractions),
                          labels.astype(kind))


def _name_areas(picture, labels, names):
    """Write the name of each class where most of it is around.

    Args:
        picture (np.ndarray): (H, W, 3) of uint8.
        labels (np.ndarray): (H, W), indices of classes.
        names (list[str]): Their names.

    Returns:
        np.ndarray: A copy with the names of all but small areas.
    """
    picture = picture.copy(order='C')
    height, width = labels.shape
    side = min(height, width)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, side / 700)
    thick = max(1, round(1.5 * scale))
    for label in np.unique(labels):
        area = np.pad((labels == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(area, cv2.DIST_L2, 3)
        _, deepest, _, (x, y) = cv2.minMaxLoc(depth)
        if deepest < 0.02 * side:
            continue
        text = names[label]
        (wide, high), below = cv2.getTextSize(text, font, scale, thick)
        left = max(0, min(x - wide // 2, width - wide))
        base = max(high + 2, min(y + high // 2, height - below))
        cv2.rectangle(picture, (left - 2, base - high - 2),
                      (left + wide + 1, base + below), (0, 0, 0), -1)
        cv2.putText(picture, text, (left, base), font, scale,
                    (255, 255, 255), thick, cv2.LINE_AA)
    return picture


class _Classifier(Predictor):

    def __init__(self, cfg, checkpoint, device, meta):
        super().__init__(cfg, checkpoint, device, meta)
        from mmpretrain.visualization import UniversalVisualizer

        self.inferencer.visualizer = UniversalVisualizer()

    def _inferencer(self):
        from mmpretrain import ImageClassificationInferencer

        return ImageClassificationInferencer

    def _run(self, images):
        return [sample for batch in self.inferencer.preprocess(
            images, len(images)) for sample in self.inferencer.forward(batch)]

    def _tell(self, image, sample, score_thr):
        best = sample.pred_score.topk(min(5, len(self.classes)))
        classes = [
            {'class': self.classes[label], 'label': label,
             'score': round(score, 4)}
            for label, score in zip(best.indices.tolist(),
                                    best.values.tolist())]
        visualizer = self.inferencer.visualizer
        visualizer.visualize_cls(image[..., ::-1], sample, self.classes,
                                 draw_gt=False)
        return Prediction(visualizer.get_image()[..., ::-1],
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
        which its images are normalised.

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
        mean, std = before.get('mean', mean), before.get('std', std)
    if state:
        with naming(weights):
            adapt_state_dict(state, model)
            # Not strict, as output norms may stay.
            model.load_state_dict(state, strict=False)
    return model.eval(), list(mean), list(std)
