"""Save checkpoints that are complete, and resume training from them."""

from __future__ import annotations

import glob
import os
from collections import deque
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...checkpoint_files import write_whole
from ...errors import UserError
from ..mm_checkpoints import check_readable
from ..randomness import get_rng_state, set_rng_state

INTERRUPTED = 'interrupted.pth'


@register_backend('whole_files')
class WholeFiles(LocalBackend):
    """mmengine's backend of local files, for files that are complete."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file under another name, read it back, and rename it.

        Args:
            obj (bytes): A checkpoint.
            filepath (str | Path): Path of the file. An old file stays until
                the new one is complete.

        Raises:
            UserError: The file cannot be written or read back.
        """
        os.makedirs(os.path.dirname(filepath), exist_ok=True)
        try:
            write_whole(obj, filepath, check_readable)
        except OSError as error:
            raise _cannot_write(filepath, error) from error


def _is_sharded(runner):
    """Return whether each process has a part of the optimizer's state."""
    return isinstance(getattr(runner.optim_wrapper, 'optimizer', None),
                      ZeroRedundancyOptimizer)


def _cannot_write(path, error):
    return UserError(
        f'{path} cannot be written: {error.strerror}. The checkpoints before '
        'are complete: fix this, and continue with --resume')


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook whose checkpoints are complete.

    An old checkpoint is removed only after the new one was read back. Each
    checkpoint has an entry ``progress`` with what mm does not save: the
    states of the random generators of every process, gradients that are
    being accumulated, the finished batches of an epoch, and whether its
    validation is finished.

    Args:
        kwargs: Arguments of CheckpointHook.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='whole_files')
        # Of the checkpoint that is being saved: its `progress`, and its
        # epoch and step.
        self._progress = self._place = None
        self._resumed = None   # `progress` of the checkpoint to resume from
        # During validation: random states of training, and, while metrics
        # are computed, the progress of all processes.
        self._before_val = self._gathered = None
        self._validated = False
        self._saved = None     # step of the last save, and whether validated

    # Save.

    def _save_checkpoint_with_step(self, runner, step, meta):
        kept = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0:
            if kept[-1:] != [step]:
                kept.append(step)
            # With the checkpoint that is removed next. If the run is killed
            # before, mm removes it in the resumed run.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        number, self.max_keep_ckpts = self.max_keep_ckpts, -1
        self._progress = self._gather_progress(runner)
        self._place = dict(meta)
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        except OSError as error:  # of last_checkpoint
            raise _cannot_write(runner.work_dir, error) from error
        finally:
            self.max_keep_ckpts = number
            self._progress = self._place = None
        self._saved = meta['iter'], self._validated
        if number > 0:
            for old in kept[:-number]:
                self._remove(self.filename_tmpl.format(old))
            self.keep_ckpt_ids = deque(kept[-number:], number)
        self._remove(INTERRUPTED)

    def _save_best_checkpoint(self, runner, metrics):
        if not self.save_best:
            return
        one = len(self.key_indicators) == 1
        before = ({None: self.best_ckpt_path} if one
                  else dict(self.best_ckpt_path_dict))
        self._place = dict(epoch=runner.epoch, iter=runner.iter)
        # Hide the old one from mm, which would remove it before it saves.
        self._set_best(dict.fromkeys(before), one)
        super()._save_best_checkpoint(runner, metrics)
        self._place = None
        now = ({None: self.best_ckpt_path} if one
               else self.best_ckpt_path_dict)
        for key, old in before.items():
            if old and now[key] and old != now[key]:
                self._remove(old)
        self._set_best({key: now[key] or old for key, old in before.items()},
                       one)

    def _set_best(self, paths, one):
        if one:
            self.best_ckpt_path = paths[None]
        else:
            self.best_ckpt_path_dict = paths

    def after_val_epoch(self, runner, metrics):
        """Save the best checkpoint; a resumed run does not validate again."""
        self._validated = True
        super().after_val_epoch(runner, metrics)

    def save_interrupted(self, runner: Runner, in_step: bool) -> str:
        """Save a run that is about to stop.

        Args:
            runner (Runner): The runner.
            in_step (bool): Whether this is called from a hook of a training
                step, not from one of validation.

        Returns:
            str: Name of the checkpoint of the last step.
        """
        done = runner.iter + in_step
        if self._saved == (done, self._validated):
            return os.path.basename(self.last_ckpt)
        self._progress = self._gather_progress(runner)
        self._place = dict(epoch=runner.epoch, iter=done)
        runner.save_checkpoint(
            self.out_dir, INTERRUPTED, self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(self._place),
            backend_args=self.backend_args)
        self._progress = self._place = None
        return INTERRUPTED

    def gather(self, runner: Runner) -> bool:
        """Gather what the main process needs to save without the others.

        Call it in all processes. It is valid until the end of validation.

        Args:
            runner (Runner): The runner.

        Returns:
            bool: False if each process has a part of the optimizer's state,
            so that the main process cannot save without the others.
        """
        if _is_sharded(runner):
            return False
        self._gathered = all_gather_object(self._own_progress(runner))
        return True

    def _own_progress(self, runner):
        """Return what differs between processes."""
        return dict(
            # During validation the states of training.
            rng=self._before_val or get_rng_state(),
            gradients={
                name: parameter.grad.cpu()
                for name, parameter in runner.model.named_parameters()
                if parameter.grad is not None
            })

    def _gather_progress(self, runner):
        """Return the progress of the run, with a list of all processes."""
        loop = runner.train_loop
        progress = dict(
            processes=self._gathered or all_gather_object(
                self._own_progress(runner)),
            batches_done=getattr(loop, 'batches_done', 0),
            batches_per_epoch=len(loop.dataloader),
            validated=self._validated)
        if self.save_optimizer and not is_main_process() and (
                _is_sharded(runner)):
            # The main process calls it when it saves, and waits for all.
            runner.optim_wrapper.optimizer.consolidate_state_dict()
        return progress

    def before_save_checkpoint(self, runner, checkpoint):
        """Add the progress, and the step, which FlexibleRunner miscounts."""
        checkpoint['meta'].update(self._place or {})
        if self._progress is not None:
            checkpoint['progress'] = self._progress

    def _remove(self, name):
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    # Resume.

    def after_load_checkpoint(self, runner, checkpoint):
        """Keep the progress until mm has loaded the checkpoint."""
        self._resumed = checkpoint.pop('progress', None)

    def before_train(self, runner):
        """Remove partial files, and do the validation that is due."""
        super().before_train(runner)
        if is_main_process():
            for path in glob.glob(os.path.join(
                    glob.escape(self.out_dir), '.*.pth.*.part')):
                os.remove(path)  # the run was killed while it saved
        loop, progress = runner.train_loop, self._resumed
        if loop.iter == 0 or not hasattr(loop, 'validation_is_due'):
            return
        if progress is None:
            print_log('The checkpoint has no states of random generators: '
                      'training continues from it, but the weights differ '
                      'from those of a run without interruption',
                      logger='current')
        else:
            self._set_batches_done(loop, progress)
        if runner.val_loop is not None and loop.validation_is_due() and not (
                progress and progress['validated']):
            runner.val_loop.run()

    def _set_batches_done(self, loop, progress):
        done, number = progress['batches_done'], len(loop.dataloader)
        if done and number != progress['batches_per_epoch']:
            raise UserError(
                f'the checkpoint is from the middle of an epoch of '
                f'{progress["batches_per_epoch"]} batches in each process, '
                f'but now it has {number}: resume with the same data, '
                'batch_size and number of processes, or from the checkpoint '
                'of an epoch')
        loop.batches_done = done

    def before_train_epoch(self, runner):
        """Restore gradients and random states just before the first step."""
        progress, self._resumed = self._resumed, None
        if not progress or runner.iter == 0:
            return
        processes = progress['processes']
        if len(processes) != runner.world_size:
            print_log(
                f'The checkpoint is of {len(processes)} processes, but this '
                f'run has {runner.world_size}: training continues, but the '
                'weights differ from those of a run without interruption',
                logger='current')
            return
        own = processes[runner.rank]
        for name, parameter in runner.model.named_parameters():
            if name in own['gradients']:
                parameter.grad = own['gradients'][name].to(parameter.device)
        set_rng_state(own['rng'])

    # Validation must not change the random states of training.

    def before_val(self, runner):
        """Store the states of the random generators."""
        self._before_val = get_rng_state()

    def after_val(self, runner):
        """Restore them."""
        set_rng_state(self._before_val)
        self._before_val = self._gathered = None

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """Save if a checkpoint is due."""
        self._validated = False
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner):
        """Save if a checkpoint is due."""
        self._validated = False
        super().after_train_epoch(runner)
