"""Evaluate a checkpoint: mAP, mIoU, or top-1 and top-5.

    python -m mmcyclemlp test CONFIG CHECKPOINT --show-dir pictures
"""

import os

from mmengine.config import ConfigDict

from ..apis.prediction_hooks import DumpHook, LabelMapsHook, keep_pictures
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
    cli.add_check(parser)
    return cli.parse_run_args(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = read_config(args.config, args.work_dir, args.launcher,
                      args.cfg_options)
    set_up_processes(cfg)
    if '://' not in args.checkpoint and not os.path.isfile(args.checkpoint):
        raise UserError(f'there is no checkpoint file {args.checkpoint}')
    check_config(cfg, 'test')
    scope = cfg.get('default_scope')
    if args.out and scope != 'mmseg' and not args.out.endswith(
            ('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: predictions of a model of {scope} go into a '
            '.pkl')
    hooks = []
    if scope == 'mmseg':
        hooks.append(LabelMapsHook(args.out))
    elif args.out:
        hooks.append(DumpHook(args.out, scope))
    if args.show_dir:
        hooks.append(keep_pictures(cfg, args.show_dir))
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


def use_tta(cfg, path):
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UserError(f'--tta: {path} has no {key}')
    if name_of(cfg.tta_model.get('type')) == 'SegTTAModel':
        cfg.tta_model.type = 'mmcyclemlp.engine.tta.AnySegTTAModel'
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset = augmented(
        cfg.test_dataloader.dataset, cfg.tta_pipeline)


def augmented(dataset, pipeline):
    """Give a data set another pipeline, in all wrappers."""
    if 'datasets' in dataset:
        dataset.datasets = [augmented(one, pipeline)
                            for one in dataset.datasets]
    elif 'dataset' in dataset:
        inner = augmented(dataset.dataset, pipeline)
        if 'pipeline' in dataset:
            # MultiImageMixDataset has nothing else to do.
            return inner
        dataset.dataset = inner
    else:
        dataset.pipeline = pipeline
    return dataset
