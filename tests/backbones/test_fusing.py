"""The fused forms replace only submodules that do nothing else."""

import copy

import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from torch import nn
from torch.nn.utils import prune

from mmcyclemlp import CycleFC, CycleNet
from mmcyclemlp.backbones import fusing
from mmcyclemlp.ops.custom_op import HAS_CUSTOM_OP

SMALL = dict(embed_dims=[8, 16], depths=[1, 1], mlp_ratios=[2, 2])
# SKIPPED: submodules that fused forms replace. CALLED: those they call.
SKIPPED = ('attn', 'attn.mlp_c', 'attn.sfc_h', 'attn.sfc_w', 'attn.proj',
           'attn.proj_drop', 'drop_path', 'mlp', 'mlp.fc1', 'mlp.act',
           'mlp.fc2', 'mlp.drop')
CALLED = ('norm1', 'attn.reweight', 'attn.reweight.fc1', 'attn.reweight.act',
          'attn.reweight.fc2', 'norm2')


@pytest.fixture
def fused(monkeypatch):
    """Record the fused forms that ran, in order."""
    ran = []

    def record(name):
        right = getattr(fusing, name)

        def run(*args, **kwargs):
            ran.append(name)
            return right(*args, **kwargs)

        monkeypatch.setattr(fusing, name, run)

    record('cycle_mixer')
    record('residual_mlp')
    return ran


