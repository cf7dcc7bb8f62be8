"""Handle SIGTERM and SIGINT in the main process, but not in its children."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import resource_tracker, util
from weakref import WeakSet

from torch.utils.data import DataLoader

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_replaced = {}  # number: (our handler, previous handler) of this process
_forking = threading.local()
_workers = WeakSet()


def set_handler(handler: Callable) -> None:
    """Set a handler of SIGTERM and SIGINT in this process only.

    Processes that it forks get the previous handlers.

    Args:
        handler (Callable): See :func:`signal.signal`. It must not be
            SIG_IGN, which every program started from here would inherit.
    """
    for number in SIGNALS:
        previous = signal.signal(number, handler)
        if number in _replaced:
            previous = _replaced[number][1]
        _replaced[number] = handler, previous


def restore_handlers() -> None:
    """Restore the handlers that :func:`set_handler` replaced."""
    for number, (handler, previous) in list(_replaced.items()):
        if signal.getsignal(number) == handler:
            # None stands for a handler that was not set from Python.
            signal.signal(number, previous or signal.SIG_DFL)
        del _replaced[number]


def _before_fork():
    # A signal waits until the child has its own handlers.
    _forking.mask = (signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                     if _replaced else None)


def _after_fork():
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child():
    restore_handlers()
    _after_fork()


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork,
                        after_in_child=_after_fork_in_child)


def shield_workers(dataloader: DataLoader) -> None:
    """Make the workers of a data loader survive SIGTERM and SIGINT.

    If a signal is sent to the whole process group, the main process finishes
    its step, and may need another batch. The workers end when it ends.

    Args:
        dataloader (DataLoader): The data loader; changed in place.
    """
    class Shielded(type(dataloader)):

        def __iter__(self):
            if not self.num_workers:
                return super().__iter__()
            before = multiprocessing.active_children()
            with _signals_blocked(
                    self.multiprocessing_context or multiprocessing):
                iterator = super().__iter__()
            _workers.update(
                set(multiprocessing.active_children()).difference(before))
            for worker in _workers:
                # torch terminates a worker that is stuck.
                worker.terminate = worker.kill
            _kill_at_exit(os.getpid())
            return iterator

    dataloader.worker_init_fn = partial(
        _start_worker, dataloader.worker_init_fn)
    dataloader.__class__ = Shielded


@contextmanager
def _signals_blocked(context):
    method = context.get_start_method()
    # A fork server would keep the mask for all processes that it forks.
    if method == 'forkserver' or not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    if method == 'spawn':
        # Start it now: it unblocks the signals when it starts.
        resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@cache
def _kill_at_exit(process):
    # Before multiprocessing terminates and joins its children.
    util.Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers():
    # Without torch's handler, which raises an error for a killed worker.
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in _workers.intersection(multiprocessing.active_children()):
        worker.kill()


def _start_worker(worker_init_fn, number):
    if worker_init_fn is not None:
        worker_init_fn(number)
    # Programs that a transform starts would inherit a mask or SIG_IGN, but
    # not a handler.
    set_handler(_ignore)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # At its end Python restores the handlers that end the process.
        util.Finalize(None, signal.pthread_sigmask, (
            signal.SIG_BLOCK, SIGNALS), exitpriority=-100)


def _ignore(number, frame):
    pass
