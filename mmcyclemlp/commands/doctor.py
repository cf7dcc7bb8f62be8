"""Say what is installed, what cannot work, and the remedy.

    python -m mmcyclemlp doctor

For an issue, paste what it prints. The exit code is 1 if there is a problem.
"""

import logging
import sys

from ..apis.doctor import PROBLEM, examine
from . import cli


def main(argv=None):
    cli.new_parser(
        'doctor',
        description='Say which versions are installed, which backends can '
        'run, whether the registries know CycleNet, what is wrong, and the '
        'remedy. For an issue, paste what it prints.').parse_args()
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    problems = 0
    for level, text in examine():
        print(f'{level:8} {text}', flush=True)
        problems += level == PROBLEM
    print(f'\n{problems or "no"} problem{"s" * (problems != 1)}')
    sys.exit(min(problems, 1))
