"""Configs are found by path, by name, and by less."""

import pytest

from mmcyclemlp.errors import UserError
from mmcyclemlp.resources import configs_folder, find_config, list_configs

NAME = 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco'


def test_all_are_listed(root):
    assert configs_folder() == root / 'configs'
    files = set((root / 'configs').glob('*/*.py'))
    assert {root / 'configs' / f'{name}.py' for name in list_configs()} == (
        files)
    assert len({path.name for path in files}) == len(files)


@pytest.mark.parametrize('name', [
    NAME, f'{NAME}.py', f'configs/{NAME}.py', NAME.partition('/')[2],
    NAME.partition('/')[2] + '.py'])
def test_found_by_name(name, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == root / 'configs' / f'{NAME}.py'


def test_own_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f'{NAME}.py'
    own.parent.mkdir()
    own.touch()
    assert find_config(f'{NAME}.py').resolve() == own


def test_unknown():
    with pytest.raises(UserError, match=(
            r'no config file retinanet_b1\.py, and .* lists all')):
        find_config('retinanet_b1.py')
    with pytest.raises(UserError, match=rf'did you mean {NAME}\?'):
        find_config(NAME + 'o')
