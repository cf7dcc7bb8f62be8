"""Copies of COCO files with what the evaluation needs and they lack."""

import hashlib
import json
import os
import os.path as osp
import tempfile
from contextlib import contextmanager
from dataclasses import replace

from mmengine.logging import print_log

from ..errors import UserError
from .coco import is_coco
from .coco_file import is_box, is_number, lacking, parse
from .evaluation import metrics
from .masks import taken
from .sources import sources


def complete_annotations(cfg, splits):
    """Let a run read completed copies where COCO files lack keys.

    Training needs ``area``. COCO's evaluation needs that, ``iscrowd`` and
    ids that are numbers other than 0. A copy with them is written to
    ``work_dir/completed``, and the data sets and evaluators of the config
    then name it. Files that lack nothing are not read again after
    ``check_data``.

    Args:
        cfg (Config): The config. It is changed.
        splits (Sequence[str]): Which of 'train', 'val' and 'test'.
    """
    for split in splits:
        try:
            found = sources(cfg, split)
        except UserError:
            continue  # the check has said so, and the user goes on
        found = [one for one in found if is_coco(one) and not one.remote
                 and osp.isfile(one.below_root(one.config['ann_file']))]
        # By the file: whether masks are evaluated, and who names it.
        users = {}
        for metric in metrics(cfg, split, found):
            if metric.is_coco and metric.scores and osp.isfile(metric.path):
                real = osp.realpath(metric.path)
                masks, named = users.get(real, (False, []))
                users[real] = (masks or metric.segm, [*named, metric])
        for source in found:
            real = osp.realpath(source.below_root(source.config['ann_file']))
            if real in users:
                users[real][1].append(source)
            elif 'area' in lacking(real, False):
                users[real] = (False, [source])
        for real, (masks, named) in users.items():
            if lacking(real, masks) - {'bbox'}:
                path = _write(real, masks, osp.join(
                    osp.abspath(cfg.work_dir), 'completed'))
                for one in named:
                    one.config['ann_file'] = path
                print_log(f'{split} data: {path} stands for {real}, which '
                          'lacks what the evaluation or training needs',
                          'current')


@contextmanager
def completed(source):
    """A data set that mm can build, with a copy where the file lacks keys.

    Args:
        source (Source): Of any kind.

    Yields:
        Source: The same, or one that names a temporary file.
    """
    path = is_coco(source) and not source.remote and source.below_root(
        source.config['ann_file'])
    if path and osp.isfile(path) and 'area' in lacking(path, False):
        with tempfile.TemporaryDirectory() as folder:
            copy = _write(path, False, folder)
            yield replace(source, config={**source.config, 'ann_file': copy})
    else:
        yield source


def _write(path, masks, folder):
    """Write a completed copy; processes that do so at once agree on it."""
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
            entry['segmentation'] = taken(mask)
            if entry['segmentation'] is None:
                # As in training: neither found nor missed.
                entry['iscrowd'] = 1
                entry['segmentation'] = [
                    [x, y, x + w, y, x + w, y + h, x, y + h]]
