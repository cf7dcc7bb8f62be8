"""Training that is asked to end ends at a step, and saved."""

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
from ..signals import listen, listen_no_more
from .checkpoint import WholeCheckpointHook


@HOOKS.register_module()
class StopHook(Hook):
    """At SIGTERM or SIGINT, finish the step, save, and end.

    Of training as of validation. Asked once more a second or more later, the
    process ends at once. Processes that this one forks or starts have the
    handlers that were there before.
    Needs a WholeCheckpointHook beside it.

    Raises:
        Stopped: When all is saved; ends Python with exit code 75.
    """

    priority = 'LOWEST'

    def before_run(self, runner):
        """Listen to signals; what came before ended the process."""
        self._asked = None
        self._evaluating = False
        self._checkpoints = next(
            hook for hook in runner.hooks
            if isinstance(hook, WholeCheckpointHook))
        # On the CPU, so that a step needs not wait for its GPU.
        self._group = (torch.distributed.new_group(backend='gloo')
                       if is_distributed() else None)
        evaluator = getattr(runner.val_loop, 'evaluator', None)
        # Other runners save with all processes, which one alone cannot ask.
        if evaluator is not None and (
                self._group is None or isinstance(runner, Runner)):
            evaluator.evaluate = partial(
                self._evaluate, runner, evaluator.evaluate)
        if threading.current_thread() is threading.main_thread():
            listen(partial(self._ask, runner))

    def _ask(self, runner, number, frame):
        if self._asked is not None:
            if time.monotonic() - self._since < 1:
                return  # the same, by way of torchrun
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._asked, self._since = number, time.monotonic()
        print_log(f'{signal.Signals(number).name}: the step is finished and '
                  'saved; once more ends at once', logger='current')
        if self._evaluating and is_main_process():
            self._leave_evaluation(runner)

    def _evaluate(self, runner, evaluate, size):
        self._evaluating = (self._group is None
                            or self._checkpoints.gather(runner))
        try:
            return evaluate(size)
        except RuntimeError:
            if self._asked is None or is_main_process():
                raise
            os._exit(Stopped().code)  # the main process has saved and ended
        finally:
            self._evaluating = False

    def _leave_evaluation(self, runner):
        """Save and end; evaluation is done again on resuming.

        The main process alone computes metrics, and the others wait for it.
        A signal to the whole group ends the processes that a metric has
        forked. The metric may wait for them for ever. So may its finally
        clauses and the end of Python, which are left out for that reason.
        """
        self._save(runner, self._asked, validating=True)
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
        """Stop here if asked to."""
        self._stop_if_asked(runner, in_step=True)

    def after_val_iter(self, runner, batch_idx, data_batch=None,
                       outputs=None):
        """Stop here if asked to; validation is done anew on resuming."""
        self._stop_if_asked(runner, validating=True)

    def after_val_epoch(self, runner, metrics=None):
        """Stop here if asked to."""
        self._stop_if_asked(runner)

    def after_run(self, runner):
        """Listen no more."""
        listen_no_more()

    def _stop_if_asked(self, runner, in_step=False, validating=False):
        asked = torch.tensor(self._asked or 0)
        if self._group is not None:
            # At the same step in all processes.
            torch.distributed.all_reduce(
                asked, torch.distributed.ReduceOp.MAX, group=self._group)
        if asked:
            self._save(runner, int(asked), in_step, validating)
            raise Stopped

    def _save(self, runner, asked, in_step=False, validating=False):
        for hook in runner.hooks if validating else ():
            if isinstance(hook, EMAHook):
                # It validates with the average in the place of the weights.
                hook.after_val_epoch(runner)
        name = self._checkpoints.save_interrupted(runner, in_step)
        print_log(
            f'Stopped by {signal.Signals(asked).name} after step '
            f'{runner.iter + in_step}, saved as {name}: go on with --resume',
            logger='current')
