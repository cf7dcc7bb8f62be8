"""timm makes and uses the network as one of its own."""

import pytest
import torch

pytest.importorskip('timm', reason='timm is not installed')
try:
    import timm
except RuntimeError as error:  # torchvision beside another torch
    pytest.skip(f'timm cannot be imported: {error}', allow_module_level=True)

import mmcyclemlp.timm  # noqa: F401
from mmcyclemlp import CycleNet
from mmcyclemlp.errors import CheckpointError


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """A classifier, and a file of it in the official layout."""
    torch.manual_seed(0)
    net = CycleNet('b1', fork_feat=False).eval()
    path = tmp_path_factory.mktemp('weights') / 'CycleMLP_B1.pth'
    torch.save(dict(model=net.state_dict()), path)
    return net, str(path)


def create(path, **options):
    return timm.create_model(
        'cyclemlp_b1', pretrained=True,
        pretrained_cfg_overlay=dict(file=path), **options).eval()


def test_all_sizes_are_listed():
    assert set(timm.list_models('cyclemlp_*')) == {
        f'cyclemlp_{arch}' for arch in CycleNet.arch_settings}
    for arch in CycleNet.arch_settings:
        with torch.device('meta'):
            model = timm.create_model(f'cyclemlp_{arch}')
            net = CycleNet(arch, fork_feat=False)
        assert {key: value.shape for key, value in
                model.state_dict().items()} == {
            key: value.shape for key, value in net.state_dict().items()}


@torch.no_grad()
def test_same_weights_same_outputs(released):
    net, path = released
    model, image = create(path), torch.rand(2, 3, 50, 70)
    assert torch.equal(model(image), net(image))
    features = model.forward_features(image)
    assert features.shape == (2, 2, 3, 512)
    assert torch.equal(model.forward_head(features), net(image))
    assert torch.equal(
        model.head(model.forward_head(features, pre_logits=True)), net(image))


@torch.no_grad()
def test_features_only(released):
    net, path = released
    image = torch.rand(1, 3, 64, 96)
    features = create(path, features_only=True)
    assert features.feature_info.channels() == [64, 128, 320, 512]
    assert features.feature_info.reduction() == [4, 8, 16, 32]
    maps = features(image)
    expected, x = [], net.forward_stem(image)
    for place, module in enumerate(net.network):
        x = module(x)
        if place % 2 == 0:
            expected.append(x.permute(0, 3, 1, 2))
    assert all(map(torch.equal, maps, expected))
    some = create(path, features_only=True, out_indices=(1, 2))
    assert all(map(torch.equal, some(image), expected[1:3]))
    # What the maps do not need is gone.
    assert not [key for key in some.state_dict() if 'network.6' in key]


@torch.no_grad()
def test_other_classes_and_channels(released):
    net, path = released
    image = torch.rand(1, 3, 32, 32)
    model = create(path, num_classes=7)
    assert model(image).shape == (1, 7)
    assert torch.equal(model.norm.weight, net.norm.weight)
    model.reset_classifier(3)
    assert model.get_classifier().out_features == 3
    assert create(path, num_classes=0)(image).shape == (1, 512)
    assert create(path, num_classes=0, global_pool='')(image).shape == (
        1, 1, 1, 512)
    grey = create(path, in_chans=1)
    torch.testing.assert_close(
        grey(image[:, :1]), net(image[:, :1].expand(-1, 3, -1, -1)),
        rtol=1e-4, atol=1e-5)


def test_preprocessing_is_the_official(released):
    config = timm.data.resolve_model_data_config(create(released[1]))
    assert config['crop_pct'] == 224 / 256
    assert config['interpolation'] == 'bicubic'


def test_training(released):
    from timm.optim import create_optimizer_v2

    model = create(released[1], num_classes=5, drop_path_rate=0.1).train()
    model.set_grad_checkpointing()
    groups = create_optimizer_v2(
        model, 'adamw', lr=1e-3, layer_decay=0.8).param_groups
    scales = {id(p): group['lr_scale']
              for group in groups for p in group['params']}
    stem, head = model.patch_embed.proj.weight, model.head.weight
    first, last = (model.network[i][0].norm1.weight for i in (0, -1))
    assert scales[id(stem)] < scales[id(first)] < scales[id(last)]
    assert scales[id(head)] == 1
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_file_of_another_size_is_refused(released, tmp_path):
    path = tmp_path / 'b2.pth'
    torch.save(CycleNet('b2', fork_feat=False).state_dict(), path)
    with pytest.raises(CheckpointError, match='missing|unexpected'):
        create(str(path))
    with pytest.raises(ValueError, match="'avg' or '', got 'max'"):
        create(released[1], global_pool='max')
