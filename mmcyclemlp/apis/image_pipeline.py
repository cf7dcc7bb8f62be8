"""Load a single image with the test pipeline of a config."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose

from ..data_checks.images import check_whole
from ..engine.config_nodes import leaves
from ..errors import UserError, describe
from .media import UnreadableError, fetch, suffix_of

# Keys of annotations, which a single image does not have.
_ANNOTATIONS = {
    'ann_info', 'eval_ann_info', 'gt_bboxes', 'gt_bboxes_labels',
    'gt_depth_map', 'gt_ignore_flags', 'gt_label', 'gt_masks', 'gt_seg_map',
    'instances', 'seg_map_path', 'segments_info'}


class Loaded(NamedTuple):
    """An image that is ready for the model.

    Attributes:
        image (np.ndarray): As the pipeline loaded it, (H, W) or (H, W, C).
        size (tuple[int, int]): Height and width of the predictions.
        data (dict): Input of the model.
    """

    image: np.ndarray
    size: tuple
    data: Any


class TestPipeline:
    """Load files as the test data of a config, without annotations.

    Args:
        cfg (Config): Config with ``test_dataloader``. Set the default scope
            of mm's registries before.

    Raises:
        UserError: The config has no pipeline, or it cannot be built.
    """

    __test__ = False  # pytest takes it for a test otherwise

    def __init__(self, cfg: Any):
        if not cfg.get('test_dataloader'):
            raise UserError('the config has no test_dataloader, whose '
                            'pipeline prepares a picture')
        steps = _steps(cfg.test_dataloader.dataset)
        if not steps:
            raise UserError(
                'test_dataloader.dataset has no pipeline, which prepares a '
                'picture: set test_dataloader.dataset.pipeline')
        try:
            self.steps = Compose(steps).transforms
        except Exception as error:  # of transforms: the user's own Python
            raise UserError('test_dataloader.dataset.pipeline cannot be '
                            f'built: {describe(error)}') from error
        self._skipped = set()
        # Suffixes of mm's own loader are in media.IMAGES.
        self.suffixes = () if any(map(_is_mm_loader, self.steps)) else (
            '.npy', '.npz')
        for leaf in leaves(cfg.test_dataloader.dataset):
            suffix = os.path.splitext(leaf.get('img_suffix') or '')[1]
            self.suffixes += (suffix.lower(), ) if suffix else ()

    def load(self, source: str, whole: bool = True) -> Loaded:
        """Load a file.

        Args:
            source (str): Path or URL.
            whole (bool): Whether to run all steps. False stops after the
                step that loads the image. Default: True.

        Returns:
            Loaded: The image, with ``data`` only if ``whole``.

        Raises:
            UnreadableError: A step fails.
        """
        with _local(source) as path:
            return self._run(path, whole)

    def load_frame(self, frame: np.ndarray) -> Loaded:
        """Load an array as if it were a file.

        Args:
            frame (np.ndarray): (H, W, 3) of uint8, BGR.

        Returns:
            Loaded: The image.

        Raises:
            UnreadableError: A step fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'frame.bmp')
            cv2.imwrite(path, frame)
            return self._run(path, whole=True)

    def _run(self, path, whole):
        results = dict(img_path=path, img_id=0, seg_fields=[])
        image = None
        for step in self.steps:
            try:
                if _is_mm_loader(step):
                    check_whole(Path(path).read_bytes())
                results = step(results)
            except Exception as error:  # of any transform or decoder
                if _needs_annotations(error):
                    self._skip(step, error)
                    continue
                raise _failure(step, error, image is None) from error
            if results is None:
                raise UnreadableError(
                    f'{type(step).__name__} of the test pipeline skips it')
            if image is None and 'img' in results:
                image = np.array(results['img'])
                size = results.get('ori_shape') or image.shape
                if not whole:
                    return Loaded(image, tuple(size[:2]), None)
        if image is None:
            raise UnreadableError('no step of the test pipeline sets img')
        return Loaded(image, tuple(size[:2]), results)

    def _skip(self, step, error):
        name = type(step).__name__
        if 'Annotation' not in name and name not in self._skipped:
            logging.getLogger('mmcyclemlp').warning(
                '%s of the test pipeline is skipped: it needs %r, which a '
                'single picture does not have', name, error.args[0])
        self._skipped.add(name)


def _steps(dataset):
    """Return the steps of a data set, then those of its wrappers."""
    inner = dataset.get('datasets') or dataset.get('dataset')
    inner = inner[0] if isinstance(inner, (list, tuple)) else inner
    return ([] if inner is None else _steps(inner)) + list(
        dataset.get('pipeline') or ())


def _is_mm_loader(step):
    return isinstance(step, LoadImageFromFile) and (
        type(step).transform is LoadImageFromFile.transform)


def _needs_annotations(error):
    return isinstance(error, KeyError) and error.args and (
        error.args[0] in _ANNOTATIONS)


def _failure(step, error, loading):
    """Return the error for a step that failed."""
    name = type(step).__name__
    if isinstance(error, KeyError) and error.args:
        return UnreadableError(f'{name} of the test pipeline needs '
                               f'{error.args[0]!r}, which a single '
                               'picture does not have')
    reason = ' '.join(f'{error}'.split()) or type(error).__name__
    if loading:
        by = '' if _is_mm_loader(step) else f' by {name}'
        return UnreadableError(f'it cannot be read{by}: {reason}')
    return UnreadableError(f'{name} of the test pipeline fails: {reason}')


@contextmanager
def _local(source):
    """Yield the path of a file. A URL is downloaded first."""
    if '://' not in source:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f'picture{suffix_of(source)}')
        fetch(source, path)
        yield path
