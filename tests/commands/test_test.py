"""What the test command keeps, with evaluators and data sets of any form."""

import pickle
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers.commands import error_of, run_command
from helpers.tiny_configs import write_checkpoint, write_config

COMMAND = 'test'
BINARY = """
names = dict(classes=('rest', 'thing'), palette=[[0, 0, 0], [200, 0, 0]])
head = dict(num_classes={number}, out_channels=1, threshold=0.5, loss_decode=
            dict(type='CrossEntropyLoss', use_sigmoid=True))
model['decode_head'].update(head)
model['auxiliary_head'].update(head)
for loader in (train_dataloader, val_dataloader, test_dataloader):
    loader['dataset'].update(
        metainfo=names, reduce_zero_label=False)
    loader['dataset']['pipeline'] = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
"""


@pytest.fixture
def wide(drawn_data, tmp_path):
    """Validation images of 96x128 as cam1/0.jpg, cam2/0.jpg ..."""
    data = tmp_path / 'wide'
    shutil.copytree(drawn_data, data)
    for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
        for place, path in enumerate(sorted(
                (data / kind / 'val').glob(f'*{suffix}'))):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:96]
            path.unlink()
            folder = data / kind / 'val' / f'cam{place % 2 + 1}'
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f'{place // 2}{suffix}'), image)
    return data


NAMES = ['cam1/0', 'cam1/1', 'cam2/0', 'cam2/1']


def make(name, root, data, folder, more=''):
    config = write_config(folder, root, data, name)
    with config.open('a') as file:
        file.write(more)
    return config, write_checkpoint(config, folder / f'{name}.pth')


def files(folder):
    return sorted(str(path.relative_to(folder))
                  for path in folder.rglob('*') if path.is_file())


def run(root, tmp_path, model, *args):
    assert run_command(COMMAND, *model, '--work-dir',
                       tmp_path / 'work', *args) == 0


ONE = """
one = test_dataloader['dataset']
"""
WRAPPED = dict(
    concat="dict(type='ConcatDataset', datasets=[one])",
    repeat="dict(type='RepeatDataset', dataset=one, times=2)",
    mix="dict(type='MultiImageMixDataset', dataset=dict(one, pipeline="
        "one['pipeline'][:1]), pipeline=one['pipeline'][1:])")


def flattened(kind):
    """A data set of a wrapper, its own settings in one place."""
    return """
base = dict(
    type='BaseSegDataset', data_root=DATA, img_suffix='.jpg',
    data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
    seg_map_suffix='.png', reduce_zero_label=True,
    metainfo=dict(classes=tuple('abcdefg')))
one = dict(base, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')])
test_dataloader['dataset'] = dict(_delete_=True, **""" + WRAPPED[kind] + """)
test_evaluator = [dict(type='IoUMetric'),
                  dict(type='IoUMetric', prefix='again')]
"""


@pytest.mark.parametrize('kind', WRAPPED)
@pytest.mark.parametrize('tta', [False, True])
def test_data_sets_in_wrappers(kind, tta, root, wide, tmp_path):
    pytest.importorskip('mmseg')
    model = make('upernet', root, wide, tmp_path,
                 flattened(kind).replace('DATA', repr(str(wide))))
    run(root, tmp_path, model, '--out-dir', tmp_path / 'labels', '--show-dir',
        tmp_path / 'pictures', *(['--tta'] if tta else []))
    assert files(tmp_path / 'labels') == [f'{name}.png' for name in NAMES]
    assert files(tmp_path / 'pictures') == [f'{name}.png' for name in NAMES]
    for name in NAMES:
        labels = cv2.imread(str(tmp_path / f'labels/{name}.png'), -1)
        assert labels.shape == (96, 128) and labels.min() >= 1
        # The truth on the left, the prediction on the right.
        assert cv2.imread(
            str(tmp_path / f'pictures/{name}.png')).shape == (96, 256, 3)


@pytest.mark.parametrize('number', [1, 2])
@pytest.mark.parametrize('tta', [False, True])
def test_sigmoid(number, tta, root, drawn_data, tmp_path):
    """A single output channel is above the threshold or not."""
    pytest.importorskip('mmseg')
    import torch
    from mmseg.apis import inference_model, init_model

    data = tmp_path / 'data'
    shutil.copytree(drawn_data, data)
    for path in (data / 'annotations').rglob('*.png'):
        labels = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), (labels > 2).astype(np.uint8))
    config, checkpoint = make('upernet', root, data, tmp_path,
                              BINARY.format(number=number))
    content = torch.load(checkpoint)
    # The middle of the random scores is the threshold.
    path = str(data / 'images/val/0000.jpg')
    score = inference_model(init_model(str(config), str(checkpoint), 'cpu'),
                            path).seg_logits.data.logit()
    content['state_dict']['decode_head.conv_seg.bias'] -= score.median()
    torch.save(content, checkpoint)
    expected = inference_model(
        init_model(str(config), str(checkpoint), 'cpu'),
        path).pred_sem_seg.data[0].numpy()
    assert .2 < expected.mean() < .8
    run(root, tmp_path, (config, checkpoint), '--out-dir', tmp_path / 'labels',
        '--show-dir', tmp_path / 'pictures', *(['--tta'] if tta else []))
    labels = cv2.imread(str(tmp_path / 'labels/0000.png'), -1)
    if tta:
        assert .2 < labels.mean() < .8
        assert (labels == expected).mean() > .7
    else:
        assert (labels == expected).all()
    picture = cv2.imread(str(tmp_path / 'pictures/0000.png'))
    red = picture[:, 128:, 2].astype(int) - picture[:, 128:, 1]
    assert red[labels == 1].mean() > red[labels == 0].mean() + 100


