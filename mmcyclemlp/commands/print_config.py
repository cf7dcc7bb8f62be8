"""List the configs of the package, or write one out whole.

    python -m mmcyclemlp print_config
    python -m mmcyclemlp print_config NAME > mine.py

What is written inherits nothing: a file to start one's own from.
"""


from ..engine.config import read_config
from ..resources import list_configs
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'print_config',
        description='List the configs of the package, or write one out whole, '
        'with all that it inherits.')
    parser.add_argument(
        'config', nargs='?', help='name or path of a config (default: list '
        'the names)')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.config is None:
        print('\n'.join(list_configs()))
        return
    cfg = read_config(args.config, options=args.cfg_options)
    for key in ('work_dir', 'launcher'):
        cfg.pop(key)
    print(cfg.pretty_text, end='')
