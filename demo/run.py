"""Draw data, train a detector and a segmentor, and evaluate them."""

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = Path('work_dirs/demo')


def call(*args):
    """Run Python in the root of the project."""
    subprocess.run([sys.executable, *args], check=True, cwd=HERE.parent)


def train_and_test(name):
    """Train ``demo/<name>.py`` from scratch and return its test metrics."""
    config, work_dir = f'demo/{name}.py', OUT / name
    call('-m', 'mmcyclemlp', 'train', config, '--work-dir', str(work_dir))
    checkpoint = (HERE.parent / work_dir / 'last_checkpoint').read_text()
    call('-m', 'mmcyclemlp', 'test', config, checkpoint, '--work-dir',
         str(work_dir / 'test'), '--show-dir', str(OUT / 'pictures' / name))
    logs = (HERE.parent / work_dir / 'test').glob('*/*.json')
    return json.loads(max(logs).read_text())


def main():
    start = time.time()
    call('demo/draw_data.py', str(OUT / 'data'))
    detector = train_and_test('mask_rcnn')
    segmentor = train_and_test('upernet')
    print(f'\nDone in {(time.time() - start) / 60:.1f} minutes, on shapes '
          'drawn by demo/draw_data.py:')
    for what, figure in (
            ('Mask R-CNN box mAP', detector['coco/bbox_mAP']),
            ('Mask R-CNN mask mAP', detector['coco/segm_mAP']),
            ('UperNet mIoU', segmentor['mIoU'] / 100)):
        print(f'  {what:20} {figure:.3f}')
    print(f'Pictures of predictions: {OUT / "pictures"}')


if __name__ == '__main__':
    main()
