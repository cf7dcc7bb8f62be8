"""The helper distinguishes the ways in which a function ends."""

import os
import signal

from helpers.child_process import run_in_child


def loop_forever():
    while True:
        pass


def test_how_a_function_ends():
    assert run_in_child(sum, [1, 2]).value == 3
    crash = run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert crash.error == 'died of signal 9'
    assert run_in_child(lambda: bytes(1 << 31)).error == 'MemoryError'
    hang = run_in_child(loop_forever, cpu_seconds=1)
    assert hang.error == f'died of signal {int(signal.SIGXCPU)}'
    wrong = run_in_child(int, 'x')
    assert wrong.error == 'ValueError' and "'x'" in wrong.text
    assert 'in run_in_child' in wrong.trace
