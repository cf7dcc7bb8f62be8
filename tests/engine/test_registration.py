"""Registered names, with both mm libraries, with one and with none."""

import pytest

NAMES = ['CycleNet', 'mmcyclemlp.CycleNet'] + [
    f'CycleMLP_B{i}_feat' for i in range(1, 6)]

BUILD = """
import sys

sys.modules['{absent}'] = None  # importing it fails from here on
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

cfg = Config.fromfile(sys.argv[1])
scope = cfg.default_scope
init_default_scope(scope)
with MODELS.switch_scope_and_registry(scope) as registry:
    assert registry.scope == scope, registry
    for name in {names}:
        assert type(registry.build(dict(type=name))).__name__ == 'CycleNet'
        model = dict(cfg.model)
        model['backbone'] = dict(type=name)
        registry.build(model)
print('built')
"""

WITHOUT_MM = """
import sys

for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'torchvision', 'numpy',
             'safetensors'):
    sys.modules[name] = None  # importing it fails from here on
import torch
from mmcyclemlp import CycleNet, load_pretrained

model = CycleNet('b1')
torch.save({'model': CycleNet('b1').state_dict()}, sys.argv[1])
load_pretrained(model, sys.argv[1])
assert len(model(torch.zeros(1, 3, 32, 32))) == 4
print('ran')
"""


@pytest.mark.parametrize('family, absent', [
    ('retinanet', 'mmseg'), ('upernet_ade20k', 'mmdet')])
def test_names_resolve_with_one_library_only(family, absent, root,
                                             run_python):
    pytest.importorskip('mmdet' if family == 'retinanet' else 'mmseg')
    config, = (root / 'configs' / family).glob('*b1_*')
    code = BUILD.format(absent=absent, names=NAMES)
    assert 'built' in run_python('-c', code, config).stdout


def test_the_network_needs_only_torch(run_python, tmp_path):
    done = run_python('-c', WITHOUT_MM, tmp_path / 'file.pth')
    assert 'ran' in done.stdout


def test_a_typo_in_a_config_raises():
    mmdet = pytest.importorskip('mmdet.registry')
    with pytest.raises(TypeError, match='drop_path_rates'):
        mmdet.MODELS.build(dict(type='CycleNet', drop_path_rates=0.1))
    with pytest.raises(TypeError, match='drop_path_rates'):
        mmdet.MODELS.build(
            dict(type='CycleMLP_B2_feat', drop_path_rates=0.1))


def test_official_names():
    mmdet = pytest.importorskip('mmdet.registry')
    model = mmdet.MODELS.build(dict(type='CycleMLP_B3_feat'))
    assert model.arch == 'b3' and model.fork_feat


def test_log_reaches_mm(capfd):
    from mmengine.logging import MMLogger

    from mmcyclemlp import CycleNet

    MMLogger.get_instance('test_log_reaches_mm', log_level='INFO')
    CycleNet(fork_last3=True)
    out, err = capfd.readouterr()
    assert 'fork_last3=True' in out + err