def small(**kwargs):
    torch.manual_seed(0)
    net = CycleNet(SMALL, fork_last3=False, out_indices=(0, 1), **kwargs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.eval()


IMAGE = torch.randn(
    2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def outputs(net):
    return torch.cat([one.flatten() for one in net(IMAGE)])


def test_a_stock_block_is_fused(fused):
    outputs(small())
    assert fused == ['cycle_mixer', 'residual_mlp'] * 2
    fused.clear()
    outputs(small(drop_rate=0.5))  # in eval mode
    assert len(fused) == 4


@pytest.mark.parametrize('backend', ['plain', 'reference'])
def test_the_textbook_backends_call_the_submodules(backend, fused):
    outputs(small(backend=backend))
    assert not fused


def test_dropout_calls_the_submodules(fused):
    outputs(small(drop_rate=0.5).train())
    assert not fused


@pytest.mark.parametrize('name', SKIPPED + CALLED)
def test_a_hook_fires_and_sees_the_output(name, fused):
    net, expected = small(), outputs(small())
    fused.clear()
    seen = []
    block = net.network[0][0]
    block.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(output) or 2 * output)
    changed = outputs(net)
    assert len(seen) == (2 if name in ('drop_path', 'mlp.drop') else 1)
    assert (changed - expected).abs().max() > 1e-4
    # The other half of the block and the other block stay fused.
    assert len(fused) == (4 if name in CALLED else
                          2 if name == 'drop_path' else 3)


@pytest.mark.parametrize('register', [
    'register_forward_pre_hook', 'register_full_backward_hook',
    'register_full_backward_pre_hook'])
@pytest.mark.parametrize('name', ['attn.sfc_h', 'mlp.fc1'])
def test_hooks_of_other_kinds_fire(name, register):
    net, fired = small(), []
    getattr(net.network[0][0].get_submodule(name), register)(
        lambda *args: fired.append(name))
    outputs(net).sum().backward()
    assert fired == [name]


class Doubled(nn.Module):

    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize('name', ['attn.sfc_w', 'attn.proj', 'mlp.fc2'])
def test_a_parametrization_is_used(name):
    net, doubled = small(), small()
    parametrize.register_parametrization(
        net.network[0][0].get_submodule(name), 'weight', Doubled())
    with torch.no_grad():
        doubled.network[0][0].get_submodule(name).weight.mul_(2)
    torch.testing.assert_close(
        outputs(net), outputs(doubled), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['attn.mlp_c', 'mlp.fc1'])
def test_a_replaced_forward_is_called(name):
    # accelerate replaces it in this way.
    net, expected = small(), outputs(small())
    module = net.network[0][0].get_submodule(name)
    right = module.forward
    module.forward = lambda x: 2 * right(x)
    assert (outputs(net) - expected).abs().max() > 1e-4


@pytest.mark.parametrize('act, name', [
    (nn.GELU(approximate='tanh'), None), (nn.Tanh(), None),
    (nn.SiLU(), 'residual_mlp')])
def test_another_activation(act, name, fused):
    net = small()
    net.network[0][0].mlp.act = act
    net.network[2] = nn.Identity()
    net.norm2 = nn.Identity()
    y = net.network[0](torch.randn(1, 32, 32, 8))
    assert y.shape == (1, 32, 32, 8)
    assert (name in fused) == (name is not None)


@pytest.mark.parametrize('name', [
    'attn.sfc_h', 'attn.sfc_w', 'attn.proj', 'mlp.fc1', 'mlp.fc2'])
def test_a_layer_without_a_bias(name):
    net, zero = small(), small()
    net.network[0][0].get_submodule(name).bias = None
    with torch.no_grad():
        zero.network[0][0].get_submodule(name).bias.zero_()
    torch.testing.assert_close(
        outputs(net), outputs(zero), rtol=1e-4, atol=1e-4)


def test_a_compiled_submodule_is_called():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = small()
    compile_module = getattr(net.network[0][0].mlp, 'compile', None)
    if compile_module is None:
        pytest.skip('this torch compiles no module in place')
    compile_module(backend=backend)
    outputs(net)
    assert graphs


def test_the_forward_mode_derivative_is_that_of_the_formula():
    block, plain = (small(backend=backend).network[0][0].double()
                    for backend in (None, 'plain'))
    x, v = torch.randn(2, 1, 8, 16, 8, dtype=torch.float64)
    for a, b in zip(torch.func.jvp(block, (x, ), (v, )),
                    torch.func.jvp(plain, (x, ), (v, ))):
        torch.testing.assert_close(a, b)
        assert b.abs().max() > 1e-3


def test_a_pruned_network_loads_its_own_state():
    nets = small(), small()
    for net in nets:
        prune.l1_unstructured(net.network[0][0].mlp.fc1, 'weight', .5)
    with torch.no_grad():
        nets[0].network[0][0].mlp.fc1.weight_orig.mul_(2)
    nets[1].load_state_dict(nets[0].state_dict())
    torch.testing.assert_close(*map(outputs, nets))


def test_dynamic_int8(fused):
    quantized = torch.ao.quantization.quantize_dynamic(
        small(), {nn.Linear}, dtype=torch.qint8)
    kinds = {type(module).__name__ for module in quantized.modules()}
    fused.clear()
    y, expected = outputs(quantized), outputs(small())
    assert 'Linear' in kinds and fused == ['cycle_mixer', 'residual_mlp'] * 2
    assert not torch.equal(y, expected)
    torch.testing.assert_close(y, expected, rtol=.1, atol=.1)


def test_lora(tmp_path):
    peft = pytest.importorskip('peft')
    from peft.tuners.lora import LoraLayer

    class LoraCycleFC(nn.Module, LoraLayer):
        """Its low-rank product reads at the offsets of the layer."""

        def __init__(self, base_layer, adapter_name, r, **kwargs):
            super().__init__()
            LoraLayer.__init__(self, base_layer)
            self._active_adapter = adapter_name
            self.lora_A[adapter_name] = CycleFC(
                base_layer.in_channels, r, base_layer.kernel_size, bias=False)
            self.lora_B[adapter_name] = nn.Conv2d(
                r, base_layer.out_channels, 1, bias=False)

        def forward(self, x):
            name, = self.active_adapters
            return self.base_layer(x) + self.lora_B[name](
                self.lora_A[name](x))

    net, expected = small(), outputs(small())
    names = ['fc1', 'fc2', 'proj', 'sfc_h']
    config = peft.LoraConfig(target_modules=names, r=2,
                             init_lora_weights=False)
    config._register_custom_module({CycleFC: LoraCycleFC})
    net = peft.get_peft_model(net, config)
    y = net(IMAGE)
    assert (torch.cat([one.flatten() for one in y])
            - expected).abs().max() > 1e-4
    before = {key: value.detach().clone()
              for key, value in net.named_parameters() if value.requires_grad}
    assert {key.rpartition('.lora_')[0].rpartition('.')[2]
            for key in before} == {*names, 'proj'}
    optimizer = torch.optim.SGD(
        [value for value in net.parameters() if value.requires_grad], 0.1)
    sum(one.square().mean() for one in y).backward()
    optimizer.step()
    for key, value in net.named_parameters():
        if key in before and '.network.' in key:
            assert not torch.equal(value, before[key]), key
    net.save_pretrained(tmp_path)
    config._register_custom_module({CycleFC: LoraCycleFC})
    other = peft.PeftModel.from_pretrained(small(), tmp_path, config=config)
    torch.testing.assert_close(outputs(other), outputs(net.eval()))


@pytest.mark.skipif(not HAS_CUSTOM_OP, reason='torch is older than 2.6')
def test_compiling_keeps_the_fused_forms_in_one_graph():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = small()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(IMAGE), net(IMAGE))
    graph, = graphs
    called = [str(node.target) for node in graph.graph.nodes]
    assert sum('residual_mlp' in name for name in called) == 2


def test_a_copy_and_a_subclass_behave_alike(fused):
    class Louder(nn.Linear):

        def forward(self, x):
            return 2 * super().forward(x)

    net = copy.deepcopy(small())
    net.network[0][0].mlp.fc1.__class__ = Louder
    assert (outputs(net) - outputs(small())).abs().max() > 1e-4
    assert fused.count('residual_mlp') == 1 + 2
