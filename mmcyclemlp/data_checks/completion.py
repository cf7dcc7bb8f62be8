"""Write copies of COCO files with the keys that evaluation needs."""

from __future__ import annotations

import hashlib
import json
import os
import os.path as osp
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from .coco import is_coco
from .coco_file import is_box, is_number, lacking, parse
from .evaluation import metrics
from .masks import trained_part
from .sources import Source, sources


def complete_annotations(cfg: Config, splits: Sequence[str]) -> None:
    """Write completed copies of COCO files that lack keys, and use them.

    Training needs ``area``. COCO's evaluation needs ``area``, ``iscrowd``
    and ids that are numbers other than 0. The copy is written to
    ``work_dir/completed``, and the data sets and evaluators of the config
    are changed to name it. Files that lack nothing are not read again after
    ``check_data``.

    Args:
        cfg (Config): The config. It is changed.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
    """
    for split in splits:
        try:
            found = sources(cfg, split)
        except UserError:
            continue  # the check has reported it, and the user goes on
        found = [one for one in found if _is_local_coco(one)]
        # By file: whether masks are evaluated, and who names the file.
        users = {}
        for metric in metrics(cfg, split, found):
            if metric.is_coco and metric.scores and osp.isfile(metric.path):
                real = osp.realpath(metric.path)
                masks, named = users.get(real, (False, []))
                users[real] = (masks or metric.segm, [*named, metric])
        for source in found:
            real = osp.realpath(source.listed)
            if real in users:
                users[real][1].append(source)
            elif 'area' in lacking(real, False):
                users[real] = (False, [source])
        for real, (masks, named) in users.items():
            if lacking(real, masks):
                path = _write(real, masks, osp.join(
                    osp.abspath(cfg.work_dir), 'completed'))
                for one in named:
                    one.config['ann_file'] = path
                print_log(f'{split} data: {path} is used in place of {real}, '
                          'which lacks keys of the evaluation or training',
                          'current')


@contextmanager
def completed(source: Source) -> Iterator[Source]:
    """Use a completed copy of a file that lacks keys, to build a data set.

    Args:
        source (Source): Of any kind.

    Yields:
        Source: The same, or one that names a temporary file.
    """
    if _is_local_coco(source) and 'area' in lacking(source.listed, False):
        with tempfile.TemporaryDirectory() as folder:
            copy = _write(source.listed, False, folder)
            yield replace(source, config={**source.config, 'ann_file': copy})
    else:
        yield source


def _is_local_coco(source):
    return is_coco(source) and not source.remote and osp.isfile(source.listed)


def _write(path, masks, folder):
    """Write a completed copy; the name is safe with several processes."""
    content = parse(path)
    _complete(content['annotations'], masks)
    text = json.dumps(content).encode()
    digest = hashlib.blake2b(text, digest_size=4).hexdigest()
    name = osp.splitext(osp.basename(path))[0]
    target = osp.join(folder, f'{name}-{digest}.json')
    if not osp.exists(target):
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(
                dir=folder, suffix='.part', delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
    return target


def _complete(entries, masks):
    numbered = all(is_number(one.get('id')) for one in entries)
    for place, entry in enumerate(entries, 1):
        if not numbered:
            entry['id'] = place
        if entry.get('iscrowd') is None:
            entry['iscrowd'] = 0
        if not is_box(entry.get('bbox')):
            continue
        x, y, w, h = entry['bbox']
        if not isinstance(entry.get('area'), (int, float)):
            entry['area'] = w * h
        mask = entry.get('segmentation')
        if masks and mask and (isinstance(mask, dict) or isinstance(
                mask, list) and all(isinstance(one, (list, dict))
                                    for one in mask)):
            entry['segmentation'] = trained_part(mask)
            if entry['segmentation'] is None:
                # As in training: neither found nor missed.
                entry['iscrowd'] = 1
                entry['segmentation'] = [
                    [x, y, x + w, y, x + w, y + h, x, y + h]]
