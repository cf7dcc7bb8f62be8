"""Measure how fast CycleMLP runs on this machine, beside its alternatives.

    python -m mmcyclemlp benchmark
    python -m mmcyclemlp benchmark backbone train --arch b2 --size 800x1344

Needs torch alone; an alternative that cannot be imported is left out.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import torch

from ..backbones import CycleNet
from ..benchmark.bench import Bench
from ..benchmark.calls import DTYPES
from ..benchmark.cases import QUESTIONS, Scope
from ..benchmark.report import at_fault, machine, save, table


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f'error: {message}\n')


def checked(kind, good, message):
    """A type for argparse: what ``kind`` makes of a text, if ``good``."""

    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if good(value):
                return value
        raise argparse.ArgumentTypeError(message.format(text))

    return parse


def positive(kind):
    return checked(kind, lambda value: value > 0,
                   'takes a number above 0, got {!r}')


def parse_args(argv):
    questions = ', '.join(QUESTIONS)
    parser = Parser(
        description="""\
Measure how fast CycleMLP runs on this machine, beside its alternatives. The
contenders of a case take turns, so that a change of clock meets all of them;
keep the cores to yourself all the same, for other work on them slows some
contenders far more than others. Where a result of ours differs from the
definition there is "wrong" in place of a time, and the exit status is 1.""",
        epilog="""questions:
  op        cycle_fc at each stage: our backends, the official route (a
            deformable convolution), and F.linear, which moves nothing
  mixer     the token mixer of a block, with its shortcut, at each stage
  backbone  inference: CycleNet in several ways; beside the first arch
            other backbones too, from timm or torchvision, as they are and
            compiled
  train     the same for forward and backward pass (half precision:
            autocast), and the memory they take beside weights and image
  scaling   ours at 1, 2 and 16 times the area

columns: ms is the median over the rounds, then the fastest and the slowest;
x official how many times as fast as the official route; GB/s, TFLOP/s and
"of floor" the rates reached, and on the line of the case what has to be
moved and computed at least, and the time that takes on this GPU where its
peaks are known (H100 SXM, H200). Moved at least: input, shortcut, output
and weights once; with gradients the input twice and the gradients once
more. Computed: C^2 multiply-adds a position for the op, 7/3 C^2 for the
mixer; three times that with gradients.""",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('questions', nargs='*', metavar='QUESTION',
        type=checked(str, QUESTIONS.__contains__,
                     f'the questions are {questions}; got {{!r}}'),
        help=f'{questions}; all if none is given')
    add('--arch', nargs='+', choices=sorted(CycleNet.arch_settings),
        metavar='ARCH', help='b1 ... b5 (default: all; on a CPU b1 b2)')
    add('--size', nargs='+', metavar='HxW', default=[(800, 1344), (512, 512)],
        type=checked(
            lambda text: tuple(map(int, text.split('x'))),
            lambda sides: len(sides) == 2 and min(sides) >= 32,
            'a size is HxW, each 32 or more, such as 800x1344; got {!r}'),
        help='sizes of the image (default: 800x1344 512x512)')
    add('--batch', nargs='+', type=positive(int), metavar='N',
        help='images at a time (default: 1 2 8 16; on a CPU 1)')
    add('--dtype', nargs='+', choices=list(DTYPES), metavar='DTYPE',
        help='fp32, bf16, fp16 (default: bf16; on a CPU fp32 bf16)')
    add('--device', choices=['cpu', 'cuda'],
        help='default: cuda where there is a GPU')
    add('--seconds', type=positive(float), default=500., metavar='S',
        help='time for everything (default: 500); b2 and what was named '
        'first is measured first, and what there was no time for is named')
    add('--json', metavar='PATH',
        type=checked(Path, lambda path: path.resolve().parent.is_dir(),
                     'there is no folder for {}; make it first'),
        help='where to write machine, versions and every sample')
    add('--threads', type=positive(int), metavar='N',
        help="threads of torch on the CPU (default: torch's own)")
    args = parser.parse_args(argv)
    gpu = torch.cuda.is_available() and args.device != 'cpu'
    if args.device == 'cuda' and not gpu:
        parser.error('--device cuda: torch finds no GPU here; leave it out '
                     'or give --device cpu')
    args.device = torch.device('cuda' if gpu else 'cpu')
    args.questions = args.questions or list(QUESTIONS)
    defaults = (dict(arch=['b1', 'b2', 'b3', 'b4', 'b5'],
                     batch=[1, 2, 8, 16], dtype=['bf16']) if gpu else
                dict(arch=['b1', 'b2'], batch=[1], dtype=['fp32', 'bf16']))
    for name, default in defaults.items():
        setattr(args, name, getattr(args, name) or default)
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    # Single precision is what it says, and sizes do not change in a case.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bench, known = Bench(args.device, args.seconds), machine(args.device)
    print(*(f'{key} {value or "missing"}' for key, value in known.items()),
          sep=', ', flush=True)
    scope = Scope(args.arch, args.size, args.batch, args.dtype, args.device)
    cases = [case for question in args.questions
             for case in QUESTIONS[question](scope)]
    for case, seconds in bench.shares(cases):
        print(f'[{args.seconds - bench.left():4.0f} s] {case.question} '
              f'{case.label}', file=sys.stderr)
        bench.measure(case, seconds)
        if args.json:
            save(args.json, known, cases)
    if args.json:
        save(args.json, known, cases)
    for question in args.questions:
        print('', *table(question, [
            case for case in cases if case.question == question],
            known.get('gpu')), sep='\n')
    return int(at_fault(cases))
