"""What is written gives the same at other sizes, or is not kept."""

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from mmcyclemlp import CycleNet
from mmcyclemlp.errors import ExportError
from mmcyclemlp.export import load, write

TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1),
            mlp_ratios=(2, 2, 2, 2))
MERGING = dict(TINY, downsample='patch_merging', reweight=False)
needs_onnx = pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime is not installed')
onnx_too = pytest.mark.parametrize(
    'ending', ['.pt', pytest.param('.onnx', marks=needs_onnx)])


@torch.no_grad()
def agree(net, path, sizes=((1, 45, 71), (3, 90, 50), (2, 161, 96))):
    run = load(path)
    for batch, height, width in sizes:
        image = torch.randn(batch, 3, height, width)
        expected = net(image)
        if isinstance(expected, torch.Tensor):
            expected = [expected]
        torch.testing.assert_close(
            run(image), list(expected), rtol=1e-4, atol=1e-4)


@onnx_too
@pytest.mark.parametrize('options', [
    dict(arch=TINY, fork_last3=False),
    dict(arch=MERGING, fork_last3=False),
    dict(arch=MERGING, stem='conv4', fork_feat=False),
], ids=['maps', 'patch_merging', 'logits'])
def test_networks(options, ending, tmp_path):
    net = CycleNet(**options).eval()
    path = str(tmp_path / f'net{ending}')
    differences = write(net, path, size=(64, 96))
    assert len(differences) == 3
    assert all(one.error < 1e-5 for one in differences)
    agree(net, path)


def test_torch_export(tmp_path):
    if not hasattr(getattr(getattr(torch, 'export', None), 'Dim', None),
                   'AUTO'):
        with pytest.raises(ExportError, match='needs torch 2.6 or later'):
            write(nn.ReLU(), tmp_path / 'net.pt2')
        return
    net = CycleNet(dict(embed_dims=(8, 16), depths=(1, 1), mlp_ratios=(
        2, 2)), fork_feat=False).eval()
    path = str(tmp_path / 'net.pt2')
    write(net, path, size=(64, 96), check=False)
    agree(net, path)


@needs_onnx
def test_an_onnx_file(tmp_path):
    import onnx

    path = tmp_path / 'net.onnx'
    write(CycleNet(TINY, fork_last3=False), path, ['a', 'b', 'c', 'd'],
          (64, 96), check=False)
    model = onnx.load(path)
    assert [(one.domain, one.version) for one in model.opset_import] == [
        ('', 17)]
    assert {node.domain for node in model.graph.node} == {''}
    assert [[dim.dim_param or dim.dim_value
             for dim in one.type.tensor_type.shape.dim]
            for one in [*model.graph.input, *model.graph.output][:2]] == [
        ['batch', 3, 'height', 'width'], ['batch', 8, 'a_height', 'a_width']]
    assert [one.name for one in model.graph.output] == ['a', 'b', 'c', 'd']


class Fixed(nn.Module):
    """Its width is that of the trace."""

    def forward(self, image):
        return image * torch.arange(int(image.shape[3]))


class Foreign(nn.Module):
    """Has an operator of another domain."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.exp()

        @staticmethod
        def symbolic(graph, x):
            return graph.op('mine::Exp', x).setType(x.type())

    def forward(self, image):
        return self.Function.apply(image)


class OffAtOne(nn.Module):
    """Is another network for single images."""

    def forward(self, image):
        return image + 1e-3 * (int(image.shape[0]) == 1)


@onnx_too
@pytest.mark.parametrize('module, message', [
    (Fixed(), r'of the network (does not run|gives .*) at 1x97x79'),
    (OffAtOne(), r'is off by .* at 1x97x79'),
    (Foreign(), 'operators that ONNX itself lacks: mine::Exp'),
])
def test_what_lay_there_stays(module, message, ending, tmp_path):
    if isinstance(module, Foreign) and ending != '.onnx':
        pytest.skip('of ONNX alone')
    old = tmp_path / f'old{ending}'
    old.write_bytes(b'old')
    with pytest.raises(ExportError, match=message):
        write(module, old, size=(64, 96))
    assert old.read_bytes() == b'old'
    assert [one.name for one in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_missing_packages(package, monkeypatch, tmp_path):
    if package == 'onnxruntime':
        pytest.importorskip('onnx')
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=(
            fr"{package} is not installed: pip install 'mmcyclemlp\[export")):
        write(nn.ReLU(), tmp_path / 'x.onnx')


def test_targets(tmp_path):
    (tmp_path / 'x.pt').mkdir()
    for name, message in [('x.tf', 'ending'), ('x.pt', 'is a folder'),
                          ('gone/x.pt', 'there is no folder')]:
        with pytest.raises(ExportError, match=message):
            write(nn.ReLU(), tmp_path / name)
