"""Stop training at a loss that is not finite."""

import json
import re

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from mmcyclemlp.errors import UserError

HOOK = 'mmcyclemlp.engine.hooks.finite_loss.FiniteLossHook'


class Images(Dataset):
    """Six numbers with file names; ``poison`` says which is what."""

    def __init__(self, poison, named=True):
        self.poison = poison
        self.named = named

    def __len__(self):
        return 6

    def __getitem__(self, index):
        sample = BaseDataElement(
            metainfo=dict(img_path=f'{index}.jpg') if self.named else {})
        value = torch.tensor(self.poison.get(index, 1.))
        return dict(inputs=value, data_samples=sample)


class Line(BaseModel):

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        value = torch.stack(list(inputs)).mean() * self.weight
        return dict(loss_cls=value, loss_box=self.weight * 2,
                    acc=self.weight.detach() / 0)


@pytest.fixture
def train(tmp_path):
    """Train on a poisoned data set; give the runner."""
    number = iter(range(9))

    def run(poison, by_epoch=True, length=None, named=True, interval=1,
            spoil=False, **hook):
        runner = Runner(
            Line(), str(tmp_path),
            train_dataloader=dict(
                dataset=Images(poison, named), batch_size=2,
                sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=(dict(by_epoch=True, max_epochs=length or 2)
                       if by_epoch else
                       dict(by_epoch=False, max_iters=length or 5)),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=float('inf') if spoil else .1)),
            default_hooks=dict(checkpoint=dict(
                type='CheckpointHook', interval=interval, by_epoch=by_epoch,
                save_last=interval > 0)),
            custom_hooks=[dict(type=HOOK, **hook)],
            experiment_name=f'{tmp_path.name}{next(number)}')
        run.runner = runner
        runner.train()
        return runner

    return run


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_is_registered():
    from mmcyclemlp.engine.hooks.finite_loss import FiniteLossHook

    assert HOOKS.get('FiniteLossHook') is FiniteLossHook


def test_finite_losses_change_nothing(train, tmp_path):
    train({})
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert not list(tmp_path.glob('*.json'))


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_stops_and_names_the_images(value, train, tmp_path):
    with pytest.raises(UserError) as caught:
        train({3: float(value)}, by_epoch=False)
    message = str(caught.value)
    assert '\n' not in message
    assert re.search(
        rf'iteration 2 is not finite \(loss {value}, loss_cls {value}\), on '
        r'2\.jpg, 3\.jpg; .*nonfinite_loss\.json', message)
    # The first is good; none was written after the second step.
    assert names(tmp_path) == ['iter_1.pth']
    record = json.loads((tmp_path / 'nonfinite_loss.json').read_text())
    assert record['iteration'] == 2 and record['epoch'] == 1
    assert record['losses']['loss_cls'] == value
    assert record['losses']['loss_box'] == pytest.approx(1.4)
    assert record['learning_rates']['lr'] == [.1]
    assert record['images'] == ['2.jpg', '3.jpg']


def test_checks_a_step_after_the_next(train):
    # No checkpoint in between: the third step was taken, and no fourth.
    with pytest.raises(UserError, match='iteration 2 is not finite'):
        train({3: float('nan')}, by_epoch=False, interval=100)
    assert train.runner.iter == 2


@pytest.mark.parametrize('by_epoch, length, last', [
    (True, 1, 5), (False, 2, 3)])
def test_checks_the_last_step(by_epoch, length, last, train, tmp_path):
    with pytest.raises(UserError, match=rf'is not finite .*{last}\.jpg'):
        train({last: float('nan')}, by_epoch, length, interval=-1)
    assert names(tmp_path) == []


def test_images_without_names(train):
    with pytest.raises(UserError, match='on images without a name'):
        train({0: float('nan')}, named=False)


def test_checks_the_weights(train, tmp_path):
    # The loss of the only step so far was finite.
    with pytest.raises(UserError, match='the weights are not finite'):
        train({}, by_epoch=False, spoil=True)
    assert names(tmp_path) == []


def test_each_process_has_its_own_file(train, tmp_path, monkeypatch):
    module = 'mmcyclemlp.engine.hooks.finite_loss'
    monkeypatch.setattr(f'{module}.is_distributed', lambda: True)
    monkeypatch.setattr(f'{module}.get_rank', lambda: 3)
    with pytest.raises(UserError, match=r'nonfinite_loss_rank3\.json has'):
        train({0: float('nan')})
    assert (tmp_path / 'nonfinite_loss_rank3.json').is_file()


def test_only_warns(train, tmp_path):
    runner = train({3: float('nan')}, by_epoch=False, stop=False)
    assert runner.iter == 5 and 'iter_5.pth' in names(tmp_path)
    log, = tmp_path.rglob('*.log')
    assert 'WARNING - the loss of iteration 2 is' in log.read_text()


def test_in_the_command(root, drawn_data, run_cli, tmp_path):
    (tmp_path / 'mine.py').write_text(f"""
_base_ = '{root}/demo/upernet.py'
custom_hooks = [dict(type='{HOOK}')]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{drawn_data}'))
val_cfg = val_dataloader = val_evaluator = None
optim_wrapper = dict(optimizer=dict(lr=1e30))
param_scheduler = []
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5)
default_hooks = dict(checkpoint=dict(interval=1, save_last=False))
""")
    work = tmp_path / 'work'
    done = run_cli('train', tmp_path / 'mine.py', '--work-dir',
                      work, expect=1)
    assert re.search(r'^error: the loss of iteration 2 is not finite .*jpg',
                     done.stderr, flags=re.MULTILINE)
    assert 'Traceback' not in done.stderr
    assert names(work) == ['iter_1.pth']
    state = torch.load(work / 'iter_1.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
