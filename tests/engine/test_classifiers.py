"""Load a released classifier in mmpretrain in every way."""

import definition
import pytest
import torch
from helpers import class_images
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn import functional as F

from mmcyclemlp import CycleNet
from mmcyclemlp.engine.runner import build_runner
from mmcyclemlp.engine.start_checkpoint import use_backbone_file
from mmcyclemlp.errors import CheckpointError

pytest.importorskip('mmpretrain')

ARCH = dict(embed_dims=(8, 12, 16, 24), depths=(1, 2, 1, 1),
            mlp_ratios=(2, 2, 2, 2))


@pytest.fixture
def plain():
    """A classifier without mm, of which the files are made."""
    net = CycleNet(ARCH, fork_feat=False, num_classes=6, backend='torch')
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


@pytest.fixture
def config(root, tmp_path):
    cfg = Config.fromfile(
        root / 'configs' / 'imagenet' / 'cyclemlp-b1_8xb128_in1k.py')
    cfg.model.backbone.update(arch=ARCH, num_classes=6, backend='torch')
    cfg.model.data_preprocessor.num_classes = 6
    data = class_images.draw(tmp_path / 'data', per_class=1)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data)
        cfg[f'{split}_dataloader'].update(
            num_workers=0, persistent_workers=False)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = tmp_path.name
    return cfg


@pytest.fixture
def images():
    return torch.randn(3, 3, 45, 70)


def files(plain, folder):
    """The released layout, mm's, and a checkpoint of mm's with offsets."""
    official = definition.official_file(plain)
    behind = {f'backbone.{key}': value
              for key, value in official['model'].items()}
    content = {
        'official': official,
        'bare': dict(plain.state_dict()),
        'mm': dict(meta={}, state_dict={
            key: value for key, value in behind.items()
            if not key.endswith('.offset')}),
        'mm with offsets': dict(state_dict=behind),
    }
    for name, checkpoint in content.items():
        torch.save(checkpoint, folder / f'{name}.pth')
    return content


def same_logits(model, plain, images):
    with torch.no_grad():
        ours = model.eval()(images, mode='tensor')
        assert torch.equal(ours, plain(images))
        # Once more as plain formulas.
        defined = definition.classifier(
            plain.state_dict(), images, ARCH['depths'])
    torch.testing.assert_close(ours, defined, rtol=0, atol=1e-4)


@pytest.mark.parametrize('tta', [False, True])
@pytest.mark.parametrize('name', ['official', 'bare', 'mm',
                                  'mm with offsets'])
def test_loads_to_evaluate(name, tta, config, plain, images, tmp_path):
    files(plain, tmp_path)
    config.load_from = str(tmp_path / f'{name}.pth')
    if tta:
        config.model = dict(config.tta_model, module=config.model)
    runner = build_runner(config, testing=True)
    runner.call_hook('before_run')
    runner.load_or_resume()
    model = runner.model.module if tta else runner.model
    same_logits(model, plain, images)
    hook, = (hook for hook in runner.hooks
             if type(hook).__name__ == 'EMABesideHook')
    assert hook.src_model is model
    same_logits(hook.ema_model.module, plain, images)


@pytest.mark.parametrize('by', ['init_cfg', 'load_from'])
def test_loads_to_train(by, config, plain, images, tmp_path):
    files(plain, tmp_path)
    path = str(tmp_path / 'official.pth')
    if by == 'init_cfg':
        config.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=path)
    else:
        config.load_from = path
        use_backbone_file(config)
        assert config.load_from is None
    init_default_scope('mmpretrain')
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        model = registry.build(config.model)
    model.init_weights()
    same_logits(model, plain, images)


def test_refuses_another_number_of_classes(config, plain, images, tmp_path):
    content = files(plain, tmp_path)
    config.load_from = str(tmp_path / 'official.pth')
    config.model.backbone.num_classes = 4
    config.model.data_preprocessor.num_classes = 4
    use_backbone_file(config)
    init_default_scope('mmpretrain')
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        model = registry.build(config.model)
    with pytest.raises(CheckpointError, match='num_classes.*--drop-head'):
        model.init_weights()
    for key in ('head.weight', 'head.bias'):
        del content['official']['model'][key]
    torch.save(content['official'], tmp_path / 'official.pth')
    model.init_weights()
    trained = model.backbone.state_dict()
    assert trained['head.weight'].shape == (4, 24)
    for key, value in plain.state_dict().items():
        assert key.startswith('head.') or torch.equal(trained[key], value)


@pytest.mark.parametrize('what, message', [
    ('no head', r'file\.pth has no head'),
    ('another network', r'file\.pth: not a CycleNet'),
    ('other classes', r'num_classes'),
])
def test_refuses_to_evaluate(what, message, config, plain, tmp_path):
    state = plain.state_dict()
    if what == 'no head':
        del state['head.weight'], state['head.bias']
    elif what == 'another network':
        state = {'conv1.weight': torch.zeros(1)}
    else:
        config.model.backbone.num_classes = 7
        config.model.data_preprocessor.num_classes = 7
    torch.save({'model': dict(state)}, tmp_path / 'file.pth')
    config.load_from = str(tmp_path / 'file.pth')
    runner = build_runner(config, testing=True)
    runner.call_hook('before_run')
    with pytest.raises(CheckpointError, match=message) as caught:
        runner.load_or_resume()
    assert '\n' not in str(caught.value)


def test_head(config):
    from mmpretrain.structures import DataSample

    init_default_scope('mmpretrain')
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        head = registry.build(config.model.head)
    assert not list(head.parameters()) and not list(head.buffers())
    logits = torch.randn(5, 6)
    assert head(logits) is logits
    labels = torch.tensor([0, 5, 2, 2, 1])
    samples = [DataSample().set_gt_label(label) for label in labels]
    loss = head.loss(logits, samples)['loss']
    torch.testing.assert_close(
        loss, F.cross_entropy(logits, labels, label_smoothing=0.1))
    # Labels of a mixed batch.
    scores = torch.rand(5, 6)
    scores /= scores.sum(1, keepdim=True)
    samples = [DataSample().set_gt_score(score) for score in scores]
    loss = head.loss(logits, samples)['loss']
    smooth = 0.9 * scores + 0.1 / 6
    torch.testing.assert_close(
        loss, -(smooth * logits.log_softmax(1)).sum(1).mean())
    predictions = head.predict(logits, samples)
    torch.testing.assert_close(
        torch.stack([one.pred_score for one in predictions]),
        logits.softmax(1))
    assert [int(one.pred_label) for one in predictions] == (
        logits.argmax(1).tolist())
