"""Counts of parts add up to the published ones, for any config and size."""

import json

import pytest
from helpers.commands import error_of, run_command

from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

COMMAND = 'get_flops'


@pytest.fixture
def count(tmp_path):

    def run(*args):
        path = tmp_path / 'counts.json'
        assert run_command(COMMAND, *args, '--json', path) == 0
        counts = json.loads(path.read_text())
        return counts['parameters'], {
            part: sum(ops.values()) for part, ops in counts['macs'].items()}

    return run


def test_backbone_by_stage(count):
    parameters, macs = count('b1')
    # 2.12 G with the head of 0.5 M: docs/speed.md, "Counting".
    assert round(sum(macs.values()) / 1e9, 2) == 2.12
    # By hand: 56 x 56 positions, two blocks, 64 channels, an MLP of ratio 4.
    assert macs['stage 1: MLPs'] == 56 * 56 * 2 * 2 * 64 * 256
    # Three branches and the projection, and the re-weighting of the mean.
    assert macs['stage 1: mixers'] == (
        56 * 56 * 2 * 4 * 64 * 64 + 2 * (64 * 16 + 16 * 192))
    assert macs['stem'] == 56 * 56 * 7 * 7 * 3 * 64
    assert parameters['stem'] == 7 * 7 * 3 * 64 + 64
    assert parameters['to stage 4'] == 9 * 320 * 512 + 512


def test_channels_of_the_image(count, root):
    for args in (['b1'], [root / 'configs/retinanet/'
                          'retinanet_cyclemlp-b1_fpn_1x_coco.py',
                          '--size', '224', '224']):
        if len(args) > 1:
            pytest.importorskip('mmdet')
        parameters, macs = count(
            *args, '--cfg-options', 'model.backbone.in_channels=5')
        assert macs['stem'] == 56 * 56 * 7 * 7 * 5 * 64
        assert parameters['stem'] == 7 * 7 * 5 * 64 + 64


def test_no_model(tmp_path):
    (tmp_path / 'empty.py').write_text('lr = 1\n')
    assert 'has no model.backbone' in error_of(
        COMMAND, tmp_path / 'empty.py')


def test_size_and_executed(count, root):
    _, macs = count('b1', '--size', '800', '1344')
    assert round(sum(macs.values()) / 1e9, 2) == 45.43
    args = ['b1', '--size', '800', '1344', '--executed']
    if not HAS_CUSTOM_OP:
        assert '--executed needs torch 2.6' in error_of(COMMAND, *args)
        return
    _, macs = count(*args)
    assert round(sum(macs.values()) / 1e9, 2) == 40.75


@pytest.mark.parametrize('library, config, total', [
    ('mmdet', 'mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco', (34.81, 213.3)),
    ('mmseg', 'fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512', (18.91, 32.5)),
])
def test_config(library, config, total, count):
    pytest.importorskip(library)
    parameters, macs = count(config)
    assert round(sum(parameters.values()) / 1e6, 2) == total[0]
    assert round(sum(macs.values()) / 1e9, 1) == total[1]
    assert set(macs) <= set(parameters)


def test_table(run_cli):
    lines = run_cli(COMMAND, 'b2', '--size', '64', '64').stdout.splitlines()
    assert lines[0].split() == ['part', 'parameters', 'multiply-adds']
    assert any(line.startswith('total') for line in lines)
    assert any(line.startswith('aten.convolution') for line in lines)


@pytest.mark.parametrize('args, message', [
    (['b9'], 'there is no config file b9'),
    (['b1', '--size', '0', '9'], '--size: 0 9 is less than 1'),
    (['b1', '--json', '/'], '--json: / cannot be written'),
    (['b1', '--size', '2', '2'], 'the stem needs images of 3x3 or more'),
])
def test_mistakes(args, message, root):
    assert message in error_of(COMMAND, *args)
