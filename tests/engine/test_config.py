"""Read a config."""

import pytest

from mmcyclemlp.engine.config import read_config
from mmcyclemlp.errors import UserError

SHIPPED = 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco'


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / 'mine.py'
        path.write_text(text)
        return str(path)

    return write


def test_a_shipped_config(tmp_path):
    cfg = read_config(SHIPPED, launcher='pytorch')
    assert cfg.launcher == 'pytorch' and cfg.model.type == 'RetinaNet'
    # Only a config is read: no process group, no model wrapper.
    assert 'model_wrapper_cfg' not in cfg


@pytest.mark.parametrize('text, given, found', [
    ('', None, 'work_dirs/mine'), ("work_dir = 'a'", None, 'a'),
    ("work_dir = 'a'", 'b', 'b')])
def test_work_dir(text, given, found, write):
    assert read_config(write(text), given).work_dir == found


def test_options_override(write):
    cfg = read_config(write('a = dict(b=1)'), options={'a.b': 2})
    assert cfg.a.b == 2
    with pytest.raises(UserError, match='--cfg-options: a.0 cannot be put'):
        read_config(write('a = []'), options={'a.0': 2})


@pytest.mark.parametrize('text, message', [
    ("raise OSError('gone')", 'gone'), ('a = 1 / 0', 'ZeroDivisionError'),
    ("custom_imports = dict(imports=['gone'])", 'gone')])
def test_names_a_config_that_cannot_be_read(text, message, write):
    path = write(text)
    with pytest.raises(UserError, match=message) as caught:
        read_config(path)
    assert str(caught.value).startswith(f'{path} cannot be read: ')


def test_suggests_a_config():
    with pytest.raises(UserError, match='did you mean'):
        read_config(SHIPPED.replace('b1', 'bl'))
