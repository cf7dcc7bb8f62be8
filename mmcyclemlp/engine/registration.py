"""Make the network known to mm's registries, and its log to mm's logger."""

import logging

from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..backbones import CycleNet


class _ToCurrentLogger(logging.Handler):
    """Hand records to the logger of the mm run that is going on."""

    def emit(self, record):
        print_log(record.getMessage(), logger='current', level=record.levelno)


def _official(arch):
    """The name that the official code registers for an arch."""

    def build(**kwargs):
        return CycleNet(arch=arch, **kwargs)

    build.__name__ = f'CycleMLP_{arch.upper()}_feat'
    build.__doc__ = f'CycleNet with arch={arch!r}, by its official name.'
    return build


def register():
    """Register with mmengine's root, where every mm library looks.

    ``mmcyclemlp.CycleNet`` needs no entry: a registry imports what it
    cannot find by name.
    """
    MODELS.register_module(module=CycleNet)
    for number in range(1, 6):
        MODELS.register_module(module=_official(f'b{number}'))
    logger = logging.getLogger('mmcyclemlp')
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_ToCurrentLogger())
