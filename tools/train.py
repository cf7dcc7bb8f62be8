"""The same as ``python -m mmcyclemlp train``."""

import sys

from mmcyclemlp.__main__ import main

if __name__ == '__main__':
    main(['train', *sys.argv[1:]])
