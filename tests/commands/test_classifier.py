"""Train and evaluate classifiers by the commands, on a few drawn images."""

import pickle
import re
import subprocess
import sys

import definition
import numpy as np
import pytest
import torch
from helpers import class_images
from PIL import Image

from mmcyclemlp import CycleNet, load_pretrained

ARCH = dict(embed_dims=(8, 12, 16, 24), depths=(1, 1, 2, 1),
            mlp_ratios=(2, 2, 2, 2))
CONFIG = """
_base_ = '{root}/configs/imagenet/cyclemlp-b1_8xb128_in1k.py'
model = dict(
    data_preprocessor=dict(num_classes=6),
    backbone=dict(arch=dict(_delete_=True, **{arch}), num_classes=6))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='{data}',
        data_prefix='train', pipeline={{{{_base_.train_pipeline}}}}))
val_dataloader = dict(
    batch_size=5, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='{data}',
        data_prefix='val', pipeline={{{{_base_.test_pipeline}}}}))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = None
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return class_images.draw(tmp_path_factory.mktemp('data'))


@pytest.fixture
def config(root, data, tmp_path):
    pytest.importorskip('mmpretrain')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=root, arch=ARCH, data=data))
    return path


@pytest.fixture
def official(tmp_path):
    """A released file, and the network in it."""
    net = CycleNet(ARCH, fork_feat=False, num_classes=6)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(definition.official_file(net), tmp_path / 'official.pth')
    return tmp_path / 'official.pth', net.eval()


def log_of(done):
    return done.stdout + done.stderr


def scores_in(path):
    """Scores (N, classes) of a .pkl by name of image."""
    return {one['img_path'].rpartition('/')[2]: one['pred_score']
            for one in pickle.loads(path.read_bytes())}


def official_scores(net, data, resized=256, flip=False):
    """What the official evaluation gives, in plain formulas."""
    transforms = pytest.importorskip('torchvision.transforms')
    prepare = transforms.Compose([
        transforms.Resize(resized, interpolation=Image.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    scores = {}
    for path in sorted((data / 'val').rglob('*.JPEG')):
        image = prepare(Image.open(path).convert('RGB'))[None]
        with torch.no_grad():
            logits = definition.classifier(
                net.state_dict(), image.flip(3) if flip else image,
                ARCH['depths'])
        scores[path.name] = logits[0].softmax(0)
    return scores


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys() and len(ours) == 12
    for name, score in theirs.items():
        torch.testing.assert_close(ours[name], score, rtol=0, atol=1e-5)


def top(k, scores):
    """Accuracy in percent; the name of an image says its class."""
    hits = [class_images.NAMES.index(name.split('_')[0])
            in score.topk(k).indices for name, score in scores.items()]
    return 100 * np.mean(hits)


def assert_average_moved(first, second):
    weights, average = first['state_dict'], first['ema_state_dict']
    assert int(second['ema_state_dict']['steps']) == 6
    for key, value in weights.items():
        beside = average[f'module.{key}']
        moved = (second['ema_state_dict'][f'module.{key}'] - beside).abs()
        if value.ndim > 1:
            assert (beside - value).abs().max() > 1e-4, key
        # By 3 steps with momentum 4e-5, not by a swap.
        assert moved.max() < 1e-5, key


def test_train_resume_evaluate(config, data, run_cli, tmp_path):
    work = tmp_path / 'work'
    run_cli('train', config, '--work-dir', work, '--auto-scale-lr',
            '--cfg-options', 'auto_scale_lr.base_batch_size=8',
            'custom_hooks.0.momentum=0.5')
    first = torch.load(work / 'epoch_1.pth', weights_only=False)
    assert first['optimizer']['param_groups'][0]['lr'] == 5e-3
    weights, average = first['state_dict'], first['ema_state_dict']
    # With this rate a new start would change nothing.
    done = run_cli(
        'train', config, '--work-dir', work, '--resume',
        '--cfg-options', 'train_cfg.max_epochs=2',
        'optim_wrapper.optimizer.lr=0.')
    assert 'resumed epoch: 1' in log_of(done)
    assert '[2][3/3]' in log_of(done) and '(train)  [1][' not in log_of(done)
    assert 'accuracy/top5' in log_of(done)
    # Adam's own rate was resumed too, so that weights move.
    second = torch.load(work / 'epoch_2.pth', weights_only=False)
    assert_average_moved(first, second)

    # The average, for those who want it.
    out = tmp_path / 'out.pkl'
    run_cli(
        'test', config, work / 'epoch_1.pth', '--work-dir', work,
        '--out', out, '--cfg-options',
        'custom_hooks.0.evaluate_on_ema=True',
        'custom_hooks.0.evaluate_on_origin=False')
    net = CycleNet(ARCH, fork_feat=False, num_classes=6)
    net.load_state_dict({
        key.replace('module.backbone.', ''): value
        for key, value in average.items() if key != 'steps'})
    assert_same(scores_in(out), official_scores(net, data))
    # Another training begins with the weights too.
    run_cli(
        'train', config, '--work-dir', tmp_path / 'other',
        '--cfg-options', f'load_from={work}/epoch_1.pth',
        'optim_wrapper.optimizer.lr=0.')
    third = torch.load(tmp_path / 'other' / 'epoch_1.pth',
                       weights_only=False)['state_dict']
    assert all(torch.equal(third[key], weights[key]) for key in weights)

    pictures = tmp_path / 'pictures'
    done = run_cli(
        'test', config, work / 'epoch_2.pth', '--work-dir', work,
        '--show-dir', pictures, '--out', out)
    # What is trained is what is evaluated, and what others load.
    net = CycleNet(ARCH, fork_feat=False, num_classes=6)
    load_pretrained(net, work / 'epoch_2.pth')
    report = load_pretrained(CycleNet(ARCH), work / 'epoch_2.pth')
    assert report.dropped == [
        'head.bias', 'head.weight', 'norm.bias', 'norm.weight']
    scores = scores_in(out)
    assert_same(scores, official_scores(net, data))
    for k in (1, 5):
        said, = re.findall(rf'accuracy/top{k}: ([0-9.]+)', log_of(done))
        assert float(said) == pytest.approx(top(k, scores), abs=1e-3)
    assert len(list(pictures.iterdir())) == 12


def test_released_file(config, data, official, run_cli, tmp_path):
    path, net = official
    out = tmp_path / 'out.pkl'
    run_cli('test', config, path, '--work-dir',
               tmp_path / 'work', '--out', out)
    assert_same(scores_in(out), official_scores(net, data))


def test_crop_of_the_ports(config, data, official, run_cli, tmp_path):
    path, net = official
    out = tmp_path / 'out.pkl'
    run_cli('test', config, path, '--work-dir',
               tmp_path / 'work', '--out', out, '--cfg-options',
               'test_dataloader.dataset.pipeline.1.scale=248')
    scores = scores_in(out)
    assert_same(scores, official_scores(net, data, 248))
    with pytest.raises(AssertionError):
        assert_same(scores, official_scores(net, data))


def test_flipped_too(config, data, official, run_cli, tmp_path):
    path, net = official
    out, pictures = tmp_path / 'out.pkl', tmp_path / 'pictures'
    run_cli('test', config, path, '--work-dir',
               tmp_path / 'work', '--out', out, '--tta', '--show-dir',
               pictures)
    assert len(list(pictures.rglob('*.png'))) == 12
    straight, flipped = (official_scores(net, data, flip=flip)
                         for flip in (False, True))
    assert_same(scores_in(out), {
        name: (straight[name] + flipped[name]) / 2 for name in straight})


def test_two_processes(config, data, official, root, tmp_path):
    flat = class_images.flatten(data, tmp_path / 'flat')
    work, out = tmp_path / 'work', tmp_path / 'out.pkl'

    def run(*args):
        done = subprocess.run(
            ['bash', *map(str, args), '--work-dir', str(work)], cwd=root,
            capture_output=True, text=True, timeout=300,
            env={'PATH': f'{sys.prefix}/bin:/usr/bin:/bin',
                 'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, log_of(done)
        return log_of(done)

    # Here with lists instead of class folders.
    options = [f'{split}_dataloader.dataset.{key}={value}'
               for split in ('train', 'val', 'test') for key, value in (
                   ('data_root', flat),
                   ('ann_file', f'meta/{split}.txt'.replace('test', 'val')))]
    # 12 images, each process sees 6 of 36.
    log = run('tools/dist_train.sh', 2, config, '--cfg-options',
              'train_dataloader.batch_size=2', *options)
    assert '[1][3/3]' in log and 'accuracy/top1' in log
    path, net = official
    run('tools/dist_test.sh', 2, config, path, '--out', out,
        '--cfg-options', *options)
    assert_same(scores_in(out), official_scores(net, data))


@pytest.mark.parametrize('tool, what, message', [
    ('train', 'no data', 'which does not exist'),
    ('train', 'no batch', 'the 12 images of train_dataloader make no batch'),
    ('train', 'class count', 'model.backbone.num_classes is 7'),
    ('train', 'other classes', 'drop its head'),
    ('train', 'resume a released file', 'there is nothing to resume'),
    ('test', 'out', '--out: predictions.json does not end in .pkl'),
    ('test', 'no head', 'has no head'),
    ('test', 'another network', 'not a CycleNet'),
])
def test_mistakes_end_in_one_line(tool, what, message, config, official,
                                  run_cli, tmp_path):
    path, net = official
    args, options = [path] if tool == 'test' else [], []
    if what == 'no data':
        options = ['train_dataloader.dataset.data_root=gone']
    elif what == 'no batch':
        options = ['train_dataloader.batch_size=13']
    elif what == 'class count':
        options = ['model.backbone.num_classes=7',
                   'model.data_preprocessor.num_classes=7']
    elif what == 'other classes':
        state = net.state_dict()
        for key in ('head.weight', 'head.bias'):
            state[key] = state[key][:5]
        torch.save({'model': state}, path)
        options = [f'load_from={path}']
    elif what == 'resume a released file':
        args = ['--resume', path]
    elif what == 'out':
        args += ['--out', 'predictions.json']
    elif what == 'no head':
        torch.save(CycleNet(ARCH).state_dict(), path)
    elif what == 'another network':
        torch.save({'conv.weight': torch.zeros(1)}, path)
    if options:
        args += ['--cfg-options', *options]
    done = run_cli(tool, config, *args, '--work-dir',
                      tmp_path / 'work', expect=1)
    last = done.stderr.strip().split('\n')[-1]
    assert last.startswith('error: ') and message in last, log_of(done)
    assert 'Traceback' not in log_of(done)


WITHOUT = """
import runpy, sys
sys.modules['{absent}'] = None  # importing it fails from here on
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('absent', ['mmpretrain', 'torchvision'])
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_what_is_not_installed_is_named(tool, absent, root, run_python,
                                        tmp_path):
    if absent == 'torchvision':
        pytest.importorskip('mmpretrain')
    checkpoint = tmp_path / 'file.pth'
    torch.save({}, checkpoint)
    done = run_python(
        '-c', WITHOUT.format(absent=absent), root / f'tools/{tool}.py',
        root / 'configs' / 'imagenet' / 'cyclemlp-b1_8xb128_in1k.py',
        *([checkpoint] if tool == 'test' else []), expect=1)
    assert done.stderr.startswith('error: classifiers need mmpretrain and ')
    assert done.stderr.count('\n') == 1
    assert absent in done.stderr.split('(')[1]
    for extra in ('.[pretrain]', '.[openmmlab-pretrain]'):
        assert extra in done.stderr
