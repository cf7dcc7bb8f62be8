"""Hooks that save what a test predicts: pictures, label maps, a pickle.

mm names pictures and label maps by the base name of the image. These hooks
add the folders below the common root where base names are not unique.
"""

from __future__ import annotations

import os
import os.path as osp
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from mmengine.dist import utils as dist_utils
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import VISUALIZERS
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer

from ..engine.config_nodes import leaves, name_of
from ..errors import UserError
from .pictures import to_picture

_VISUALIZERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer',
                    mmpretrain='UniversalVisualizer')
# Hooks of mm that draw, and which of their arguments become which of the
# visualizer's.
_HOOKS = dict(
    DetVisualizationHook={'score_thr': 'pred_score_thr'},
    SegVisualizationHook={},
    VisualizationHook={name: name for name in (
        'resize', 'rescale_factor', 'draw_gt', 'draw_pred', 'draw_score',
        'text_cfg')})


def name_outputs(paths: list[str]) -> dict[str, str]:
    """Return a unique name for the output of each image.

    Args:
        paths (list[str]): Paths of images, with or without duplicates.

    Returns:
        dict[str, str]: By path the base name of the image without suffix.
        If two are equal, all names are paths below the common folder, and
        have their suffix only if they need it.
    """
    paths = list(dict.fromkeys(paths))
    names = [osp.splitext(osp.basename(path))[0] for path in paths]
    if len(set(names)) < len(paths):
        whole = [osp.abspath(path) for path in paths]
        root = osp.commonpath([osp.dirname(path) for path in whole])
        whole = [osp.relpath(path, root) for path in whole]
        names = [osp.splitext(path)[0] for path in whole]
        if len(set(names)) < len(paths):
            names = whole
    return dict(zip(paths, names))


def _images(dataset):
    """Return the data set and the index of each image, by its path."""
    found = {}
    for leaf in leaves(dataset):
        if not hasattr(leaf, 'get_data_info'):
            continue
        for place in range(len(leaf)):
            path = leaf.get_data_info(place).get('img_path')
            if isinstance(path, str):
                found.setdefault(path, (leaf, place))
    return found


def _make_folder(folder, option):
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f'{option} {folder} cannot be written: '
                        f'{error.strerror}') from error


def replace_visualization_hook(cfg: Any, folder: str) -> PicturesHook:
    """Make the hook that draws each image of a test.

    Args:
        cfg (Config): Config of the test. If its visualization hook is one
            of mm's, it is removed in place, and its options are used.
        folder (str): Folder that pictures are written to.

    Returns:
        PicturesHook: Register it with the runner.
    """
    hooks = cfg.get('default_hooks') or {}
    own = hooks.get('visualization') or {}
    kind = name_of(own.get('type'))
    options = {}
    if kind in _HOOKS:
        options = {new: own[name] for name, new in _HOOKS[kind].items()
                   if name in own}
        hooks.pop('visualization')
    return PicturesHook(folder, cfg.get('default_scope'), options)


