"""Evaluate a checkpoint: mAP, mIoU, or top-1 and top-5.

    python -m mmcyclemlp test CONFIG CHECKPOINT --show-dir pictures
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.config import ConfigDict

from ..apis.saving_hooks import (
    DumpHook,
    LabelMapsHook,
    replace_visualization_hook,
)
from ..data_checks import check_data, complete_annotations
from ..engine.config import read_config
from ..engine.config_checks import check_config
from ..engine.config_nodes import name_of
from ..engine.distributed import leave_group, set_up_processes
from ..engine.mm_checkpoints import name_mismatch
from ..engine.runner import build_runner, start
from ..errors import UserError
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'test',
        description='Evaluate a detector (mmdet), a segmentor (mmseg) or a '
        'classifier (mmpretrain).')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument(
        '--out', metavar='FILE', help='save the predictions of a detector or '
        'a classifier to a .pkl file')
    parser.add_argument(
        '--out-dir', metavar='DIR', help='save the label maps of a segmentor '
        'to a folder')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='save pictures of the predictions '
        'to a folder')
    parser.add_argument(
        '--tta', action='store_true',
        help='use test-time augmentation, with tta_model and tta_pipeline of '
        'the config')
    cli.add_check(parser)
    return cli.parse_run_args(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    cfg = read_config(args.config, args.work_dir, args.launcher,
                      args.cfg_options)
    set_up_processes(cfg)
    if '://' not in args.checkpoint and not os.path.isfile(args.checkpoint):
        raise UserError(f'there is no checkpoint file {args.checkpoint}')
    check_config(cfg, 'test')
    hooks = saving_hooks(cfg, args)
    check_data(cfg, ('test', ), args.check)
    if args.check != 'off':
        complete_annotations(cfg, ('test', ))
    if args.tta:
        use_tta(cfg, args.config)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    runner = build_runner(cfg, testing=True, trusted=args.trust_checkpoint)
    for hook in hooks:
        runner.register_hook(hook)
    with name_mismatch(args.checkpoint):
        start(runner, 'test')
    leave_group()


def saving_hooks(cfg, args):
    """Return the hooks that save what the options ask for."""
    scope = cfg.get('default_scope')
    hooks = []
    if scope == 'mmseg':
        if args.out:
            raise UserError(f'--out: {args.out} is a file, and label maps of '
                            'a segmentor are saved to a folder: use --out-dir')
        hooks.append(LabelMapsHook(args.out_dir))
    elif args.out_dir:
        raise UserError(f'--out-dir: {args.out_dir} is for label maps of a '
                        f'segmentor; for a model of {scope} use --out')
    elif args.out:
        if not args.out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out: {args.out} does not end in .pkl')
        hooks.append(DumpHook(args.out, scope))
    if args.show_dir:
        hooks.append(replace_visualization_hook(cfg, args.show_dir))
    return hooks


def use_tta(cfg, path):
    """Put test-time augmentation into a config."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UserError(f'--tta: {path} has no {key}')
    if name_of(cfg.tta_model.get('type')) == 'SegTTAModel':
        cfg.tta_model.type = 'mmcyclemlp.engine.tta.AnySegTTAModel'
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset = augmented(
        cfg.test_dataloader.dataset, cfg.tta_pipeline)


def augmented(dataset, pipeline):
    """Return a data set with another pipeline, inside all wrappers."""
    if 'datasets' in dataset:
        dataset.datasets = [augmented(one, pipeline)
                            for one in dataset.datasets]
    elif 'dataset' in dataset:
        inner = augmented(dataset.dataset, pipeline)
        if 'pipeline' in dataset:
            # MultiImageMixDataset does nothing else.
            return inner
        dataset.dataset = inner
    else:
        dataset.pipeline = pipeline
    return dataset
