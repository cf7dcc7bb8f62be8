"""Copy configs and tools into the wheel, in ``.mim`` as mm's packages do."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

COPIED = ('configs', 'tools', 'model-index.yml')
IGNORED = shutil.ignore_patterns('__pycache__')


class BuildWithConfigs(build_py):
    """Copy these folders from beside the package into it.

    An editable install finds them beside the package.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in COPIED:
            target = Path(self.build_lib, 'mmcyclemlp', '.mim', name)
            target.parent.mkdir(exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, ignore=IGNORED,
                                dirs_exist_ok=True)
            else:
                shutil.copy2(name, target)


setup(cmdclass=dict(build_py=BuildWithConfigs))
