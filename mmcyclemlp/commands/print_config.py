"""List the configs of the package, or write one out whole.

    python tools/print_config.py
    python tools/print_config.py NAME > mine.py

What is written inherits nothing: a file to start one's own from.
"""

import argparse

from mmcyclemlp.carried import list_configs
from mmcyclemlp.engine import command
from mmcyclemlp.engine.launch import read_config


def parse_args():
    parser = argparse.ArgumentParser(
        description='List the configs of the package, or write one out whole, '
        'with all that it inherits.')
    parser.add_argument(
        'config', nargs='?', help='name or path of a config (default: list '
        'the names)')
    command.add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    if args.config is None:
        print('\n'.join(list_configs()))
        return
    cfg = read_config(args.config, options=args.cfg_options)
    for key in ('work_dir', 'launcher'):
        cfg.pop(key)
    print(cfg.pretty_text, end='')


if __name__ == '__main__':
    command.run(main)
