"""The same as ``python -m mmcyclemlp test``."""

import sys

from mmcyclemlp.__main__ import main

if __name__ == '__main__':
    main(['test', *sys.argv[1:]])
