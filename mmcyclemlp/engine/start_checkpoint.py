"""Choose the checkpoint that a run starts from."""

from __future__ import annotations

import os.path as osp
from glob import escape, glob
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..backbones.weights import find_backbone
from ..errors import CheckpointError, NotCycleNetError, UserError
from .config_nodes import networks
from .mm_checkpoints import read


def use_backbone_file(cfg: Config, trusted: bool = False) -> dict | None:
    """Turn a ``load_from`` that is a backbone alone into an ``init_cfg``.

    As ``load_from`` mm would match its keys with those of the whole model,
    and load nothing.

    Args:
        cfg (Config): The config; changed in place.
        trusted (bool): Whether code in the file may be run. Default: False.

    Returns:
        dict | None: Content of ``load_from`` for :func:`build_runner`; None
        if the config has no ``load_from``, or has none any more.

    Raises:
        UserError: The model has no ``backbone``.
        CheckpointError: The file cannot be read safely.
    """
    if not cfg.get('load_from'):
        return None
    content = read(cfg.load_from, trusted)
    try:
        if find_backbone(content).prefix:
            return content
    except NotCycleNetError:
        return content  # of another network, which mm loads
    backbones = ([cfg.model.backbone] if 'backbone' in cfg.model
                 else list(networks(cfg.model)))
    if not backbones:
        raise UserError(
            f'load_from {cfg.load_from} is a backbone, and the model of the '
            "config has no 'backbone'")
    for backbone in backbones:
        backbone.init_cfg = ConfigDict(
            type='Pretrained', checkpoint=cfg.load_from)
    cfg.load_from = None
    return None


def resume_from(cfg: Config, checkpoint: str | None = None,
                trusted: bool = False) -> dict | None:
    """Set a config to resume a run, with the seed of that run.

    Args:
        cfg (Config): The config; changed in place.
        checkpoint (str | None): Path or URL. None finds the newest
            checkpoint in the work dir that can be read; if the work dir has
            no checkpoint, the run starts from the beginning. Default: None.
        trusted (bool): Whether code in the file may be run. Default: False.

    Returns:
        dict | None: Content of the checkpoint for :func:`build_runner`;
        None if the run starts from the beginning.

    Raises:
        CheckpointError: The file cannot be read, or is not from a run.
        UserError: The work dir has checkpoints, but none can be resumed.
    """
    if checkpoint is None:
        checkpoint, content = find_resumable(cfg.work_dir, trusted)
    else:
        content = _read_resumable(checkpoint, trusted)
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        return None
    cfg.load_from = checkpoint
    # mm sets the seed after it has built the data loaders.
    seed = content['meta'].get('seed')
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return content


def find_resumable(folder: str, trusted: bool = False,
                   ) -> tuple[str | None, dict | None]:
    """Find the newest checkpoint of a run that can be resumed.

    Checkpoints that cannot be read are logged and skipped.

    Args:
        folder (str): Work dir of the run.
        trusted (bool): Whether code in the files may be run.
            Default: False.

    Returns:
        tuple[str | None, dict | None]: Path and content; None and None if
        there are no checkpoints.

    Raises:
        UserError: There are checkpoints, but none can be resumed.
    """
    paths = [path for path in glob(osp.join(escape(folder), '*.pth'))
             if not osp.basename(path).startswith('best_')]
    last = osp.join(folder, 'last_checkpoint')
    if osp.isfile(last):  # it may name a file in another folder
        with open(last, encoding='utf-8') as file:
            paths.append(osp.join(folder, file.read().strip()))
    paths = {osp.realpath(path) for path in paths if osp.isfile(path)}
    errors = []
    for path in sorted(paths, key=osp.getmtime, reverse=True):
        try:
            return path, _read_resumable(path, trusted)
        except CheckpointError as error:
            errors.append(error)
            print_log(f'skipped: {error}', logger='current')
    if errors:
        raise UserError(
            f'no checkpoint in {folder} can be resumed: {errors[0]}. '
            'To start a new run, give another --work-dir')
    return None, None


def _read_resumable(path: str, trusted: bool) -> Any:
    """Read a checkpoint, and check that a run of mm saved it."""
    content = read(path, trusted)
    if not (isinstance(content, dict) and 'state_dict' in content
            and 'iter' in (content.get('meta') or {})):
        raise CheckpointError(
            f'{path} is not from a run of mm, so there is nothing to '
            'resume: give weights as load_from')
    return content
