"""Stop training at a signal, and save it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...errors import Stopped
from ..signals import restore_handlers, set_handler
from .checkpoint import WholeCheckpointHook


@HOOKS.register_module()
class StopHook(Hook):
    """At SIGTERM or SIGINT, finish the step, save, and end the run.

    The step may be of training or of validation. A second signal, a second
    or more later, ends the process at once. Processes that this process
    forks or starts have the previous handlers. The hook needs a
    WholeCheckpointHook in the same runner.

    Raises:
        Stopped: The run is saved. It ends Python with exit code 75.
    """

    priority = 'LOWEST'

    def before_run(self, runner):
        """Set the handlers; an earlier signal ends the process."""
        self._signal = None
        self._evaluating = False
        self._checkpoints = next(
            hook for hook in runner.hooks
            if isinstance(hook, WholeCheckpointHook))
        # A group on the CPU, so that a step does not wait for its GPU.
        self._group = (torch.distributed.new_group(backend='gloo')
                       if is_distributed() else None)
        evaluator = getattr(runner.val_loop, 'evaluator', None)
        # Other runners save with all processes, which one cannot start.
        if evaluator is not None and (
                self._group is None or isinstance(runner, Runner)):
            evaluator.evaluate = partial(
                self._evaluate, runner, evaluator.evaluate)
        if threading.current_thread() is threading.main_thread():
            set_handler(partial(self._on_signal, runner))

    def _on_signal(self, runner, number, frame):
        if self._signal is not None:
            if time.monotonic() - self._since < 1:
                return  # the same signal, sent again by torchrun
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal, self._since = number, time.monotonic()
        print_log(f'{signal.Signals(number).name}: this step is finished '
                  'and saved; a second signal ends the run at once',
                  logger='current')
        if self._evaluating and is_main_process():
            self._leave_evaluation(runner)

    def _evaluate(self, runner, evaluate, size):
        """Evaluate; a signal may save and end the run at once."""
        self._evaluating = (self._group is None
                            or self._checkpoints.gather(runner))
        try:
            return evaluate(size)
        except RuntimeError:
            if self._signal is None or is_main_process():
                raise
            os._exit(Stopped().code)  # the main process has saved the run
        finally:
            self._evaluating = False

    def _leave_evaluation(self, runner):
        """Save and end; a resumed run evaluates again.

        Only the main process computes metrics, and the others wait for it.
        A signal to the whole process group ends the processes that a metric
        has forked. The metric may then wait for them forever, and so may its
        finally clauses and the exit of Python. So they are skipped.
        """
        self._save(runner, self._signal, validating=True)
        try:
            runner.visualizer.close()
            logging.shutdown()
            sys.stdout.flush()
        finally:
            for process in multiprocessing.active_children():
                process.kill()
            os._exit(Stopped().code)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """Stop after a signal."""
        self._stop_after_signal(runner, in_step=True)

    def after_val_iter(self, runner, batch_idx, data_batch=None,
                       outputs=None):
        """Stop after a signal; a resumed run validates again."""
        self._stop_after_signal(runner, validating=True)

    def after_val_epoch(self, runner, metrics=None):
        """Stop after a signal."""
        self._stop_after_signal(runner)

    def after_run(self, runner):
        """Restore the handlers."""
        restore_handlers()

    def _stop_after_signal(self, runner, in_step=False, validating=False):
        number = torch.tensor(self._signal or 0)
        if self._group is not None:
            # All processes stop at the same step.
            torch.distributed.all_reduce(
                number, torch.distributed.ReduceOp.MAX, group=self._group)
        if number:
            self._save(runner, int(number), in_step, validating)
            raise Stopped

    def _save(self, runner, number, in_step=False, validating=False):
        for hook in runner.hooks if validating else ():
            if isinstance(hook, EMAHook):
                # It validates with the average in place of the weights.
                hook.after_val_epoch(runner)
        name = self._checkpoints.save_interrupted(runner, in_step)
        print_log(
            f'Stopped by {signal.Signals(number).name} after step '
            f'{runner.iter + in_step}, saved as {name}: continue with '
            '--resume',
            logger='current')
