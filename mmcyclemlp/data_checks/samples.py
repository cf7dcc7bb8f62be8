"""Open images and label maps by the pipeline of their data set."""

from __future__ import annotations

import io
import os.path as osp
import sys
import warnings
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import get
from mmengine.utils import track_iter_progress
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..engine.config_nodes import is_mm
from ..engine.randomness import seeded
from ..errors import describe
from .images import Look, Sample, check_whole, decode, spread
from .sources import Source


class Opened(NamedTuple):
    """What the files of a sample have.

    Attributes:
        sample (Sample): The sample.
        size (tuple | None): Width and height of the loaded image.
        fault (str): Why the image cannot be read; '' if it can.
        label_size (tuple | None): Width and height of the label map.
        label_fault (str): Why that cannot be read; '' if it can.
        label_channels (int): How many channels it has.
        pixels (dict): How many pixels of the label map have which label.
        lost (dict): Values of the label file that loading changes, and what
            it makes of them.
        failure (str): Why the pipeline fails though the files can be read.
        turned (bool): Whether mm turns the image by its EXIF orientation.
        deep (bool): Whether mm keeps 8 of the 16 bits of the image.
        darkest (bool): Whether these bits are black.
    """

    sample: Sample
    size: tuple | None = None
    fault: str = ''
    label_size: tuple | None = None
    label_fault: str = ''
    label_channels: int = 1
    pixels: dict = {}
    lost: dict = {}
    failure: str = ''
    turned: bool = False
    deep: bool = False
    darkest: bool = False


def _is_loading(transform):
    return type(transform).__module__.endswith('.loading') and (
        type(transform).__name__.startswith('Load'))


class _Samples(Dataset):
    """Opens samples by the loading transforms of mm.

    The whole pipeline runs where it has transforms of the user, which may
    load files or change labels anywhere.
    """

    def __init__(self, source, dataset, samples):
        self.dataset, self.samples = dataset, samples
        self.load = source.transform('LoadImageFromFile')
        self.annotate = source.transform('LoadAnnotations')
        steps = dataset.pipeline.transforms
        self.own = not all(map(is_mm, steps))
        self.steps = dataset.pipeline if self.own else Compose(
            [one for one in steps if _is_loading(one)])

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, place):
        with seeded(0, place), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return self._open(self.samples[place])

    def _open(self, sample):
        opened = Opened(sample)
        content, fault = _read(sample.image)
        # A transform of the user may load another file.
        if fault and not self.own:
            return opened._replace(fault=fault)
        try:
            found = self.steps(self.dataset.get_data_info(sample.index))
        except Exception as error:  # of any transform
            return self._failed(opened, content, fault, error)
        if self.load and not fault:
            fault = _fault(check_whole, content)
            if fault:
                return opened._replace(fault=fault)
        if self.annotate and osp.exists(sample.label_map or ''):
            lost, fault = _lost(sample.label_map, self.annotate)
            opened = opened._replace(lost=lost, label_fault=fault)
        if self.own:
            return opened._replace(**_packed(found))
        height, width = found['img'].shape[:2]
        opened = opened._replace(size=(width, height))
        if self.load:
            opened = opened._replace(
                **_changes(content, found['img'], self.load))
        labels = found.get('gt_seg_map')
        if labels is None:
            return opened
        if labels.ndim != 2:
            return opened._replace(label_channels=labels.shape[-1])
        return opened._replace(label_size=labels.shape[::-1],
                               pixels=_pixels(labels))

    def _failed(self, opened, content, fault, error):
        """Find out whether a file or the pipeline is at fault."""
        if self.load:
            fault = fault or _fault(
                decode, content, self.load.get('color_type', 'color'),
                self.load.get('imdecode_backend', 'cv2'))
            if fault:
                return opened._replace(fault=fault)
        if opened.sample.label_map is not None and self.annotate:
            labels, fault = _read(opened.sample.label_map)
            fault = fault or _fault(
                decode, labels, 'unchanged',
                self.annotate.get('imdecode_backend', 'pillow'))
            if fault:
                return opened._replace(label_fault=fault)
        return opened._replace(failure=describe(error))


def _read(path):
    """Return the bytes of a file, and why it cannot be read."""
    try:
        content = get(path)
    except Exception as error:  # of any file backend
        return b'', _reason(error)
    return content, '' if content else 'the file is empty'


def _fault(check, *args):
    """Return why decoding fails, '' if it does not."""
    try:
        check(*args)
    except Exception as error:  # of any decoder
        return _reason(error)
    return ''


def _reason(error):
    return ' '.join(f'{error}'.split()) or type(error).__name__


def _pixels(labels):
    values, counts = np.unique(labels, return_counts=True) if (
        labels.dtype != np.uint8) else _count(labels)
    return dict(zip(values.tolist(), counts.tolist()))


def _count(labels):
    counts = np.bincount(labels.ravel(), minlength=256)
    return counts.nonzero()[0], counts[counts > 0]


def _packed(found):
    """Return the size of the image and its labels, as the model gets them."""
    sample = found.get('data_samples') if isinstance(found, dict) else None
    shape = getattr(sample, 'ori_shape', None)
    labels = getattr(sample, 'gt_sem_seg', None)
    return dict(size=shape and (shape[1], shape[0]),
                pixels={} if labels is None else _pixels(labels.data.numpy()))


def _lost(path, annotate):
    """Return values that mm's cast to 8 bits changes, or why it fails."""
    content, fault = _read(path)
    if fault:
        return {}, fault
    try:
        check_whole(content)
        labels = mmcv.imfrombytes(
            content, flag='unchanged',
            backend=annotate.get('imdecode_backend', 'pillow'))
    except Exception as error:  # of any decoder
        return {}, _reason(error)
    if labels is None or labels.dtype in (np.uint8, np.bool_):
        return {}, ''
    values = np.unique(labels)
    kept = values.astype(np.uint8)
    changed = kept != values
    return dict(zip(values[changed].tolist()[:100],
                    kept[changed].tolist())), ''


def _changes(content, image, load):
    """Return what loading changes in an image, by its header."""
    try:
        with Image.open(io.BytesIO(content)) as header:
            mode, orientation = header.mode, header.getexif().get(274, 1)
    except Exception:  # not a format that Pillow knows
        return {}
    flag = load.get('color_type', 'color')
    deep = image.dtype == np.uint8 and (
        mode in ('I', 'F') or mode.startswith('I;')
        or content[:4] == b'\x89PNG' and content[24:25] == b'\x10')
    return dict(
        turned=orientation not in (0, 1) and flag != 'unchanged'
        and 'ignore_orientation' not in flag,
        deep=deep, darkest=bool(deep and image.max() < 16))


def open_samples(source: Source, dataset: BaseDataset,
                 samples: list[Sample], look: Look) -> list[Opened]:
    """Open images and label maps by the pipeline of the data set.

    Args:
        source (Source): The data set in the config.
        dataset (BaseDataset): The data set as mm builds it.
        samples (list[Sample]): Its samples.
        look (Look): How many of them to open.

    Returns:
        list[Opened]: The samples that were opened.
    """
    chosen = _Samples(source, dataset, spread(samples, look.number))
    loader = DataLoader(chosen, batch_size=None, num_workers=look.workers,
                        collate_fn=_same)
    if look.bar and len(chosen):
        return list(track_iter_progress((iter(loader), len(chosen)),
                                        file=sys.stderr))
    return list(loader)


def _same(opened):
    return opened
