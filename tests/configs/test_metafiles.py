"""model-index.yml and metafiles say of the configs what they are."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
# Parameters (M) and GMACs, counted with the released code: the classifier
# at 224x224, detectors at 1280x800, the segmentor at 512x512.
COUNTED = dict(
    imagenet='15.16 2.12 26.80 3.88 38.39 6.83 51.80 10.03 75.75 12.23',
    retinanet='24.89 194.8 36.54 230.6 48.12 290.9 61.53 356.1 85.92 401.6',
    mask_rcnn='34.81 213.3 46.46 249.1 58.04 309.4 71.45 374.6 95.25 420.5',
    sem_fpn_ade20k='18.91 32.5 30.56 41.7 42.14 57.1 55.55 73.8 79.35 85.6')


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding='utf-8'))


METAFILES = read('model-index.yml')['Import']


def test_every_config_is_listed_once():
    listed = [model['Config'] for path in METAFILES
              for model in read(path)['Models']]
    there = [str(path.relative_to(ROOT))
             for path in ROOT.glob('configs/*/*cyclemlp-*.py')]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize('path', METAFILES)
def test_metafile(path):
    meta = read(path)
    collection, = meta['Collections']
    folder = Path(path).parent
    assert collection['README'] == f'{folder}/README.md'
    assert (ROOT / collection['README']).is_file()
    assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')
    for model in meta['Models']:
        config = Path(model['Config'])
        assert config.parent == folder
        assert model['In Collection'] == collection['Name']
        assert model['Name'].replace('_3rdparty', '') == config.stem
        cfg = Config.fromfile(ROOT / config, import_custom_modules=False)
        backbone = cfg.model.backbone
        data = model['Metadata']
        assert data['Architecture'] == [f'CycleMLP-{backbone.arch.upper()}']
        assert data['Batch Size'] == cfg.auto_scale_lr.base_batch_size
        dataset = cfg.train_dataloader.dataset
        length = (data['Iterations'] if 'Iterations' in data
                  else data['Epochs'] // dataset.get('times', 1))
        assert length == cfg.train_cfg.get(
            'max_iters', cfg.train_cfg.get('max_epochs'))
        # Ours are not trained; the classifiers are the authors'.
        if folder.name == 'imagenet':
            assert model['Weights'].endswith(
                f'/v0.1/CycleMLP_{backbone.arch.upper()}.pth')
        else:
            assert 'Weights' not in model


@pytest.mark.parametrize('folder', COUNTED)
def test_tables_agree_with_the_released_code(folder):
    # tests/dev/test_model_table.py counts anew what the tables say.
    text = (ROOT / 'configs' / folder / 'README.md').read_text(
        encoding='utf-8')
    rows = [' '.join(line.replace('|', ' ').split()[1:3])
            for line in text.split('\n') if line.startswith('| [')]
    assert ' '.join(rows[:5]) == COUNTED[folder]
    # The same models with another schedule.
    assert set(rows[5:]) <= set(rows[:5])
