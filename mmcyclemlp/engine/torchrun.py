"""Run torchrun, and exit with the code of the first process that failed.

``dist_train.sh`` and ``dist_test.sh`` use it, so that a job scheduler sees
that code: torchrun itself always exits with 1. The code is 128 plus the
number of the signal if a signal ended the process. One line replaces the
traceback of torchrun.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Run torchrun with the arguments of the command line."""
    try:
        run.main()
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = (f'with exit code {code}' if code > 0
               else f'by {failure.signal_name()}')
        print(f'error: rank {rank} ended first, {how}; its own messages '
              'are above', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


if __name__ == '__main__':
    main()
