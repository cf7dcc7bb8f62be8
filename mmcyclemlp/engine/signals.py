"""Signals that ask to end: handled in one process, and not in its children."""

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import resource_tracker, util
from weakref import WeakSet

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_replaced = {}  # in this process: by number, our handler and the one before
_forking = threading.local()
_workers = WeakSet()


def listen(handler):
    """Have a handler called at SIGTERM and SIGINT, in this process alone.

    A child gets the handlers that were there before, whoever forks it.

    Args:
        handler (Callable): As of :func:`signal.signal`. Not SIG_IGN, which
            is passed on to every program that is started.
    """
    for number in SIGNALS:
        before = signal.signal(number, handler)
        if number in _replaced:
            before = _replaced[number][1]
        _replaced[number] = handler, before


def listen_no_more():
    """Put back the handlers that were there before."""
    for number, (handler, before) in list(_replaced.items()):
        if signal.getsignal(number) == handler:
            # None is a handler that is not Python's.
            signal.signal(number, before or signal.SIG_DFL)
        del _replaced[number]


def _before_fork():
    # A signal that comes before the child has its own handlers waits.
    _forking.mask = (signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                     if _replaced else None)


def _after_fork():
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child():
    listen_no_more()
    _after_fork()


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork,
                        after_in_child=_after_fork_in_child)


def shield_workers(dataloader):
    """Have the workers of a data loader survive SIGTERM and SIGINT.

    A signal to the whole process group is for the main process. It finishes
    its step, and may want another batch. The workers end when it ends.

    Args:
        dataloader (DataLoader): The data loader; changed in place.
    """
    class Shielded(type(dataloader)):

        def __iter__(self):
            if not self.num_workers:
                return super().__iter__()
            before = multiprocessing.active_children()
            with _held_back(self.multiprocessing_context or multiprocessing):
                iterator = super().__iter__()
            _workers.update(
                set(multiprocessing.active_children()).difference(before))
            for worker in _workers:
                worker.terminate = worker.kill  # of torch, if one is stuck
            _kill_at_exit(os.getpid())
            return iterator

    dataloader.worker_init_fn = partial(
        _start_worker, dataloader.worker_init_fn)
    dataloader.__class__ = Shielded


@contextmanager
def _held_back(context):
    method = context.get_start_method()
    # A fork server would pass the mask on to all processes that it forks.
    if method == 'forkserver' or not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    if method == 'spawn':
        resource_tracker.ensure_running()  # it unblocks them as it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@cache
def _kill_at_exit(process):
    # Before multiprocessing terminates and joins what is still there.
    util.Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers():
    # Or torch raises an error about each that is killed.
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in _workers.intersection(multiprocessing.active_children()):
        worker.kill()


def _start_worker(initialise, number):
    if initialise is not None:
        initialise(number)
    # A handler: what is blocked or ignored here would be so, too, in all
    # that a transform starts.
    listen(_ignore)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # As it ends, Python puts back the handlers that kill.
        util.Finalize(None, signal.pthread_sigmask, (
            signal.SIG_BLOCK, SIGNALS), exitpriority=-100)


def _ignore(number, frame):
    pass
