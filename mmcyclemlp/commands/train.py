"""Train a detector, a segmentor or a classifier from its config.

    python -m mmcyclemlp train CONFIG --work-dir work_dirs/mine
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..data_checks import check_data, complete_annotations
from ..engine.config import read_config
from ..engine.config_checks import check_config
from ..engine.config_nodes import name_of
from ..engine.distributed import leave_group, set_up_processes
from ..engine.mm_checkpoints import name_mismatch
from ..engine.runner import build_runner, start
from ..engine.start_checkpoint import resume_from, use_backbone_file
from ..errors import Stopped, UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'train',
        description='Train a detector (mmdet), a segmentor (mmseg) or a '
        'classifier (mmpretrain).')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='PATH|auto',
        help='resume a run from a checkpoint; without PATH, from the newest '
        'valid checkpoint in the work dir, if there is one')
    parser.add_argument(
        '--resume-with', choices=['checkpoint', 'config'],
        default='checkpoint', help='which learning rate, schedule and '
        'optimizer settings a resumed run uses if the two differ (default: '
        'checkpoint)')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help="scale the learning rate by the batch size, from the config's "
        'auto_scale_lr.base_batch_size')
    cli.add_check(parser)
    return cli.parse_run_args(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    cfg = read_config(args.config, args.work_dir, args.launcher,
                      args.cfg_options)
    set_up_processes(cfg)
    check_config(cfg, 'train')
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError(
                f'--auto-scale-lr: {args.config} has no batch size that its '
                'learning rate is for: set '
                'auto_scale_lr=dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    trusted = args.trust_checkpoint
    checkpoint = None
    if args.resume or cfg.get('resume'):
        path = args.resume or cfg.get('load_from') or 'auto'
        checkpoint = resume_from(
            cfg, None if path == 'auto' else path, trusted)
    if not cfg.get('resume'):
        checkpoint = use_backbone_file(cfg, trusted)
    check_data(cfg, ('train', 'val'), args.check)
    if args.check != 'off':
        complete_annotations(cfg, ('train', 'val'))
    with name_mismatch(cfg.get('load_from')):
        try:
            runner = build_runner(cfg, trusted=trusted,
                                  resume_with=args.resume_with,
                                  checkpoint=checkpoint)
            del checkpoint  # mm frees it when it has loaded it
            start(runner, 'train', args.check)
        except Stopped:
            leave_group()
            raise
    leave_group()


def use_amp(cfg):
    """Use mixed precision in a config."""
    if not torch.cuda.is_available():
        raise UserError(
            "--amp: mmengine's mixed precision needs a GPU, and there is "
            'none: leave --amp out')
    kind = name_of(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'--amp: optim_wrapper.type is {kind}, and only OptimWrapper '
            'can be replaced')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
