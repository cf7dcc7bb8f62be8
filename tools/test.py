"""Evaluate a checkpoint: mAP, mIoU, or top-1 and top-5.

    python tools/test.py CONFIG CHECKPOINT --show-dir pictures
"""

import argparse
import os

from mmengine.config import ConfigDict

from mmcyclemlp.engine import command
from mmcyclemlp.engine.data_checks import check_data, complete_annotations
from mmcyclemlp.engine.errors import UserError
from mmcyclemlp.engine.launch import (
    build_runner,
    leave_group,
    read_config,
    start,
)
from mmcyclemlp.engine.loading import naming


def parse_args():
    parser = argparse.ArgumentParser(
        description='Evaluate a detector (mmdet), a segmentor (mmseg) or a '
        'classifier (mmpretrain).')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument(
        '--out', metavar='PATH',
        help='keep the predictions: a .pkl file of a detector or a '
        'classifier, a folder of label maps of a segmentor')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='keep pictures of the predictions')
    parser.add_argument(
        '--tta', action='store_true',
        help="test-time augmentation, by the config's tta_model and "
        'tta_pipeline')
    command.add_check(parser)
    return command.parse_args(parser)


def main():
    args = parse_args()
    cfg = read_config(args.config, args.work_dir, args.launcher,
                      args.cfg_options)
    if '://' not in args.checkpoint and not os.path.isfile(args.checkpoint):
        raise UserError(f'there is no checkpoint file {args.checkpoint}')
    scope = cfg.get('default_scope')
    if args.out and scope == 'mmseg':
        cfg.test_evaluator.output_dir = args.out
    elif args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: predictions of a model of {scope} go into a '
            '.pkl')
    if args.show_dir:
        if args.tta and scope == 'mmpretrain':
            raise UserError('--show-dir: mmpretrain draws no pictures under '
                            '--tta')
        keep_pictures(cfg, args.show_dir, scope)
    check_data(cfg, ('test', ), args.check)
    if args.check != 'off':
        complete_annotations(cfg, ('test', ))
    if args.tta:
        use_tta(cfg, args.config)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    runner = build_runner(cfg, testing=True, trusted=args.trust_checkpoint)
    if args.out and scope != 'mmseg':
        if scope == 'mmdet':
            from mmdet.evaluation import DumpDetResults as DumpResults
        else:
            from mmengine.evaluator import DumpResults

        runner.test_evaluator.metrics.append(
            DumpResults(out_file_path=args.out))
    with naming(args.checkpoint):
        start(runner, 'test')
    leave_group()


def keep_pictures(cfg, folder, scope):
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show-dir: the config has no default_hooks.visualization')
    if scope == 'mmseg':
        hook.draw = True
        # mmsegmentation 1.2 would draw every 50th batch.
        hook.interval = 1
        cfg.visualizer.save_dir = folder
    elif scope == 'mmpretrain':
        hook.enable = True
        hook.interval = 1
        hook.out_dir = folder
    else:
        hook.draw = True
        hook.test_out_dir = os.path.abspath(folder)


def use_tta(cfg, path):
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UserError(f'--tta: {path} has no {key}')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


if __name__ == '__main__':
    command.run(main)
