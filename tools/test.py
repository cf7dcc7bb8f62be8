"""Evaluate a checkpoint: mAP of a detector, mIoU of a segmentor.

    python tools/test.py CONFIG CHECKPOINT --show-dir pictures
"""

import argparse
import os
import sys

from mmengine.config import ConfigDict, DictAction

from mmcyclemlp.backbones import CheckpointError
from mmcyclemlp.engine.data_checks import check_data
from mmcyclemlp.engine.errors import UserError
from mmcyclemlp.engine.launch import build_runner, leave_group, read_config


def parse_args():
    parser = argparse.ArgumentParser(
        description='Evaluate a detector (mmdet) or a segmentor (mmseg).')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument(
        '--work-dir', help='where the log goes '
        '(default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--out', metavar='PATH',
        help='keep the predictions: a .pkl file of a detector, a folder of '
        'label maps of a segmentor')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='keep pictures of the predictions')
    parser.add_argument(
        '--tta', action='store_true',
        help="test-time augmentation, by the config's tta_model and "
        'tta_pipeline')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='values that win over the config')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='how several processes were started')
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    cfg = read_config(args.config, args.work_dir, args.launcher,
                      args.cfg_options)
    if not os.path.isfile(args.checkpoint):
        raise UserError(f'there is no checkpoint file {args.checkpoint}')
    is_segmentor = cfg.get('default_scope') == 'mmseg'
    if args.out and is_segmentor:
        cfg.test_evaluator.output_dir = args.out
    elif args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: a detector keeps its predictions in a .pkl')
    if args.show_dir:
        keep_pictures(cfg, args.show_dir, is_segmentor)
    check_data(cfg, ('test', ))
    if args.tta:
        use_tta(cfg, args.config)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    runner = build_runner(cfg)
    if args.out and not is_segmentor:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(
            DumpDetResults(out_file_path=args.out))
    runner.test()
    leave_group()


def keep_pictures(cfg, folder, is_segmentor):
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show-dir: the config has no default_hooks.visualization')
    hook.draw = True
    if is_segmentor:
        # mmsegmentation 1.2 would draw every 50th batch.
        hook.interval = 1
        cfg.visualizer.save_dir = folder
    else:
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
    try:
        main()
    except (UserError, CheckpointError) as error:
        sys.exit(f'error: {error}')
