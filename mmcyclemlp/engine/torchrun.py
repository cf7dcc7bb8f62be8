"""torchrun, ending as the first process did that ended badly.

With its exit code (128 and the number of a signal) and one line in place of
torchrun's traceback. For dist_train.sh and dist_test.sh.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main():
    try:
        run.main()
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = (f'with exit code {code}' if code > 0
               else f'by {failure.signal_name()}')
        print(f'error: rank {rank} ended first, {how}; what it said stands '
              'above', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


if __name__ == '__main__':
    main()
