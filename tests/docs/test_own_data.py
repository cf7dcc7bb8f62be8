"""The configs of docs/own_data.md train a step."""

import re
import shutil

import pytest


@pytest.mark.parametrize('name, options, result', [
    ('detector', ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
                  'train_dataloader.dataset.indices=2',
                  'val_dataloader.dataset.indices=2'], 'coco/segm_mAP'),
    ('segmentor', ['train_cfg.max_iters=1', 'train_cfg.val_interval=1',
                   'train_dataloader.batch_size=2',
                   'val_dataloader.dataset.indices=2'], 'mIoU'),
])
def test_config_of_the_page(name, options, result, root, drawn_data,
                            run_cli, tmp_path):
    page = (root / 'docs' / 'own_data.md').read_text()
    text, = re.findall(rf'```python\n(# mine/{name}\.py\n.*?)```', page,
                       flags=re.DOTALL)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'configs').symlink_to(root / 'configs')
    (tmp_path / 'mine' / f'{name}.py').write_text(text)
    mine = shutil.copytree(drawn_data, tmp_path / 'data' / 'mine')
    for split in ('train', 'val'):
        shutil.copy(mine / 'annotations' / f'instances_{split}.json',
                    mine / 'annotations' / f'{split}.json')
    done = run_cli('train', f'mine/{name}.py', '--cfg-options', *options,
                   cwd=tmp_path)
    assert result in done.stdout + done.stderr
