"""What a test keeps: pictures, label maps and predictions.

mm names pictures and label maps by the base name of the image. Here they
keep the folders below the common root where base names are not unique.
"""

import os
import os.path as osp
from contextlib import contextmanager

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
from .drawing import to_picture

_VISUALIZERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer',
                    mmpretrain='UniversalVisualizer')
# Hooks of mm that draw, with those of their arguments that say how.
_HOOKS = dict(
    DetVisualizationHook={'score_thr': 'pred_score_thr'},
    SegVisualizationHook={},
    VisualizationHook={name: name for name in (
        'resize', 'rescale_factor', 'draw_gt', 'draw_pred', 'draw_score',
        'text_cfg')})


def name_outputs(paths):
    """Name what is written for each image, so that all names differ.

    Args:
        paths (list[str]): Of images; one may be given several times.

    Returns:
        dict[str, str]: For each path the image's base name without suffix;
        where two would be equal, the path below the folder that all are in,
        with its suffix only where it must.
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
    """Data set and place of each image, by its path."""
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


def keep_pictures(cfg, folder):
    """Have a test draw each image.

    Args:
        cfg (Config): Changed in place: its own hook that draws is left out
            if it is mm's.
        folder (str): Where pictures go.

    Returns:
        PicturesHook: To be registered with the runner.
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
    """Draws what is predicted, in all processes, in what the data loads.

    Args:
        folder (str): Where pictures go.
        scope (str): 'mmdet', 'mmseg' or 'mmpretrain'.
        options (dict): How mm's visualizer draws.
    """

    def __init__(self, folder, scope, options):
        self.folder, self.scope, self.options = folder, scope, options

    def before_test(self, runner):
        """Name all pictures, and see that they can be drawn."""
        self.images = _images(runner.test_dataloader.dataset)
        if not self.images:
            raise UserError(
                '--show-dir: no picture can be named, as the data set '
                f'{type(runner.test_dataloader.dataset).__name__} gives no '
                "img_path, which is an image's file")
        self.names = name_outputs(self.images)
        self.visualizer = runner.visualizer
        drawing = ('visualize_cls' if self.scope == 'mmpretrain'
                   else 'add_datasample')
        if getattr(type(self.visualizer), drawing, None) is getattr(
                Visualizer, drawing, None):
            # mmengine's own one draws nothing.
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
                f'--show-dir: {path} was tested, and the data set has no '
                'such img_path: a transform of the test pipeline changes it')
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
            # Under TTA mmseg leaves the first dimension out.
            sample.pred_sem_seg = PixelData(data=labels.data[None])
        self.visualizer.add_datasample(
            osp.basename(out), image, sample, out_file=out, **self.options)

    def _load(self, path):
        """The image as the first steps of its data set load it."""
        leaf, place = self.images[path]
        results = leaf.get_data_info(place)
        for step in leaf.pipeline.transforms:
            results = step(results)
            if results is None or 'img' in results:
                break
        if results is None or 'img' not in results:
            raise UserError(f'--show-dir: no step of the test pipeline gives '
                            f'an img for {path}')
        return results['img']

    def _file(self, path):
        """Name of a picture: detectors keep the form of the image."""
        name, suffix = self.names[path], osp.splitext(path)[1]
        if self.scope != 'mmdet' or suffix.lower() not in (
                '.jpg', '.jpeg', '.png', '.bmp', '.webp'):
            return f'{name}.png'
        return name if name.endswith(suffix) else name + suffix


@contextmanager
def _drawing_in_all_processes():
    """mm's visualizers do anything in the first process alone."""
    before = dist_utils.is_main_process
    dist_utils.is_main_process = lambda group=None: True
    try:
        yield
    finally:
        dist_utils.is_main_process = before


class LabelMapsHook(Hook):
    """Has metrics of segmentors keep label maps under names that differ.

    Args:
        folder (str | None): Where they go; None for the ``output_dir`` that
            metrics have, if any. Default: None.
    """

    def __init__(self, folder=None):
        self.folder = folder

    def before_test(self, runner):
        """Find what keeps label maps."""
        evaluator = runner.test_evaluator
        keeping = [one for one in evaluator.metrics
                   if hasattr(one, 'output_dir')]
        if self.folder:
            _make_folder(self.folder, '--out')
            if not keeping:
                from mmseg.evaluation import IoUMetric

                keeping = [IoUMetric(format_only=True)]
                keeping[0].dataset_meta = evaluator.dataset_meta
                evaluator.metrics += keeping
            keeping[0].output_dir = self.folder
            # CityscapesMetric removes them otherwise.
            keeping[0].keep_results = True
        keeping = [one for one in keeping if one.output_dir]
        if keeping:
            names = name_outputs(_images(runner.test_dataloader.dataset))
            for metric in keeping:
                _name_label_maps(metric, names)


def _name_label_maps(metric, names):
    """Have a metric name label maps as given, with their folders."""
    folder, process = metric.output_dir, metric.process

    def process_one_by_one(data_batch, data_samples):
        for sample in data_samples:
            name = names.get(sample['img_path'])
            if name is None:
                name = osp.splitext(osp.basename(sample['img_path']))[0]
            metric.output_dir = osp.dirname(osp.join(folder, name))
            os.makedirs(metric.output_dir, exist_ok=True)
            # What mm cuts off is the suffix.
            process(data_batch, [dict(sample, img_path=f'{name}.png')])
        metric.output_dir = folder

    metric.process = process_one_by_one


class DumpHook(Hook):
    """Keeps the predictions of a detector or a classifier.

    Args:
        path (str): File that they go into.
        scope (str): 'mmdet' or 'mmpretrain'.
    """

    def __init__(self, path, scope):
        self.path, self.scope = path, scope

    def before_test(self, runner):
        """Add the metric that keeps them."""
        evaluator = runner.test_evaluator
        if type(evaluator).evaluate is not Evaluator.evaluate:
            raise UserError(
                f'--out: {type(evaluator).__name__} passes over metrics that '
                'are added: make test_evaluator a metric or a list of them')
        if self.scope == 'mmdet':
            from mmdet.evaluation import DumpDetResults as DumpResults
        else:
            from mmengine.evaluator import DumpResults

        evaluator.metrics.append(DumpResults(out_file_path=self.path))
