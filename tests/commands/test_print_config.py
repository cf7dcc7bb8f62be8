"""A config written out whole is the config."""

import pytest


def test_written_out(run_cli, tmp_path):
    pytest.importorskip('mmdet')
    from mmengine.config import Config

    name = 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco'
    done = run_cli('print_config', name, '--cfg-options',
                      'model.bbox_head.num_classes=5')
    path = tmp_path / 'mine.py'
    path.write_text(done.stdout)
    assert '_base_ =' not in done.stdout
    cfg = Config.fromfile(f'configs/{name}.py')
    cfg.model.bbox_head.num_classes = 5
    assert Config.fromfile(path).to_dict() == cfg.to_dict()


def test_unknown(run_cli):
    done = run_cli('print_config', 'retinanet_b9', expect=1)
    assert done.stderr.startswith('error: there is no config file')
    assert done.stderr.count('\n') == 1
