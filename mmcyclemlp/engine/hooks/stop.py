"""Training that is asked to end ends at a step, and saved."""

import os
import signal
import threading
import time

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ..errors import Stopped
from .checkpoint import WholeCheckpointHook

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@HOOKS.register_module()
class StopHook(Hook):
    """At SIGTERM or SIGINT, finish the step, save, and end.

    Of training as of validation. Asked once more a second or more later, the
    process ends at once.
    Needs a WholeCheckpointHook beside it.

    Raises:
        Stopped: When all is saved; ends Python with exit code 75.
    """

    priority = 'LOWEST'

    def before_run(self, runner):
        """Listen to signals; what came before ended the process."""
        self._asked = None
        self._process = os.getpid()
        self._checkpoints = next(
            hook for hook in runner.hooks
            if isinstance(hook, WholeCheckpointHook))
        # On the CPU, so that a step needs not wait for its GPU.
        self._group = (torch.distributed.new_group(backend='gloo')
                       if is_distributed() else None)
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask)
                            for number in _SIGNALS}

    def _ask(self, number, frame):
        if os.getpid() != self._process:
            return  # a worker of the data loader: the batch is needed
        if self._asked is not None:
            if time.monotonic() - self._since < 1:
                return  # the same, by way of torchrun
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._process, number)
        self._asked, self._since = number, time.monotonic()
        print_log(f'{signal.Signals(number).name}: the step is finished and '
                  'saved; once more ends at once', logger='current')

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
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop_if_asked(self, runner, in_step=False, validating=False):
        asked = torch.tensor(self._asked or 0)
        if self._group is not None:
            # At the same step in all processes.
            torch.distributed.all_reduce(
                asked, torch.distributed.ReduceOp.MAX, group=self._group)
        if asked == 0:
            return
        for hook in runner.hooks if validating else ():
            if isinstance(hook, EMAHook):
                # It validates with the average in the place of the weights.
                hook.after_val_epoch(runner)
        name = self._checkpoints.save_interrupted(runner, in_step)
        print_log(
            f'Stopped by {signal.Signals(int(asked)).name} after step '
            f'{runner.iter + in_step}, saved as {name}: go on with --resume',
            logger='current')
        raise Stopped
