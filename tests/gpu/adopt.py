"""Put what was measured on a GPU into the repository.

    python -m tests.gpu.adopt gpu.json

The best tiles go to ``mmcyclemlp/ops/triton/measured.py``, where the default
backend follows them, and the file goes to ``docs/figures/``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from mmcyclemlp.ops.triton.measured import MEASURED

ROOT = Path(__file__).parents[2]
HEAD = '''"""Measured on GPUs; ``python -m tests.gpu.adopt`` writes this file.

By compute capability and by key (see ``tiles.Key.name``): the best tiles,
the microseconds of the kernel, and those of the same product in backend
``'torch'``. {source}
"""

MEASURED = {{
{lines}
}}
'''


def as_text(measured: dict) -> str:
    """Return the entries as Python code in short lines."""
    lines = []
    for capability, entries in sorted(measured.items()):
        lines.append(f'    {capability}: {{')
        for name, (tiles, us, torch_us) in sorted(entries.items()):
            lines += [f'        {name!r}: (',
                      f'            {tuple(tiles)}, {us}, {torch_us}),']
        lines.append('    },')
    return '\n'.join(lines)


def best_tiles(keys: dict) -> dict:
    """Return the entries of the keys whose best tiles were proved right."""
    entries = {}
    for name, of_key in keys.items():
        timed = [one for one in of_key['tiles'] if 'us' in one]
        if timed and 'proved' in min(timed, key=lambda one: one['us']):
            best = min(timed, key=lambda one: one['us'])
            entries[name] = (tuple(best['tiles']), round(best['us'], 2),
                             round(of_key['torch_us'], 2))
    return entries


def adopt(path: Path, root: Path = ROOT) -> list[str]:
    """Write the table, and copy the figures; return lines that report it.

    Raises:
        ValueError: The file is not from a GPU, has no tiles, or its step
            ``correctness`` has not passed.
    """
    known = json.loads(path.read_text())
    machine, steps = known['machine'], known['steps']
    if 'gpu' not in machine:
        raise ValueError(f'{path} was not measured on a GPU')
    correctness = steps.get('correctness', {})
    if not correctness.get('figures', {}).get('passed'):
        raise ValueError(f'{path}: the kernels have not passed the step '
                         'correctness, so their tiles are not taken')
    entries = best_tiles(steps.get('tiles', {}).get(
        'figures', {}).get('keys', {}))
    if not entries:
        raise ValueError(f'{path} has no tiles that were timed')
    capability = tuple(steps['tiles']['figures']['capability'])
    measured = {**MEASURED, capability: {
        **MEASURED.get(capability, {}), **entries}}
    name = re.sub(r'\W+', '-', machine['gpu'])
    target = root / 'docs' / 'figures' / f'{name}-{machine["date"][:10]}.json'
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(known, indent=1))
    table = root / 'mmcyclemlp' / 'ops' / 'triton' / 'measured.py'
    table.write_text(HEAD.format(
        source=f'The last is of\n{machine["gpu"]}, {machine["date"][:10]}, '
        f'torch {machine["torch"]}, Triton {machine["triton"]}.',
        lines=as_text(measured)))
    return [f'{len(entries)} keys of capability {capability} in {table}',
            f'figures in {target}']


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m tests.gpu.adopt',
        description='Put what was measured on a GPU into the repository.')
    parser.add_argument('json', type=Path, metavar='JSON')
    try:
        print(*adopt(parser.parse_args(argv).json), sep='\n')
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
