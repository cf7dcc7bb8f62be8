"""torch's FSDP by block and by layer, on two processes without a GPU."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from mmcyclemlp import CycleNet
from mmcyclemlp.backbones.cyclenet import CycleBlock

SMALL = dict(embed_dims=[8, 16], depths=[1, 2], mlp_ratios=[2, 2])


def build():
    torch.manual_seed(0)
    return CycleNet(SMALL, fork_last3=False, out_indices=(0, 1))


def train(net):
    """Take three steps; return the losses."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses = []
    for step in range(3):
        torch.manual_seed(step)
        loss = sum(one.square().mean()
                   for one in net(torch.randn(2, 3, 64, 64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def work(rank, kinds, file, folder):
    dist.init_process_group('gloo', f'file://{file}', rank=rank, world_size=2)
    net = FullyShardedDataParallel(
        build(), auto_wrap_policy=ModuleWrapPolicy(kinds),
        device_id=torch.device('cpu'), use_orig_params=True)
    assert sum(isinstance(module, FullyShardedDataParallel)
               for module in net.modules()) > 3
    losses = train(net)
    if rank == 0:
        torch.save(losses, folder / 'losses.pth')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize('kinds', [{CycleBlock}, {CycleBlock, nn.Linear}],
                         ids=['block', 'layer'])
def test_losses_equal_those_of_one_process(kinds, tmp_path):
    try:
        torch.cpu.Stream(priority=0)
    except TypeError:
        pytest.skip("this torch's FSDP needs a GPU")
    mp.spawn(work, (kinds, tmp_path / 'store', tmp_path), 2)
    torch.testing.assert_close(
        torch.load(tmp_path / 'losses.pth'), train(build()),
        rtol=1e-4, atol=1e-5)
