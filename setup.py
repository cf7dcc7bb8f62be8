"""Carry configs and tools in the wheel, in ``.mim`` as mm's packages do."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = ('configs', 'tools', 'model-index.yml')
# For those who work on the project itself.
LEFT = shutil.ignore_patterns('__pycache__')


class BuildWithConfigs(build_py):
    """Copy what lies beside the package into it.

    An editable install needs none: there it lies beside.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in CARRIED:
            target = Path(self.build_lib, 'mmcyclemlp', '.mim', name)
            target.parent.mkdir(exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, ignore=LEFT,
                                dirs_exist_ok=True)
            else:
                shutil.copy2(name, target)


setup(cmdclass=dict(build_py=BuildWithConfigs))
