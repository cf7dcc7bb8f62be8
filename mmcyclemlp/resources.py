"""Configs and commands that come with the package."""

import difflib
from pathlib import Path

from .engine.errors import UserError


def carried(name):
    """Give the path of what is in the wheel, or beside a clone's package.

    Args:
        name (str): 'configs' or 'tools'.

    Returns:
        Path: The folder.
    """
    package = Path(__file__).resolve().parent
    inside = package / '.mim' / name
    return inside if inside.exists() else package.parent / name


def find_config(name):
    """Find a config: a file, or one that comes with the package.

    Args:
        name (str): Path, or what ``python -m mmcyclemlp print_config``
            lists, with its folder and ``.py`` or without.

    Returns:
        Path: An existing file.

    Raises:
        UserError: There is none; names those that are spelt alike.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_configs()
    stem = path.as_posix().removesuffix('.py').removeprefix('configs/')
    found = [own for own in known if stem in (own, own.rpartition('/')[2])]
    if found:
        return carried('configs') / f'{found[0]}.py'
    alike = difflib.get_close_matches(
        stem, known + [own.rpartition('/')[2] for own in known], n=1)
    raise UserError(
        f'there is no config file {name}, and mmcyclemlp brings none of that '
        f'name{f" ({alike[0]} is alike)" if alike else ""}; python -m '
        'mmcyclemlp print_config lists what it brings')


def list_configs():
    """Give the names of the configs that come with the package.

    Returns:
        list[str]: Such as 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco'.
    """
    folder = carried('configs')
    return sorted(
        path.relative_to(folder).with_suffix('').as_posix()
        for path in folder.glob('*/*.py'))
