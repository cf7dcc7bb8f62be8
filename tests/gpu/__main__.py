"""Measure on a GPU what only a GPU can decide, in eight minutes.

    python -m tests.gpu --json gpu.json
    python -m tests.gpu --json gpu.json --miniature

It needs torch, Triton, torchvision, timm and pytest. The table of a step names
what is missing. Every step runs in its own process, because a process cannot
use the GPU after an illegal memory access. The JSON file is written after each
figure, so a run that is cut short keeps its figures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from mmcyclemlp.benchmark.report import machine

from .step import Skipped, Step, read, write

# Seconds of each step, most decisive first.
STEPS = dict(correctness=60, tiles=120, layers=60, backbones=170, models=60,
             export=10)
TRIES = 8  # how often a step that crashes is run


def parse_args(argv):
    parser = argparse.ArgumentParser(
        prog='python -m tests.gpu', description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('steps', nargs='*', default=list(STEPS), metavar='STEP',
        help=f'{", ".join(STEPS)} (default: all)')
    add('--json', type=Path, required=True, metavar='PATH',
        help='where the figures go')
    add('--seconds', type=float, default=sum(STEPS.values()), metavar='S',
        help='time for all steps together (default: %(default)s)')
    add('--miniature', action='store_true',
        help='tiny sizes on a CPU, to test this program')
    add('--inside', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    unknown = set(args.steps) - set(STEPS)
    if unknown:
        parser.error(f'the steps are {", ".join(STEPS)}; got {unknown}')
    if not args.miniature and not torch.cuda.is_available():
        parser.error('torch finds no GPU here; --miniature does without')
    args.json = args.json.resolve()
    return args


def inside(args) -> int:
    """Run one step in this process."""
    name, = args.steps
    step = Step(name, args.json, args.seconds, args.miniature)
    result = dict(status='done')
    try:
        importlib.import_module(f'.{name}', __package__).measure(step)
    except Skipped as skipped:
        result = dict(status='skipped', reason=str(skipped))
    except Exception as error:
        traceback.print_exc()
        result = dict(status='failed', trace=traceback.format_exc(),
                      reason=f'{type(error).__name__}: {error}'[:500])
    step.end_with(**result)
    return int(result['status'] == 'failed')


def run_step(name, args, seconds) -> dict:
    """Run one step in its own process; return what the file has of it."""
    command = [sys.executable, '-W', 'ignore', '-m', __package__, name,
               '--json', args.json, '--seconds', seconds, '--inside',
               *['--miniature'] * args.miniature]
    environment = dict(os.environ)
    if args.miniature:
        environment |= dict(TRITON_INTERPRET='1', CUDA_VISIBLE_DEVICES='')
    process = subprocess.Popen(list(map(str, command)), env=environment,
                               preexec_fn=os.setpgrp)
    late = False
    try:
        process.wait(seconds + 5)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        # Also end all processes that the step has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    known = read(args.json)
    step = known['steps'].setdefault(name, {})
    if late:
        step.update(status='cut short', reason='its time was over')
    elif 'status' not in step:
        step.update(status='failed',
                    reason=f'exit status {process.returncode}')
    write(args.json, known)
    return step


def run_steps(args) -> None:
    end = time.monotonic() + args.seconds
    waiting = list(args.steps)
    while waiting:
        name, *rest = waiting
        left = end - time.monotonic()
        seconds = left * STEPS[name] / sum(map(STEPS.get, waiting))
        waiting = rest
        start = time.monotonic()
        for _ in range(TRIES):
            known = read(args.json)
            for key in ('status', 'reason', 'trace'):
                known['steps'].get(name, {}).pop(key, None)
            write(args.json, known)
            print(f'[{args.seconds - left:4.0f} s] {name}', file=sys.stderr,
                  flush=True)
            step = run_step(name, args,
                            seconds - (time.monotonic() - start))
            # A step that crashed continues after its last figure.
            enough = time.monotonic() - start > 0.8 * seconds
            if step['status'] != 'failed' or enough or not step.get(
                    'figures'):
                break
        known = read(args.json)
        known['steps'][name]['seconds'] = time.monotonic() - start
        write(args.json, known)


def print_tables(args) -> int:
    known = read(args.json)
    print(*(f'{key} {value or "missing"}'
            for key, value in known['machine'].items()), sep=', ')
    wrong = 0
    for name in args.steps:
        step = known['steps'][name]
        wrong += step['status'] == 'failed' or bool(
            step.get('figures', {}).get('wrong'))
        reason = f': {step["reason"]}' if 'reason' in step else ''
        print(f'\n## {name}: {step["status"]} in {step["seconds"]:.0f} s'
              f'{reason}')
        print(*step.get('figures', {}).get('table', []), sep='\n')
    return int(wrong > 0)


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.inside:
        return inside(args)
    device = torch.device('cpu' if args.miniature else 'cuda')
    found, known = machine(device), read(args.json)
    # Keep the other steps of the file if they ran on the same GPU.
    same = known['machine'].get('gpu') == found.get('gpu')
    steps = {name: step for name, step in known['steps'].items()
             if same and name not in args.steps}
    write(args.json, dict(machine=found, steps=steps))
    # sys.exit runs the code that also ends the step.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_steps(args)
    return print_tables(args)


if __name__ == '__main__':
    sys.exit(main())
