"""Runs of several processes: without a GPU, and their end."""

import torch
from mmengine.dist import is_distributed


def distribute_on_cpu(cfg):
    """Several processes without a GPU, which mmengine does not foresee."""
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))

    def replace(node):
        # SyncBN is for GPUs.
        if isinstance(node, dict):
            if node.get('type') == 'SyncBN':
                node['type'] = 'BN'
            for value in node.values():
                replace(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                replace(value)

    replace(cfg.get('model'))


def leave_group():
    """End a run of several processes, if it was one.

    Together: a gloo thread that outlives the other ranks aborts its process.
    """
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
