"""What a training step on the CPU takes, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from ..errors import BackendUnavailable
from .calls import make_net
from .contenders import Contender, LeftOut

STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def peak_on_cpu(contender: Contender, case) -> int | None:
    """Bytes that a step of a contender adds; None where Linux is missing.

    Measured by this module run as a command, with the threads of here.
    """
    if not CLEAR.exists():
        return None
    asked = dict({key: case.settings[key] for key in ('arch', 'size',
                                                      'batch')},
                 dtype=case.dtype, contender=contender,
                 threads=torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', __name__, json.dumps(asked)],
        # Where it finds the very package that this is.
        cwd=Path(__file__).parents[2], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().split('\n')[-1])
    answer = json.loads(done.stdout.split('\n')[-2])
    if isinstance(answer, str):
        raise LeftOut(answer)
    return answer


def added_by_step(contender, arch, size, batch, dtype) -> int:
    """Bytes by which a step raises the memory of this process."""

    def status(key):
        return int(re.search(rf'{key}:\s*(\d+) kB',
                             STATUS.read_text())[1]) * 1024

    call = make_net(torch.device('cpu'), arch, tuple(size), batch, dtype, True,
                    Contender(*contender))
    # The peak so far was of building; ru_maxrss would be the parent's.
    CLEAR.write_text('5')
    before = status('VmRSS')
    call()
    return status('VmHWM') - before


def main():
    """Print the bytes, or why there are none, as JSON.

    What is asked is JSON, the only argument.
    """
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.pop('threads'))
    try:
        print(json.dumps(added_by_step(**asked)))
    except (LeftOut, BackendUnavailable) as error:
        print(json.dumps(str(error)))


if __name__ == '__main__':
    main()
