"""Register CycleNet with mm, and send the package's log to mm's logger."""

import logging

from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..backbones import CycleNet


class _ToCurrentLogger(logging.Handler):
    """Send records to the logger of the current run of mm."""

    def emit(self, record):
        print_log(record.getMessage(), logger='current', level=record.levelno)


def _official(arch):
    """Return a function with the name that the official code registers."""

    def build(**kwargs):
        return CycleNet(arch=arch, **kwargs)

    build.__name__ = f'CycleMLP_{arch.upper()}_feat'
    build.__doc__ = f'CycleNet with arch={arch!r}, by its official name.'
    return build


def register() -> None:
    """Register with the root registry of mmengine.

    All mm libraries look there. The name ``mmcyclemlp.CycleNet`` needs no
    entry: a registry imports a class by its full name.
    """
    MODELS.register_module(module=CycleNet)
    for number in range(1, 6):
        MODELS.register_module(module=_official(f'b{number}'))
    logger = logging.getLogger('mmcyclemlp')
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_ToCurrentLogger())
