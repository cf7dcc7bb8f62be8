"""Step ``models``: train, kill, resume and test whole models by commands.

A resumed run must restore the random states, so that its first step has the
same loss as this step of the killed run. The losses in fp32 are also compared
with those of the reference backend. Nothing is timed, so all models run at the
same time.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import runpy
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .commands import ROOT, Command, Failed, Late, commands
from .model_configs import SAVE_EVERY, STEPS, write_config
from .step import Skipped, Step

NEEDED = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'pycocotools')
SCOPES = dict(retinanet='mmdet', upernet='mmseg', mask_rcnn='mmdet')
# Losses that depend only on images and weights, and not on chosen boxes. A
# rounding error may change which boxes the second stage gets.
LOSSES = dict(retinanet=('loss_cls', 'loss_bbox'),
              upernet=('decode.loss_ce', 'aux.loss_ce'),
              mask_rcnn=('loss_rpn_cls', 'loss_rpn_bbox'))
METRIC = re.compile(r'(?:/(bbox_mAP|segm_mAP)|(mIoU)): (-?[\d.]+)')
BACKEND = re.compile(r"mmcyclemlp: backend='(\w+)'")
# RetinaNet and UperNet always train with the kernels, in the dtype that the
# step `tiles` has compiled. Mask R-CNN trains with the defaults of --amp.
KERNELS = ('model.backbone.backend=triton', )
OPTIONS = dict(retinanet=KERNELS, upernet=KERNELS, mask_rcnn=())
BFLOAT16 = ('optim_wrapper.dtype=bfloat16', )
KILL_AT = SAVE_EVERY + 2
NORM = 'grad_norm'
# LAST saves only the last checkpoint, UNSAVED saves none.
LAST = ('default_hooks.checkpoint.interval=1000', )
UNSAVED = (*LAST, 'default_hooks.checkpoint.save_last=False')
# Largest relative differences. Kernels that get the same numbers compute the
# same bits. In miniature, without the random states, the norm of the gradients
# in the first step of a resumed run was off by 3e-2 to 1e-1.
RESUMED = 5e-3
# The convolutions of the heads use TF32, whose rounding error is 5e-4, and a
# loss is a mean of many values.
FIRST_LOSSES = 1e-3
# The gradients of Mask R-CNN depend on a choice of boxes.
FIRST_NORM = dict(retinanet=1e-2, upernet=1e-2, mask_rcnn=math.inf)


def read_losses(work: Path) -> list[dict[int, dict]]:
    """Return the log records of each run in a work dir by number of step."""
    runs = []
    for path in sorted(work.glob('*/vis_data/scalars.json')):
        # The last line may be incomplete.
        lines = path.read_text().split('\n')[:-1]
        steps = [json.loads(line) for line in lines]
        runs.append({one['step']: one for one in steps if 'loss' in one})
    return runs


def differences(keys: tuple[str, ...], one: dict,
                other: dict) -> dict[int, float]:
    """Return the relative difference at each step that both runs have."""
    result = {}
    for step in sorted(one.keys() & other.keys()):
        pairs = [(one[step][key], other[step][key]) for key in keys]
        result[step] = max(map(difference, pairs))
    if not result:
        raise Failed('the runs have no step in common')
    return result


def difference(pair: tuple[float, float]) -> float:
    a, b = pair
    if a == b:  # both infinite: gradients too large for the loss scale
        return 0.
    off = abs(a - b) / max(abs(a), abs(b))
    return off if math.isfinite(off) else math.inf


class Models:
    """The findings of the step. Several threads add to them."""

    def __init__(self, step: Step, folder: Path) -> None:
        self.step, self.folder = step, folder
        self.lock = threading.Lock()
        self.table, self.wrong = [], []

    def record(self, line: str, wrong: bool = False, **figures) -> None:
        with self.lock:
            self.table.append(line)
            if wrong:
                self.wrong.append(line)
            self.step.record(table=self.table, wrong=self.wrong, **figures)

    def attempt(self, what: str, find, *args) -> None:
        """Call ``find``, and record its error if there is one."""
        try:
            find(*args)
        except Failed as error:
            more = {} if error.log is None else {
                f'{error.log.stem}_log': error.log.read_text(
                    errors='replace')[-4000:]}
            self.record(str(error), not isinstance(error, Late), **more)
        except Exception as error:
            self.record(f'{what}: {type(error).__name__}: {error}', True)

    def command(self, log: str, tool: str, name: str, work: str, *args,
                options: tuple[str, ...] = ()) -> Command:
        if options:
            args += '--cfg-options', *options
        return Command(
            self.step, SCOPES[name], self.folder / f'{log}.log',
            f'tools/{tool}.py', self.folder / f'{name}.py', *args,
            '--work-dir', self.folder / work)

    def live(self, name: str) -> None:
        """Train, kill, resume and test one model."""
        work = self.folder / name
        last = work / f'iter_{STEPS}.pth'
        saved = work / f'iter_{SAVE_EVERY}.pth'

        def reached() -> bool:
            runs = read_losses(work)
            return bool(runs and saved.exists()
                        and max(runs[-1], default=0) >= KILL_AT)

        amp, options = [], ()
        if not self.step.miniature:
            amp, options = ['--amp'], OPTIONS[name]
        more = options and options + BFLOAT16
        with commands(
                self.command(f'{name}_train', 'train', name, name, *amp,
                             options=more),
                self.command(f'{name}_resume', 'train', name, name, *amp,
                             '--resume', options=more + LAST),
                self.command(f'{name}_test', 'test', name, f'{name}_test',
                             last, options=options)) as (
                    train, resume, test):
            train.start()
            train.kill_at(reached)
            resume.start()
            chosen = BACKEND.search(resume.finish())
            self.compare_resumed(name, read_losses(work), last)
            test.start()
            found = METRIC.findall(test.finish())
            if not found:
                raise Failed('it says no mAP and no mIoU', test.log)
        metrics = {box or iou: float(value) for box, iou, value in found}
        text = ', '.join(f'{key} {value:g}' for key, value in metrics.items())
        if chosen:
            text += f', trained in backend {chosen[1]} by default'
        self.record(f'{name} test: {text}', **{f'{name}_test': metrics})

    def compare_resumed(self, name: str, runs: list, last: Path) -> None:
        killed, resumed = runs
        begun = min(resumed) - 1
        if not last.exists() or begun % SAVE_EVERY or (
                max(resumed) != STEPS):
            raise Failed(f'{name} resumed after step {begun}, and ended '
                         f'after {max(resumed)}')
        off = differences((*LOSSES[name], NORM), killed, resumed)
        first = next(iter(off.values()))
        self.record(
            f'{name} killed after step {max(killed)}, resumed after step '
            f'{begun}: losses and gradients off by {first:.1e} at '
            f'first, {max(off.values()):.1e} at most in {len(off)} steps',
            wrong=not first <= RESUMED, **{f'{name}_resumed': off})

    def compare_backends(self, name: str) -> None:
        """Compare the first losses in fp32 with those of the reference."""
        work = dict(reference=f'{name}_reference', triton=f'{name}_triton')
        started = list(work)
        if self.step.miniature:
            # The killed run was in fp32 and serves as the other backend.
            work = dict(reference=work['reference'], torch=name)
            started = ['reference']
        reference, ours = work
        with commands(*(self.command(
                f'{name}_{backend}', 'train', name, work[backend],
                options=(f'model.backbone.backend={backend}', *UNSAVED))
                for backend in started)) as running:
            for command in running:
                command.start()
            for command in running:
                command.finish()
        one, other = (read_losses(self.folder / work[backend])[0]
                      for backend in (reference, ours))
        losses = differences(LOSSES[name], one, other)
        norm = differences((NORM, ), one, other)
        self.record(
            f'{name} fp32, {ours} to reference, {len(norm)} steps: losses '
            f'off by {losses[1]:.1e} at first, {max(losses.values()):.1e} at '
            f'most; norm of the gradients by {norm[1]:.1e} and '
            f'{max(norm.values()):.1e}',
            wrong=not (losses[1] <= FIRST_LOSSES and norm[1]
                       <= FIRST_NORM[name]),
            **{f'{name}_reference': dict(losses=losses, norm=norm)})


def draw_data(folder: Path) -> None:
    draw_split = runpy.run_path(
        str(ROOT / 'demo' / 'draw_data.py'))['draw_split']
    draw_split(folder, 'train', 8, seed=0)
    draw_split(folder, 'val', 2, seed=1)


def measure(step: Step) -> None:
    """Run all models at the same time."""
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        raise Skipped(f'no {", ".join(missing)}; `make gpu-wheels` collects '
                      'wheels for a machine without network')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        draw_data(folder / 'data')
        for name in SCOPES:
            write_config(step, ROOT, folder, name)
        models = Models(step, folder)
        jobs = [[(name, models.live, name)] for name in SCOPES]
        compare = [(f'{name} fp32', models.compare_backends, name)
                   for name in SCOPES]
        if step.miniature:
            # There are two cores, so only one model compares backends.
            jobs[0].append(compare[0])
        else:
            jobs += [[one] for one in compare]

        def work(job) -> None:
            for one in job:
                models.attempt(*one)

        with ThreadPoolExecutor(2 if step.miniature else len(jobs)) as pool:
            list(pool.map(work, jobs))
