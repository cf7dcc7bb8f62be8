"""Checkpoints of training that are whole, and that training continues from."""

import glob
import os
from collections import deque

from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.registry import HOOKS

from ...checkpoint_files import write_whole
from ...errors import UserError
from ..mm_checkpoints import check_readable
from ..randomness import get_rng_state, set_rng_state

INTERRUPTED = 'interrupted.pth'


@register_backend('whole_files')
class WholeFiles(LocalBackend):
    """Files on disks of this machine, there whole or not at all."""

    def put(self, obj, filepath):
        """Write a file, have it read back, and then give it its name.

        Args:
            obj (bytes): A checkpoint.
            filepath (str | Path): Where it belongs. What lies there stays
                until the new file is whole.

        Raises:
            UserError: It cannot be written, or not be read back.
        """
        os.makedirs(os.path.dirname(filepath), exist_ok=True)
        try:
            write_whole(obj, filepath, check_readable)
        except OSError as error:
            raise _cannot_write(filepath, error) from error


def _is_sharded(runner):
    """Whether each process has a part of the optimizer's state."""
    return isinstance(getattr(runner.optim_wrapper, 'optimizer', None),
                      ZeroRedundancyOptimizer)


def _cannot_write(path, error):
    return UserError(
        f'{path} cannot be written: {error.strerror}. The checkpoints before '
        'are whole: mend that, and go on with --resume')


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but a checkpoint is whole and says all.

    The old one is removed after the new one was read back, not before. Each
    holds, as ``progress``, what mm leaves out: states of the random
    generators of every process, gradients that are being accumulated, the
    batches that are done of an epoch, and whether its validation is.

    Args:
        kwargs: As of CheckpointHook.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='whole_files')
        self._progress = None  # to put in the checkpoint that is being saved
        self._place = None     # epoch and step that it is of
        self._resumed = None   # of the checkpoint that training goes on from
        self._before_val = None  # random states of training, meanwhile
        self._validated = False
        self._gathered = None  # of all processes, while metrics are computed
        self._saved = None     # step, and whether validated

    # What is saved.

    def _save_checkpoint_with_step(self, runner, step, meta):
        kept = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0:
            if kept[-1:] != [step]:
                kept.append(step)
            # With what is about to be removed: should that not come to pass,
            # mm does so when training goes on.
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
        # mm removes what it knows of before it saves.
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
        """Save the best checkpoint; validation needs not be done again."""
        self._validated = True
        super().after_val_epoch(runner, metrics)

    def save_interrupted(self, runner, in_step):
        """Save a run that is about to end before its time.

        Args:
            runner (Runner): The runner.
            in_step (bool): Whether the hooks of a training step are being
                called, rather than those of validation.

        Returns:
            str: Name of the checkpoint that has all that was done.
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

    def gather(self, runner):
        """Let the main process save alone until validation is over.

        Args:
            runner (Runner): The runner; this is called in all processes.

        Returns:
            bool: Whether it can. It cannot where each process has a part of
            the optimizer's state.
        """
        if _is_sharded(runner):
            return False
        self._gathered = all_gather_object(self._own_progress(runner))
        return True

    def _own_progress(self, runner):
        """What is not the same in all processes."""
        return dict(
            # Of training, where validation is going on.
            rng=self._before_val or get_rng_state(),
            gradients={
                name: parameter.grad.cpu()
                for name, parameter in runner.model.named_parameters()
                if parameter.grad is not None
            })

    def _gather_progress(self, runner):
        """What is the same in all processes, and a list of what is not."""
        loop = runner.train_loop
        progress = dict(
            processes=self._gathered or all_gather_object(
                self._own_progress(runner)),
            batches_done=getattr(loop, 'batches_done', 0),
            batches_per_epoch=len(loop.dataloader),
            validated=self._validated)
        if self.save_optimizer and not is_main_process() and (
                _is_sharded(runner)):
            # The main process waits for it when it saves.
            runner.optim_wrapper.optimizer.consolidate_state_dict()
        return progress

    def before_save_checkpoint(self, runner, checkpoint):
        """Add what mm leaves out, and what FlexibleRunner miscounts."""
        checkpoint['meta'].update(self._place or {})
        if self._progress is not None:
            checkpoint['progress'] = self._progress

    def _remove(self, name):
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    # What training goes on from.

    def after_load_checkpoint(self, runner, checkpoint):
        """Take out what mm does not know; it is used when all is loaded."""
        self._resumed = checkpoint.pop('progress', None)

    def before_train(self, runner):
        """Clear up, and do the validation that the checkpoint waits for."""
        super().before_train(runner)
        if is_main_process():
            for path in glob.glob(os.path.join(
                    glob.escape(self.out_dir), '.*.pth.*.part')):
                os.remove(path)  # of a save that was killed
        loop, progress = runner.train_loop, self._resumed
        if loop.iter == 0 or not hasattr(loop, 'validation_is_due'):
            return
        if progress is None:
            print_log('The checkpoint has no states of random generators: '
                      'training goes on from it, but not to the same bits as '
                      'if it had not been left', logger='current')
        else:
            self._find_place(loop, progress)
        if runner.val_loop is not None and loop.validation_is_due() and not (
                progress and progress['validated']):
            runner.val_loop.run()

    def _find_place(self, loop, progress):
        done, number = progress['batches_done'], len(loop.dataloader)
        if done and number != progress['batches_per_epoch']:
            raise UserError(
                f'the checkpoint is from the middle of an epoch of '
                f'{progress["batches_per_epoch"]} batches in each process, '
                f'and now it has {number}: resume with the same data, '
                'batch_size and number of processes, or from the checkpoint '
                'of an epoch')
        loop.batches_done = done

    def before_train_epoch(self, runner):
        """Put the states back, last of all that is done before a step."""
        progress, self._resumed = self._resumed, None
        if not progress or runner.iter == 0:
            return
        processes = progress['processes']
        if len(processes) != runner.world_size:
            print_log(
                f'The checkpoint is of {len(processes)} processes, and now '
                f'there are {runner.world_size}: training goes on, but not '
                'to the same bits', logger='current')
            return
        own = processes[runner.rank]
        for name, parameter in runner.model.named_parameters():
            if name in own['gradients']:
                parameter.grad = own['gradients'][name].to(parameter.device)
        set_rng_state(own['rng'])

    # What validation draws must not be missed in training.

    def before_val(self, runner):
        """Keep the states of the random generators."""
        self._before_val = get_rng_state()

    def after_val(self, runner):
        """Put them back."""
        set_rng_state(self._before_val)
        self._before_val = self._gathered = None

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """Save, if it is time."""
        self._validated = False
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner):
        """Save, if it is time."""
        self._validated = False
        super().after_train_epoch(runner)
