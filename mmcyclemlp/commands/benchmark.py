"""Measure how fast CycleMLP runs here, beside its alternatives.

    python -m mmcyclemlp benchmark
    python -m mmcyclemlp benchmark backbone train --arch b2 --size 800 1344
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbones import CycleNet
from ..benchmark.bench import measure
from ..benchmark.calls import DTYPES
from ..benchmark.cases import QUESTIONS, Scope
from ..benchmark.contenders import first_line
from ..benchmark.report import at_fault, machine, save, table
from ..errors import UserError
from . import cli

DESCRIPTION = """\
Measure how fast CycleMLP runs on this machine, beside its alternatives.
The command needs torch alone. It leaves out what cannot be imported.

The contenders of a case take turns, so that a change of the clock rate
affects all of them. Do not run other programs meanwhile: they slow some
contenders more than others. Each result of CycleMLP is compared with the
definition first. If it differs, the table has "wrong" in place of a time, and
the exit code is 1.

questions:
  op        cycle_fc at each stage: the backends, the official route (a
            deformable convolution), and F.linear, which moves nothing
  mixer     the token mixer of a block and its shortcut, at each stage
  backbone  inference: CycleNet in several ways, and for the first arch
            other backbones from timm, eager and compiled
  train     the same for forward and backward pass (autocast in half
            precision), and the memory that a step adds"""
EPILOG = """\
columns:
  ms             median of the rounds, then the fastest and the slowest
  x official     how many times as fast as the official route
  GB/s, TFLOP/s  the rates. The line of a case has the least bytes and
                 operations: input, shortcut, output and weights once (with
                 gradients the input twice and the gradients once), and C^2
                 multiply-adds at each position for the op, 7/3 C^2 for the
                 mixer (with gradients three times that)
  of floor       the time that these take at least, on GPUs whose peaks are
                 known (H100 SXM, H200), as a share of the time"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(
        'benchmark', description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('questions', nargs='*', metavar='QUESTION',
        help=f'{", ".join(QUESTIONS)} (default: all)')
    add('--arch', nargs='+', choices=sorted(CycleNet.arch_settings),
        metavar='ARCH', help='b1 ... b5 (default: all; on a CPU b1 b2)')
    add('--size', nargs=2, type=int, action='append', metavar=('H', 'W'),
        help='height and width of the image. Repeat the option for several '
        'sizes (default: 800 1344 and 512 512)')
    add('--batch', nargs='+', type=int, metavar='N',
        help='images in a batch (default: 1 2 8 16; on a CPU 1)')
    add('--dtype', nargs='+', choices=list(DTYPES), metavar='DTYPE',
        help='fp32, bf16, fp16 (default: bf16; on a CPU fp32 bf16)')
    add('--device', help='cpu, cuda, cuda:1 ... (default: a GPU if there is '
        'one)')
    add('--seconds', type=float, default=500., metavar='S',
        help='time for all cases (default: 500). b2 and the values that you '
        'name first are measured first. Nothing new begins after this time')
    add('--json', type=Path, metavar='PATH',
        help='file for the machine, the versions and every sample')
    add('--threads', type=int, metavar='N',
        help="threads of torch on the CPU (default: torch's own)")
    args = parser.parse_args(argv)
    args.questions = args.questions or list(QUESTIONS)
    args.size = args.size or [(800, 1344), (512, 512)]
    return args


def check_args(args: argparse.Namespace) -> None:
    """Raise a UserError for values that argparse does not check."""
    for name in args.questions:
        if name not in QUESTIONS:
            raise UserError(f'there is no question {name}. The questions are '
                            f'{", ".join(QUESTIONS)}')
    for option, values, least in (
            ('--size', sum(map(list, args.size), []), 32),
            ('--batch', args.batch or [], 1),
            ('--threads', [args.threads or 1], 1)):
        if min(values, default=least) < least:
            raise UserError(f'{option}: {min(values)} is too small. Give '
                            f'{least} or more')
    if not args.seconds > 0:
        raise UserError(f'--seconds: {args.seconds:g} is not above 0')
    if args.json and not args.json.resolve().parent.is_dir():
        raise UserError(f'--json: there is no folder for {args.json}. '
                        'Create it first')


def find_device(name: str | None) -> torch.device:
    """Return the device of a name. None selects a GPU if there is one."""
    try:
        device = torch.device(
            name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.zeros(1, device=device)
    except Exception as error:  # its type depends on the device
        raise UserError(f'--device {name}: {first_line(error)}. Give cpu, or '
                        'cuda where torch finds a GPU') from error
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    elif device.type != 'cpu':
        raise UserError(f'--device {name}: the benchmark runs on cpu and cuda')
    return device


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_args(args)
    device = find_device(args.device)
    gpu = device.type == 'cuda'
    if args.threads:
        torch.set_num_threads(args.threads)
    # fp32 is single precision, and sizes do not change in a case.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    known = machine(device)
    print(*(f'{key} {value or "missing"}' for key, value in known.items()),
          sep=', ', flush=True)
    scope = Scope(
        args.arch or (['b1', 'b2', 'b3', 'b4', 'b5'] if gpu else ['b1', 'b2']),
        args.size, args.batch or ([1, 2, 8, 16] if gpu else [1]),
        args.dtype or (['bf16'] if gpu else ['fp32', 'bf16']), device)
    cases = [case for question in args.questions
             for case in QUESTIONS[question](scope)]
    for case in measure(cases, device, args.seconds):
        print(f'{case.question} {case.label}', file=sys.stderr)
        if args.json:
            save(args.json, known, cases)
    if args.json:
        save(args.json, known, cases)
    for question in args.questions:
        print('', *table(question, [
            case for case in cases if case.question == question],
            known.get('gpu')), sep='\n')
    if at_fault(cases):
        sys.exit(1)
