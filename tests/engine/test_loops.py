"""Training loops that can be resumed from any batch."""

import pytest
from helpers.tiny_configs import write_config
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import TRANSFORMS
from torch.utils.data import BatchSampler

from mmcyclemlp.engine.loops import NamedImages, NumberedBatches
from mmcyclemlp.engine.runner import build_runner
from mmcyclemlp.errors import UserError


def batches(sampler, endless):
    return NumberedBatches(
        sampler, 3, dict(type=BatchSampler, drop_last=False), 5, endless)


def drawn(batch):
    return [(int(draw), draw.numbers) for draw in batch]


def test_no_batches_before_begin():
    assert list(batches(DefaultSampler(range(8)), False)) == []


@pytest.mark.parametrize('done', range(4))
def test_resumes_an_epoch_at_any_batch(done):
    def epoch(number, done):
        one = batches(DefaultSampler(range(8), seed=1), endless=False)
        assert len(one) == 3
        one.begin(number, done)
        return [drawn(batch) for batch in one]

    assert epoch(4, done) == epoch(4, 0)[done:]
    assert epoch(4, 0) != epoch(5, 0)
    assert sorted(
        index for batch in epoch(4, 0) for index, _ in batch) == [*range(8)]


@pytest.mark.parametrize('make', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('done', [0, 1, 3, 7, 20])
def test_resumes_an_endless_stream_at_any_batch(make, done):
    def stream(done, number):
        one = batches(make(range(8), seed=1), endless=True)
        one.begin(0, done)
        return [drawn(batch) for batch, _ in zip(one, range(number))]

    whole = stream(0, 24)
    assert stream(done, 24 - done) == whole[done:]
    # No draw has the seed of another.
    numbers = [numbers for batch in whole for _, numbers in batch]
    assert len(set(numbers)) == len(numbers)


@pytest.fixture
def make_runner(root, drawn_data, tmp_path):
    """Build a runner of a tiny model on a copy of the drawn data."""
    import shutil

    data = shutil.copytree(drawn_data, tmp_path / 'data')

    def make(name, workers, **train_cfg):
        cfg = Config.fromfile(write_config(tmp_path, root, data, name))
        cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}{name}'
        cfg.train_dataloader.num_workers = workers
        cfg.train_dataloader.persistent_workers = workers > 0
        cfg.train_cfg.update(train_cfg)
        return build_runner(cfg)

    return data, make


@pytest.mark.parametrize('name, workers, spoil', [
    ('retinanet', 2, lambda path: path.unlink()),
    ('upernet', 1, lambda path: path.write_bytes(b'no image')),
    ('upernet', 0, lambda path: path.write_bytes(b''))])
def test_names_an_unreadable_image(name, workers, spoil, make_runner):
    data, make = make_runner
    path = data / 'images' / 'train' / '0003.jpg'
    spoil(path)
    with pytest.raises(UserError) as caught:
        make(name, workers).train()
    assert str(caught.value).startswith(f'{path} cannot be read: ')
    assert '\n' not in str(caught.value)


def test_names_an_unreadable_label_map(make_runner):
    data, make = make_runner
    path = data / 'annotations' / 'train' / '0002.png'
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=f'{path} cannot be read'):
        make('upernet', 0).train()


def test_names_an_unreadable_image_of_validation(make_runner):
    data, make = make_runner
    path = data / 'images' / 'val' / '0000.jpg'
    path.write_bytes(b'')
    with pytest.raises(UserError, match=f'{path} cannot be read'):
        make('upernet', 0, max_iters=2, val_interval=1).train()


@pytest.mark.parametrize('workers', [0, 2])
def test_skips_and_counts_unreadable_images(workers, make_runner, capfd):
    data, make = make_runner
    path = data / 'images' / 'train' / '0003.jpg'
    path.write_bytes(b'no image')
    runner = make('retinanet', workers, unreadable='skip', max_epochs=2,
                  val_interval=9)
    runner.train()
    # Once in each epoch, or more where it is drawn for itself.
    skipped = int(runner.train_loop.images.skipped)
    assert skipped >= 2
    said = capfd.readouterr()
    said = said.out + said.err
    assert f'{path} cannot be read: another image is drawn' in said
    assert f'{skipped} draws of images that cannot be read were' in said


@TRANSFORMS.register_module()
class FaultyTransform:
    """Raises for every image."""

    def __call__(self, results):
        return results['what there is not']


def test_a_failing_transform_is_not_an_unreadable_image(make_runner):
    _, make = make_runner
    runner = make('upernet', 0, unreadable='skip')
    runner._train_dataloader.dataset.pipeline.insert(
        2, dict(type='FaultyTransform'))
    with pytest.raises(UserError, match=r'\.jpg cannot go through the '
                       r'pipeline: KeyError: ') as caught:
        runner.train()
    assert '\n' not in str(caught.value)
    assert runner.train_loop.images.skipped == 0


def test_stops_if_no_image_is_readable(tmp_path):
    class Nothing:

        def __getitem__(self, index):
            raise OSError

        def __len__(self):
            return 2

        def get_data_info(self, index):
            return dict(img_path=str(tmp_path / 'gone'))

    with pytest.raises(UserError, match='gone cannot be read'):
        NamedImages(Nothing(), 'skip')([0])


def test_unknown_policy(make_runner):
    with pytest.raises(UserError, match="'ignore': set 'stop' or 'skip'"):
        make_runner[1]('upernet', 0, unreadable='ignore').train()
