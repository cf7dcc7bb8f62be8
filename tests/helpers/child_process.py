"""Run something where it can crash, hang or eat memory, and say which."""

import os
import pickle
import resource
import select
import signal
import traceback
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How it ended.

    Attributes:
        value (Any): What was returned, if it returned.
        error (str | None): Name of the exception's type, or how it died.
        text (str): The exception's.
        trace (str): The exception's, for whoever mends it.
    """

    value: Any = None
    error: Any = None
    text: str = ''
    trace: str = ''


def run_apart(function, *args, seconds=5, memory=1 << 30):
    """Call ``function(*args)`` in a copy of this process.

    Args:
        function (Callable): Returns what can be pickled.
        seconds (float): How long it may take.
        memory (int): How many bytes it may take beside what is taken.

    Returns:
        Outcome: How it ended.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with open('/proc/self/statm') as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, ) * 2)
        try:
            outcome = Outcome(function(*args))
        except BaseException as error:
            outcome = Outcome(None, type(error).__name__, str(error),
                              traceback.format_exc())
        try:
            with open(writing, 'wb') as pipe:
                pickle.dump(tuple(outcome), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, 'rb') as pipe:
        if not select.select([pipe], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome(error=f'took over {seconds} s')
        data = pipe.read()
    status = os.waitpid(child, 0)[1]
    if not data:
        return Outcome(error=f'died of signal {os.WTERMSIG(status)}')
    return Outcome(*pickle.loads(data))