class PicturesHook(Hook):
    """Draw the predictions into the loaded images, in all processes.

    Args:
        folder (str): Folder that pictures are written to.
        scope (str): 'mmdet', 'mmseg' or 'mmpretrain'.
        options (dict): Arguments of mm's visualizer.
    """

    def __init__(self, folder: str, scope: str, options: dict):
        self.folder, self.scope, self.options = folder, scope, options

    def before_test(self, runner):
        """Name all pictures, and check that they can be drawn."""
        self.images = _images(runner.test_dataloader.dataset)
        if not self.images:
            raise UserError(
                '--show-dir: the data set '
                f'{type(runner.test_dataloader.dataset).__name__} has no '
                'img_path, which pictures are named by')
        self.names = name_outputs(self.images)
        self.visualizer = runner.visualizer
        drawing = ('visualize_cls' if self.scope == 'mmpretrain'
                   else 'add_datasample')
        if getattr(type(self.visualizer), drawing, None) is getattr(
                Visualizer, drawing, None):
            # mmengine's base class draws nothing.
            with VISUALIZERS.switch_scope_and_registry(None) as registry:
                self.visualizer = registry.get(_VISUALIZERS[self.scope])()
        with _drawing_in_all_processes():
            self.visualizer.dataset_meta = runner.test_evaluator.dataset_meta
        _make_folder(self.folder, '--show-dir')
        self._load(next(iter(self.images)))

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None):
        """Draw the images of a batch."""
        with _drawing_in_all_processes():
            for sample in outputs:
                self._draw(sample)

    def _draw(self, sample):
        path = sample.img_path
        if path not in self.images:
            raise UserError(
                f'--show-dir: the data set has no img_path {path}: a '
                'transform of the test pipeline changes img_path')
        image = to_picture(self._load(path))
        size = tuple(sample.get('ori_shape', image.shape)[:2])
        if image.shape[:2] != size and self.scope != 'mmpretrain':
            image = cv2.resize(image, size[::-1])
        out = osp.join(self.folder, self._file(path))
        image = np.ascontiguousarray(image[..., ::-1])
        sample = sample.cpu()
        if self.scope == 'mmpretrain':
            self.visualizer.visualize_cls(image, sample, out_file=out,
                                          **self.options)
            return
        labels = sample.get('pred_sem_seg')
        if self.scope == 'mmseg' and labels is not None and (
                labels.data.ndim == 2):
            # With TTA mmseg drops the first dimension.
            sample.pred_sem_seg = PixelData(data=labels.data[None])
        self.visualizer.add_datasample(
            osp.basename(out), image, sample, out_file=out, **self.options)

    def _load(self, path):
        """Load an image with the first steps of its data set."""
        leaf, place = self.images[path]
        results = leaf.get_data_info(place)
        for step in leaf.pipeline.transforms:
            results = step(results)
            if results is None or 'img' in results:
                break
        if results is None or 'img' not in results:
            raise UserError('--show-dir: no step of the test pipeline sets '
                            f'img for {path}')
        return results['img']

    def _file(self, path):
        """Return the name of a picture: of a detector with the suffix."""
        name, suffix = self.names[path], osp.splitext(path)[1]
        if self.scope != 'mmdet' or suffix.lower() not in (
                '.jpg', '.jpeg', '.png', '.bmp', '.webp'):
            return f'{name}.png'
        return name if name.endswith(suffix) else name + suffix


@contextmanager
def _drawing_in_all_processes():
    """Let mm's visualizers draw in all processes, not in the first alone."""
    before = dist_utils.is_main_process
    dist_utils.is_main_process = lambda group=None: True
    try:
        yield
    finally:
        dist_utils.is_main_process = before


class LabelMapsHook(Hook):
    """Save the label maps of a segmentor under unique names.

    Args:
        folder (str | None): Folder to write to. None for ``output_dir`` of
            the metrics, if they have one. Default: None.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder

    def before_test(self, runner):
        """Find or add the metric that writes label maps."""
        evaluator = runner.test_evaluator
        keeping = [one for one in evaluator.metrics
                   if hasattr(one, 'output_dir')]
        if self.folder:
            _make_folder(self.folder, '--out-dir')
            if not keeping:
                from mmseg.evaluation import IoUMetric

                keeping = [IoUMetric(format_only=True)]
                keeping[0].dataset_meta = evaluator.dataset_meta
                evaluator.metrics += keeping
            keeping[0].output_dir = self.folder
            # CityscapesMetric deletes them otherwise.
            keeping[0].keep_results = True
        keeping = [one for one in keeping if one.output_dir]
        if keeping:
            names = name_outputs(_images(runner.test_dataloader.dataset))
            for metric in keeping:
                _name_label_maps(metric, names)


def _name_label_maps(metric, names):
    """Make a metric write label maps under given names, with folders."""
    folder, process = metric.output_dir, metric.process

    def process_one_by_one(data_batch, data_samples):
        for sample in data_samples:
            name = names.get(sample['img_path'])
            if name is None:
                name = osp.splitext(osp.basename(sample['img_path']))[0]
            metric.output_dir = osp.dirname(osp.join(folder, name))
            os.makedirs(metric.output_dir, exist_ok=True)
            # mm cuts the suffix off.
            process(data_batch, [dict(sample, img_path=f'{name}.png')])
        metric.output_dir = folder

    metric.process = process_one_by_one


class DumpHook(Hook):
    """Save the predictions of a detector or a classifier as a pickle.

    Args:
        path (str): File to write.
        scope (str): 'mmdet' or 'mmpretrain'.
    """

    def __init__(self, path: str, scope: str):
        self.path, self.scope = path, scope

    def before_test(self, runner):
        """Add the metric that saves them."""
        evaluator = runner.test_evaluator
        if type(evaluator).evaluate is not Evaluator.evaluate:
            raise UserError(
                f'--out: {type(evaluator).__name__} ignores metrics that are '
                'added: make test_evaluator a metric or a list of metrics')
        if self.scope == 'mmdet':
            from mmdet.evaluation import DumpDetResults as DumpResults
        else:
            from mmengine.evaluator import DumpResults

        evaluator.metrics.append(DumpResults(out_file_path=self.path))
