"""Report what is installed, what does not work, and the remedy.

    python -m mmcyclemlp doctor

Paste the output into an issue. The exit code is 1 if there is a problem.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from ..apis.doctor import PROBLEM, examine
from . import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    cli.new_parser(
        'doctor',
        description='Report which versions are installed, which backends '
        'run, whether the registries have CycleNet, what is wrong, and the '
        'remedy. Paste the output into an issue. The exit code is 1 if '
        'there is a problem.').parse_args(argv)
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    problems = 0
    for level, text in examine():
        print(f'{level:8} {text}', flush=True)
        problems += level == PROBLEM
    print(f'\n{problems or "no"} problem{"s" * (problems != 1)}')
    sys.exit(min(problems, 1))
