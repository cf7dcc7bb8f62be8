"""Measure how fast CycleMLP runs here, beside its alternatives.

    python -m mmcyclemlp benchmark
    python -m mmcyclemlp benchmark backbone train --arch b2 --size 800 1344
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from ..apis.models import find_device
from ..backbones import CycleNet
from ..benchmark.bench import measure
from ..benchmark.calls import DTYPES
from ..benchmark.cases import QUESTIONS
from ..benchmark.report import at_fault, machine, table
from ..errors import UserError
from . import cli


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(
        'benchmark', description='Measure how fast CycleMLP runs on this '
        'machine, beside its alternatives. Do not run other programs '
        'meanwhile. The command needs torch alone, and leaves out what cannot '
        'be imported. If a result of CycleMLP is wrong, the table says so in '
        'place of a time, and the exit code is 1.')
    add = parser.add_argument
    add('questions', nargs='*', metavar='QUESTION',
        help='op (cycle_fc at each stage), mixer (the token mixer at each '
        'stage), backbone (inference), train (forward and backward pass, and '
        'memory). Default: all')
    add('--arch', nargs='+', choices=sorted(CycleNet.arch_settings),
        metavar='ARCH', help='b1 ... b5 (default: all; on a CPU b1 b2)')
    add('--size', nargs=2, type=int, action='append', metavar=('H', 'W'),
        help='height and width of the image. Repeat the option for several '
        'sizes (default: 800 1344 and 512 512)')
    add('--batch', nargs='+', type=positive, metavar='N',
        help='images in a batch (default: 1 2 8 16; on a CPU 1)')
    add('--dtype', nargs='+', choices=list(DTYPES), metavar='DTYPE',
        help='fp32, bf16, fp16 (default: bf16; on a CPU fp32 bf16)')
    cli.add_device(parser)
    add('--seconds', type=float, default=500., metavar='S',
        help='time for all cases (default: 500). b2 and the values that you '
        'name first are measured first. Nothing new begins after this time')
    cli.add_json(parser, 'the machine, the versions and every sample')
    add('--threads', type=positive, metavar='N',
        help="threads of torch on the CPU (default: torch's own)")
    args = parser.parse_args(argv)
    args.questions = args.questions or list(QUESTIONS)
    for name in args.questions:
        if name not in QUESTIONS:
            raise UserError(f'there is no question {name}. The questions are '
                            f'{", ".join(QUESTIONS)}')
    if not args.seconds > 0:
        raise UserError(f'--seconds: {args.seconds:g} is not above 0')
    args.size = args.size or [(800, 1344), (512, 512)]
    for size in args.size:
        cli.check_size(size, 32)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    args.device = device = torch.device(find_device(args.device))
    gpu = device.type == 'cuda'
    args.arch = args.arch or [f'b{i}' for i in range(1, 6 if gpu else 3)]
    args.batch = args.batch or ([1, 2, 8, 16] if gpu else [1])
    args.dtype = args.dtype or (['bf16'] if gpu else ['fp32', 'bf16'])
    if gpu:
        torch.cuda.set_device(device)
    if args.threads:
        torch.set_num_threads(args.threads)
    # fp32 is single precision, and sizes do not change in a case.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    known = machine(device)
    print(*(f'{key} {value or "missing"}' for key, value in known.items()),
          sep=', ', flush=True)
    cases = [case for question in args.questions
             for case in QUESTIONS[question](args)]

    def save():
        if args.json:
            cli.write_json(args.json, dict(
                machine=known, cases=[case.known() for case in cases]))

    for case in measure(cases, device, args.seconds):
        print(f'{case.question} {case.label}', file=sys.stderr)
        save()
    save()
    for question in args.questions:
        print('', *table(question, [
            case for case in cases if case.question == question],
            known.get('gpu')), sep='\n')
    if at_fault(cases):
        sys.exit(1)
