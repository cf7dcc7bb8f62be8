"""Build a runner; tests/commands train and test with it."""

import pytest
from mmengine.config import Config

from mmcyclemlp.engine import runner
from mmcyclemlp.errors import UserError


def test_trust_reaches_networks_inside_others(monkeypatch):
    inner = dict(type='CycleMLP_B1_feat', init_cfg=dict(checkpoint='a.pth'))
    cfg = Config(dict(model=dict(
        type='SoftTeacher', detector=dict(type='RetinaNet', backbone=inner),
        others=[dict(type='CycleNet', init_cfg=None)]), default_scope='none'))
    monkeypatch.setattr(runner, 'replace_loader', lambda *args: None)
    monkeypatch.setattr(runner, '_make_resumable', lambda *args: None)
    with pytest.raises(UserError):
        runner.build_runner(cfg, trusted=True)
    assert cfg.model.detector.backbone.init_cfg.trusted is True
    assert cfg.model.others[0].init_cfg is None