def test_detector(root, drawn_data, tmp_path):
    pytest.importorskip('mmdet')
    import json

    data = tmp_path / 'data'
    shutil.copytree(drawn_data, data)
    path = data / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    for place, image in enumerate(content['images']):
        name = f'cam{place % 2 + 1}/{place // 2}.jpg'
        (data / 'images/val' / name).parent.mkdir(exist_ok=True)
        shutil.move(data / 'images/val' / image['file_name'],
                    data / 'images/val' / name)
        image['file_name'] = name
    path.write_text(json.dumps(content))
    model = make('retinanet', root, data, tmp_path, """
test_evaluator = [dict(type='CocoMetric', metric='bbox',
                       ann_file=val_evaluator['ann_file'])]
test_dataloader['dataset'] = dict(
    _delete_=True, type='ConcatDataset', datasets=[dict(
        type='CocoDataset', data_root=DATA, metainfo=metainfo,
        test_mode=True, ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val'), pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=(
                'img_id', 'img_path', 'ori_shape', 'img_shape',
                'scale_factor'))])])
default_hooks['visualization'] = dict(
    type='DetVisualizationHook', score_thr=0.)
""".replace('DATA', repr(f'{data}/')))
    run(root, tmp_path, model, '--out', tmp_path / 'out.pkl', '--show-dir',
        tmp_path / 'pictures')
    assert files(tmp_path / 'pictures') == [f'{name}.jpg' for name in NAMES]
    found = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert len({one['img_path'] for one in found}) == 4


def test_pictures_of_other_forms(root, wide, tmp_path):
    """What OpenCV cannot read is drawn as the pipeline loads it."""
    pytest.importorskip('mmseg')
    (tmp_path / 'bands_of_test.py').write_text("""
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
@TRANSFORMS.register_module()
class LoadBandsOfTest(BaseTransform):
    def transform(self, results):
        results['img'] = np.load(results['img_path']).astype(np.float32)
        results['img_shape'] = results['ori_shape'] = (
            results['img'].shape[:2])
        return results
""")
    for path in (wide / 'images' / 'val').rglob('*.jpg'):
        image = cv2.imread(str(path)) / 100. - 1
        np.save(path.with_suffix('.npy'), image[..., [0, 1, 2, 0, 1]])
        path.unlink()
    more = flattened('repeat').replace('DATA', repr(str(wide))).replace(
        "'.jpg'", "'.npy'").replace('LoadImageFromFile', 'LoadBandsOfTest')
    model = make('upernet', root, wide, tmp_path, f"""
import sys
sys.path.append({str(tmp_path)!r})
custom_imports = dict(imports=['mmcyclemlp', 'bands_of_test'],
                      allow_failed_imports=False)
model['backbone']['in_channels'] = 5
model['data_preprocessor'] = dict(mean=None, std=None, bgr_to_rgb=False)
""" + more)
    run(root, tmp_path, model, '--show-dir', tmp_path / 'pictures')
    assert files(tmp_path / 'pictures') == [f'{name}.png' for name in NAMES]


def test_two_processes(root, wide, tmp_path):
    """Each process draws its own images."""
    pytest.importorskip('mmseg')
    model = make('upernet', root, wide, tmp_path,
                 flattened('concat').replace('DATA', repr(str(wide))))
    done = subprocess.run(
        ['bash', 'tools/dist_test.sh', '2', *map(str, model), '--work-dir',
         tmp_path / 'work', '--out-dir', tmp_path / 'labels', '--show-dir',
         tmp_path / 'pictures'], cwd=root, capture_output=True, text=True,
        timeout=300, env={'PATH': f'{sys.prefix}/bin:/usr/bin:/bin',
                          'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in ('labels', 'pictures'):
        assert files(tmp_path / folder) == [f'{name}.png' for name in NAMES]


@pytest.mark.parametrize('more, message', [
    ('test_dataloader = None\n', 'test_dataloader'),
    ('test_evaluator = None\n', 'test_evaluator'),
    ('test_cfg = None\n', 'test_cfg'),
])
def test_config_without_a_test(more, message, root, drawn_data, tmp_path):
    pytest.importorskip('mmseg')
    model = make('upernet', root, drawn_data, tmp_path)
    with model[0].open('a') as file:
        file.write(more)
    for args in ([], ['--out-dir', tmp_path / 'out', '--show-dir', tmp_path,
                      '--tta']):
        assert message in error_of(COMMAND, *model, *args)


@pytest.mark.parametrize('name, option, message', [
    ('upernet', '--out', 'are saved to a folder: use --out-dir'),
    ('retinanet', '--out-dir', 'for a model of mmdet use --out'),
])
def test_file_or_folder(name, option, message, root, drawn_data, tmp_path):
    pytest.importorskip('mmseg' if name == 'upernet' else 'mmdet')
    model = make(name, root, drawn_data, tmp_path)
    assert message in error_of(COMMAND, *model, option, tmp_path / 'out.pkl')
