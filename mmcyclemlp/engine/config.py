"""Reading a config, and the settings that a command adds to it."""

import os.path as osp
import pickle
import time

import torch
from mmengine.config import Config, ConfigDict

from ..backbones.weights import find_state_dict
from ..errors import NotCycleNetError, UserError, describe
from ..resources import find_config
from .config_nodes import networks
from .distributed import distribute_on_cpu
from .mm_checkpoints import check_resumable, find_resumable, read


def read_config(path, work_dir=None, launcher='none', options=None):
    """Read a config and settle where its run lives.

    Args:
        path (str): Config file, or the name of one that comes with the
            package.
        work_dir (str | None): Folder of the run; None for the config's own,
            or ``work_dirs/<name of the config>``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        options (dict | None): Values that win over the config's.

    Returns:
        Config: With ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: The file does not exist, or an import it asks for fails.
    """
    _import_yapf()
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is the user's own Python
        raise UserError(f'{path} cannot be read: {describe(error)}') from error
    if options:
        try:
            cfg.merge_from_dict(options)
        except Exception as error:  # of mm, in what does not fit
            raise UserError(
                f'--cfg-options: {" ".join(options)} cannot be put into '
                f'{path}: {type(error).__name__}: {error}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', path.stem)
    cfg.launcher = launcher
    if launcher == 'pytorch' and not torch.cuda.is_available():
        distribute_on_cpu(cfg)
    return cfg


def _import_yapf(patience=10):
    """Import what mm prints configs with, while others do so as well.

    The first import in an environment writes a file into the user's cache,
    and a process that is started beside it may read the half of it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            import yapf  # noqa: F401
            return
        except (EOFError, pickle.UnpicklingError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f'yapf cannot read its own cache ({error}): remove the '
                    'folder YAPF from your cache folder, ~/.cache on Linux'
                ) from error
        time.sleep(.1)


def use_backbone_file(cfg, trusted=False):
    """Turn a ``load_from`` that is a backbone alone into its ``init_cfg``.

    A whole model would take nothing from such a file.

    Args:
        cfg (Config): The config; changed in place.
        trusted (bool): Whether code in the file may be run. Default: False.

    Raises:
        UserError: The model has no ``backbone``.
        CheckpointError: The file cannot be read safely.
    """
    if not cfg.get('load_from'):
        return
    try:
        _, layout = find_state_dict(read(cfg.load_from, trusted))
    except NotCycleNetError:
        return  # another network's, for mm to load
    if 'prefix' in layout:
        return
    found = ([cfg.model.backbone] if 'backbone' in cfg.model
             else list(networks(cfg.model)))
    if not found:
        raise UserError(
            f'load_from {cfg.load_from} is a backbone, and the model of the '
            "config has no 'backbone'")
    for network in found:
        network.init_cfg = ConfigDict(
            type='Pretrained', checkpoint=cfg.load_from)
    cfg.load_from = None


def resume_from(cfg, checkpoint=None, trusted=False):
    """Have a config continue a run, with the seed it began with.

    Args:
        cfg (Config): The config; changed in place.
        checkpoint (str | None): Path or URL; None for the newest whole one
            in the work dir. If there is none there, the run begins.
        trusted (bool): Whether code in the file may be run. Default: False.

    Raises:
        CheckpointError: The file cannot be read, or is not of a run.
        UserError: There are checkpoints, and none is whole.
    """
    path = checkpoint or find_resumable(cfg.work_dir, trusted)
    cfg.resume = path is not None
    if path is None:
        return
    cfg.load_from = path
    content = read(path, trusted)
    check_resumable(content, path)
    # mm takes it up too late for the order of the images.
    seed = content['meta'].get('seed')
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
