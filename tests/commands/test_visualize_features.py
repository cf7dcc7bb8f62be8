"""Each kind of picture is drawn, from an arch or a config, or refused."""

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import error_of, run_command
from helpers.tiny_configs import write_checkpoint, write_config

from mmcyclemlp import CycleNet

COMMAND = 'visualize_features'


def test_maps(root, drawn_data, tmp_path):
    torch.save(dict(model=CycleNet('b1', fork_feat=False).state_dict()),
               tmp_path / 'b1.pth')
    picture = drawn_data / 'images' / 'val' / '0000.jpg'
    assert run_command(
        COMMAND, 'maps', 'b1', tmp_path / 'b1.pth', '--image', picture,
        '--size', '64', '64', '--out',
        tmp_path / 'new' / 'maps.png', '--raw', tmp_path / 'maps.npz') == 0
    assert cv2.imread(str(tmp_path / 'new' / 'maps.png')).std() > 10
    raw = np.load(tmp_path / 'maps.npz')
    assert [raw[f'stage{place}'].shape for place in range(1, 5)] == [
        (16, 16, 64), (8, 8, 128), (4, 4, 320), (2, 2, 512)]


def test_erf_of_a_config(root, drawn_data, tmp_path):
    pytest.importorskip('mmdet')
    config = write_config(tmp_path, root, drawn_data, 'retinanet')
    checkpoint = write_checkpoint(config, tmp_path / 'whole.pth')
    assert run_command(
        COMMAND, 'erf', config, checkpoint, '--images',
        f'{drawn_data}/images/val/*', '--size', '96', '96', '--out',
        tmp_path / 'erf.png', '--raw', tmp_path / 'erf.npz') == 0
    assert cv2.imread(str(tmp_path / 'erf.png')).std() > 10
    raw = np.load(tmp_path / 'erf.npz')
    assert raw['stage4'].shape == (96, 96)
    # The field grows from stage to stage.
    wide = [(raw[f'stage{place}'] > raw[f'stage{place}'].max() / 100).sum()
            for place in range(1, 5)]
    assert wide == sorted(set(wide))


@pytest.mark.parametrize('channels', [1, 5])
def test_other_channels(channels, root, drawn_data, tmp_path):
    """Images are loaded and normalized as the config says."""
    pytest.importorskip('mmseg')
    (tmp_path / f'bands{channels}.py').write_text(f"""
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
@TRANSFORMS.register_module()
class LoadBands{channels}(BaseTransform):
    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        return results
""")
    config = write_config(tmp_path, root, drawn_data, 'upernet')
    with config.open('a') as file:
        file.write(f"""
import sys
sys.path.append({str(tmp_path)!r})
custom_imports = dict(imports=['mmcyclemlp', 'bands{channels}'],
                      allow_failed_imports=False)
model['backbone']['in_channels'] = {channels}
model['data_preprocessor'] = dict(mean=None, std=None, bgr_to_rgb=False)
test_dataloader['dataset']['pipeline'] = [
    dict(type='LoadBands{channels}'), dict(type='PackSegInputs')]
""")
    (tmp_path / 'in').mkdir()
    bands = np.random.RandomState(0).rand(100, 130, channels)
    np.save(tmp_path / 'in/a.npy', bands.squeeze())
    np.save(tmp_path / 'in/other.npy', bands[..., [0, 0]])
    size = ['--size', '64', '64', '--out', tmp_path / 'a.png']
    for args in (['maps', config, '--image', tmp_path / 'in/a.npy'],
                 ['erf', config],
                 ['erf', config, '--images', f'{tmp_path}/in/a*.npy']):
        assert run_command(COMMAND, *args, *size) == 0
        assert cv2.imread(str(tmp_path / 'a.png')).std() > 10
        (tmp_path / 'a.png').unlink()
    assert f'the backbone takes images of {channels} channels' in error_of(
        COMMAND, 'erf', config, '--images', tmp_path / 'in', *size)


def test_cyclefc(run_cli, tmp_path):
    done = run_cli(COMMAND, 'cyclefc', '--kernel', '3', '3', '--out',
                   tmp_path / 'reads.png')
    assert done.stdout == f'{tmp_path / "reads.png"}\n'
    assert cv2.imread(str(tmp_path / 'reads.png')).std() > 10


@pytest.mark.parametrize('args, message', [
    (['cyclefc', '--kernel', '2', '3'], '--kernel: 2 3 are not both odd'),
    (['cyclefc', '--blocks', '0'], '--blocks: 0 is less than 1'),
    (['maps', 'b9', '--image', 'x.jpg'], 'there is no config file b9'),
    (['maps', 'b1', '--image', 'README.md'], 'README.md: it cannot be read'),
    (['erf', 'b1', '--size', '96', '100'],
     '--size: 96 100 is no multiple of 32'),
    (['erf', 'b1', '--images', '{tmp}/film.mp4'],
     'has videos and no pictures'),
    (['maps', 'b1', 'gone.pth', '--image', 'docs/pictures/predictions.jpg'],
     'there is no checkpoint file gone.pth'),
    (['cyclefc', '--out', 'README.md/x.png'], 'cannot be written'),
])
def test_mistakes(args, message, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    (tmp_path / 'film.mp4').touch()
    args = [arg.format(tmp=tmp_path) for arg in args]
    assert message in error_of(COMMAND, *args)
