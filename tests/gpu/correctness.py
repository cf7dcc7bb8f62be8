"""Step ``correctness``: run the tests of kernels and network, one per core."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from .step import Step
from .test_on_gpu import DTYPES, MAPS

TESTS = Path(__file__).parents[1]
FILES = ['gpu/test_on_gpu.py', 'ops/triton/test_launch.py',
         'ops/test_functional.py::test_gpu']
# If one of these did not pass, no tiles are adopted.
PROOF = 'test_kernels_at_real_sizes'
PROOFS = 3 * len(MAPS) * len(DTYPES)
# In miniature, one short test of each kind.
FEW = ('test_kernels_at_real_sizes or test_whole_network or '
       'test_two_runs_are_equal')
SHOWN = 12  # how many failures the table shows


class Recorder:
    """A plugin for pytest that records each result."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.counts = dict(passed=0, failed=0, skipped=0)
        self.failures, self.skips, self.proofs = [], {}, 0

    def pytest_runtest_logreport(self, report) -> None:
        # Set-up and tear-down count only if they fail or skip.
        if report.when != 'call' and report.passed:
            return
        self.counts[report.outcome] += 1
        name = report.nodeid.rpartition('/')[2]
        if report.failed:
            crash = getattr(report.longrepr, 'reprcrash', None)
            text = crash.message if crash else str(report.longrepr)
            self.failures.append([name, text[:2000]])
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(
                report.longrepr, tuple) else str(report.longrepr)
            self.skips[name] = reason
        elif name.partition('::')[2].startswith(PROOF):
            self.proofs += 1
        self.step.record(
            counts=self.counts, failures=self.failures, skips=self.skips,
            wrong=bool(self.failures), table=self.table(),
            passed=self.proofs == PROOFS and not self.failures)

    def table(self) -> list[str]:
        lines = [', '.join(f'{number} {what}'
                           for what, number in self.counts.items())]
        for name, text in self.failures[:SHOWN]:
            first = text.partition('\n')[0]
            lines.append(f'- FAILED {name}: {first[:200]}')
        lines += [f'- skipped: {reason}'
                  for reason in sorted(set(self.skips.values()))]
        return lines


def measure(step: Step) -> None:
    """Run the tests of the kernels and of the network on this device."""
    arguments = ['-q', '--no-header', '-p', 'no:cacheprovider', '--tb=short',
                 '--rootdir', TESTS.parent, '-c',
                 TESTS.parent / 'pyproject.toml']
    if step.miniature:
        arguments += ['-k', FEW]
    if find_spec('xdist'):
        # In the order of the files, which have the longest tests first.
        arguments += ['-n', 1 if step.miniature else os.cpu_count(),
                      '--dist', 'load', '--maxschedchunk', 1]
    files = [TESTS / name for name in FILES[:2 if step.miniature else None]]
    status = pytest.main([*map(str, [*arguments, *files])],
                         plugins=[Recorder(step)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f'pytest ended with {status!r}')
