"""Read a config."""

from __future__ import annotations

import os.path as osp

from mmengine.config import Config

from ..errors import UserError, describe
from ..resources import find_config


def read_config(path: str, work_dir: str | None = None,
                launcher: str = 'none', options: dict | None = None,
                ) -> Config:
    """Read a config, and set the options that a command has for it.

    Args:
        path (str): Config file, or the name of one that comes with the
            package.
        work_dir (str | None): Folder of the run. None uses that of the
            config, or ``work_dirs/<name of the config>``. Default: None.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
            Default: 'none'.
        options (dict | None): Values that override those of the config.
            Default: None.

    Returns:
        Config: The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: There is no such file, the file cannot be read or one of
            its imports fails, or an option does not fit the config.
    """
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is Python code of the user
        raise UserError(f'{path} cannot be read: {describe(error)}') from error
    if options:
        try:
            cfg.merge_from_dict(options)
        except Exception as error:  # mm raises several types
            raise UserError(
                f'--cfg-options: {" ".join(options)} cannot be put into '
                f'{path}: {type(error).__name__}: {error}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', path.stem)
    cfg.launcher = launcher
    return cfg
