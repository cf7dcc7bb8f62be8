"""Configs that come with the package."""

import difflib
from pathlib import Path

from .errors import UserError


def configs_folder() -> Path:
    """Return the folder of configs: in the wheel, or in a clone."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim' / 'configs'
    return installed if installed.exists() else package.parent / 'configs'


def find_config(name: str) -> Path:
    """Find a config by its path or its name.

    Args:
        name: Path of a file, or a name that ``python -m mmcyclemlp
            print_config`` lists. The folder and ``.py`` may be left out.

    Returns:
        Path of an existing file.

    Raises:
        UserError: There is none. The message names one of similar spelling.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_configs()
    stem = path.as_posix().removesuffix('.py').removeprefix('configs/')
    found = [own for own in known if stem in (own, own.rpartition('/')[2])]
    if found:
        return configs_folder() / f'{found[0]}.py'
    similar = difflib.get_close_matches(
        stem, known + [own.rpartition('/')[2] for own in known], n=1)
    raise UserError(
        f'there is no config file {name}, and no config of that name comes '
        'with mmcyclemlp'
        + (f'; did you mean {similar[0]}?' if similar else '')
        + ' (python -m mmcyclemlp print_config lists all)')


def list_configs() -> list:
    """Return the names of the configs that come with the package.

    Returns:
        Names such as 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco'.
    """
    folder = configs_folder()
    return sorted(
        path.relative_to(folder).with_suffix('').as_posix()
        for path in folder.glob('*/*.py'))
