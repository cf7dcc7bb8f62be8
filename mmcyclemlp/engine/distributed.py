"""Run several processes, also without a GPU."""

from __future__ import annotations

import pickle
import time
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed

from ..errors import UserError


def set_up_processes(cfg: Config) -> None:
    """Prepare this process for a run, which may have several processes.

    Args:
        cfg (Config): Config with ``launcher``; changed in place.

    Raises:
        UserError: The cache of yapf is damaged.
    """
    import_yapf()
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine starts a process group and wraps a model for GPUs only.
        start_cpu_group()
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel', device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
        replace_sync_bn(cfg.get('model'))


def import_yapf(patience: float = 10) -> None:
    """Import yapf, with which mm formats configs.

    The first import in an environment writes a cache file. A process that
    starts at the same time may read it before it is complete.

    Args:
        patience (float): Seconds to wait for a complete file.

    Raises:
        UserError: The file is still not complete.
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


def start_cpu_group() -> None:
    """Start a process group that communicates through the CPU."""
    if not is_distributed():
        torch.distributed.init_process_group('gloo')


def replace_sync_bn(node: Any) -> None:
    """Replace SyncBN, which needs GPUs, by BN.

    Args:
        node (dict | list | Any): Config of a model or a part of it; changed
            in place.
    """
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            replace_sync_bn(value)


def leave_group() -> None:
    """Destroy the process group, if there is one.

    All processes leave together: a process aborts if a thread of gloo runs
    on while other processes end.
    """
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
