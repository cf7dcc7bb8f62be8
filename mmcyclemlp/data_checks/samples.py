"""Open images and label maps by the pipeline of their data set."""

from __future__ import annotations

import hashlib
import io
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
        digest (bytes): Hash of the image's file.
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
    digest: bytes = b''
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
    """Opens samples by the loading steps of the pipeline.

    The steps are mm's loading transforms and all transforms of the user. If
    these fail without the transforms between, the whole pipeline runs.
    """

    def __init__(self, source, dataset, samples):
        self.source, self.dataset, self.samples = source, dataset, samples
        self.steps = Compose([
            one for one in dataset.pipeline.transforms
            if _is_loading(one) or not is_mm(one)])
        self.own = any(not is_mm(one) for one in self.steps.transforms)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, place):
        with seeded(0, place), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return self._open(self.samples[place])

    def _info(self, sample):
        if sample.index is None:
            return dict(img_path=sample.image, gt_label=0)
        return self.dataset.get_data_info(sample.index)

    def _open(self, sample):
        opened = Opened(sample)
        content, fault = _read(sample.image)
        opened = opened._replace(
            digest=hashlib.blake2b(content, digest_size=16).digest()
            if content else b'', fault=fault)
        if fault and not self.own:
            return opened
        try:
            found = self.steps(self._info(sample))
            height, width = found['img'].shape[:2]
        except Exception as error:  # of any transform
            return opened if fault else self._failed(opened, content, error)
        opened = opened._replace(size=(width, height), fault='')
        if fault:  # the pipeline loads another file
            return opened
        return self._describe(opened, content, found['img'],
                              found.get('gt_seg_map'))

    def _failed(self, opened, content, error):
        """Find out whether a file or the pipeline is at fault."""
        sample = opened.sample
        load = self.source.transform('LoadImageFromFile')
        if load:
            fault = _fault(content, load.get('color_type', 'color'),
                           load.get('imdecode_backend', 'cv2'))
            if fault:
                return opened._replace(fault=fault)
        annotate = self.source.transform('LoadAnnotations')
        if sample.label_map is not None and annotate:
            labels, fault = _read(sample.label_map)
            fault = fault or _fault(
                labels, 'unchanged',
                annotate.get('imdecode_backend', 'pillow'))
            if fault:
                return opened._replace(label_fault=fault)
        try:
            packed = self.dataset.pipeline(self._info(sample))
        except Exception as second:  # of any transform
            return opened._replace(failure=describe(second))
        if packed is None or not self.own:
            return opened._replace(failure='' if packed else describe(error))
        return opened._replace(pixels=_packed_pixels(packed))

    def _describe(self, opened, content, image, labels):
        sample = opened.sample
        load = self.source.transform('LoadImageFromFile')
        if load:
            try:
                check_whole(content)
            except Exception as error:  # decoders raise what they like
                return opened._replace(fault=_reason(error))
            opened = opened._replace(**_changes(content, image, load))
        if labels is None:
            return opened
        if sample.label_map is not None and self.source.transform(
                'LoadAnnotations'):
            lost, fault = _lost(sample.label_map, self.source)
            opened = opened._replace(lost=lost, label_fault=fault)
        if labels.ndim != 2:
            return opened._replace(label_channels=labels.shape[-1])
        opened = opened._replace(
            label_size=(labels.shape[1], labels.shape[0]),
            pixels=_pixels(labels))
        if not self.own:
            return opened
        # Transforms of the user may need mm's between them.
        try:
            with seeded(0):
                packed = _packed_pixels(
                    self.dataset.pipeline(self._info(sample)))
        except Exception as error:  # of any transform
            return opened._replace(failure=describe(error))
        return opened._replace(pixels=packed or opened.pixels)


def _read(path):
    """Return the bytes of a file, and why it cannot be read."""
    try:
        content = get(path)
    except Exception as error:  # of any file backend
        return b'', _reason(error)
    return content, '' if content else 'the file is empty'


def _fault(content, flag, backend):
    try:
        decode(content, flag, backend)
    except Exception as error:  # decoders raise what they like
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


def _packed_pixels(packed):
    """Return the labels that the model gets, {} if there are none."""
    sample = packed.get('data_samples') if isinstance(packed, dict) else None
    found = getattr(sample, 'gt_sem_seg', None)
    return {} if found is None else _pixels(found.data.numpy())


def _lost(path, source):
    """Return values that mm's cast to 8 bits changes, or why it fails."""
    content, fault = _read(path)
    if fault:
        return {}, fault
    try:
        check_whole(content)
        labels = mmcv.imfrombytes(
            content, flag='unchanged', backend=source.transform(
                'LoadAnnotations').get('imdecode_backend', 'pillow'))
    except Exception as error:  # decoders raise what they like
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
