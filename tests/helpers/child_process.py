"""Run a function in a child process, where it may crash, hang or eat memory.

The limits count CPU time and memory, so that a busy machine cannot exceed
them.
"""

import os
import pickle
import resource
import traceback
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How a function ended.

    Attributes:
        value (Any): What it returned.
        error (str | None): Type of the exception, or the signal that ended
            the process.
        text (str): Message of the exception.
        trace (str): Traceback of the exception.
    """

    value: Any = None
    error: Any = None
    text: str = ''
    trace: str = ''


def run_in_child(function, *args, cpu_seconds=60, memory=1 << 30):
    """Call ``function(*args)`` in a fork of this process.

    Args:
        function (Callable): Returns an object that can be pickled.
        cpu_seconds (int): Limit of the CPU time.
        memory (int): Limit of the memory, in bytes, in addition to the
            memory of this process.

    Returns:
        Outcome: How the function ended.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with open('/proc/self/statm') as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + memory, ) * 2)
            resource.setrlimit(
                resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
            try:
                outcome = Outcome(function(*args))
            except BaseException as error:
                outcome = Outcome(None, type(error).__name__, str(error),
                                  traceback.format_exc())
            with open(writing, 'wb') as pipe:
                pickle.dump(tuple(outcome), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, 'rb') as pipe:
        data = pipe.read()
    status = os.waitpid(child, 0)[1]
    if not data:
        return Outcome(error=f'died of signal {os.WTERMSIG(status)}')
    return Outcome(*pickle.loads(data))
