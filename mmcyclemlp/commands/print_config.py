"""List the configs of the package, or print one with all that it inherits.

    python -m mmcyclemlp print_config
    python -m mmcyclemlp print_config NAME > mine.py

The printed config inherits nothing, so you can start your own from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.config import read_config
from ..resources import list_configs
from . import cli


def parse_args(argv):
    parser = cli.new_parser(
        'print_config',
        description='List the configs of the package, or print one with all '
        'that it inherits.')
    parser.add_argument(
        'config', nargs='?', help='path or name of a config (default: list '
        'the names)')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse_args(argv)
    if args.config is None:
        print('\n'.join(list_configs()))
        return
    cfg = read_config(args.config, options=args.cfg_options)
    for key in ('work_dir', 'launcher'):
        cfg.pop(key)
    print(cfg.pretty_text, end='')
