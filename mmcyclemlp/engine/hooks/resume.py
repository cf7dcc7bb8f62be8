"""Choose the settings of a resumed run: from its checkpoint or its config."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from ...errors import UserError

# How torch computes a step, which does not change its result.
_FLAGS = {'params', 'foreach', 'fused', 'capturable', 'differentiable',
          'maximize', 'decoupled_weight_decay'}
_POSITION = {'base_values', 'last_step', 'verbose'}
_SHOWN = 6


class ResumeHook(Hook):
    """Log which settings of the config a resumed run ignores, or use them.

    mm loads the learning rate, the schedule and all other settings of the
    optimizer from the checkpoint without a message. Weights, momentum, epoch
    and step always come from the checkpoint.

    Args:
        resume_with (str): Source of the settings, 'checkpoint' or 'config'.
            Default: 'checkpoint'.

    Raises:
        UserError: The checkpoint is of another optimizer, and
            ``resume_with`` is 'checkpoint'.
    """

    def __init__(self, resume_with: str = 'checkpoint') -> None:
        self.resume_with = resume_with

    def after_load_checkpoint(self, runner: Runner,
                              checkpoint: dict) -> None:
        """Compare the checkpoint with the config, before mm loads it."""
        if not isinstance(runner, Runner) or not runner.cfg.get('resume'):
            return
        _log_length(runner, checkpoint)
        wrappers = _by_name(runner.optim_wrapper)
        states = checkpoint.get('optimizer')
        if states is not None and not isinstance(
                runner.optim_wrapper, OptimWrapperDict):
            states = {'': states}
        fits = states is not None and states.keys() == wrappers.keys() and (
            all(_fits(wrapper, states[name])
                for name, wrapper in wrappers.items()))
        if states is not None and not fits and (
                self.resume_with == 'checkpoint'):
            raise UserError(
                'the checkpoint is of another optimizer, or of other groups '
                'of parameters, than optim_wrapper builds: resume with the '
                'config it was trained with, or give --resume-with config '
                'to start with a new optimizer')
        different = [
            text for name, wrapper in wrappers.items()
            for text in _compare_settings(name, wrapper, states[name])
        ] if fits else []
        same_types, schedules = _compare_schedules(runner, checkpoint)
        different += schedules
        if self.resume_with == 'checkpoint' and fits and same_types:
            if different:
                _log('the checkpoint overrides settings of the config: '
                     f'{_shorten(different)}. To use those of the config, '
                     'give --resume-with config')
            return
        why = ('' if self.resume_with == 'config' else
               ', as the checkpoint has no optimizer' if states is None else
               ', as the checkpoint has other types of schedules')
        _log('learning rate, schedule and all settings of the optimizer are '
             f'taken from the config{why}'
             + (f'; the checkpoint has {_shorten(different)}'
                if different else '')
             + ('' if fits else '; the optimizer starts without momentum'))
        _use_config(runner, checkpoint, wrappers, states if fits else None)


def _by_name(wrapper: OptimWrapper | OptimWrapperDict) -> dict:
    """Return the optimizers by name; the name of a single one is ''."""
    if isinstance(wrapper, OptimWrapperDict):
        return dict(wrapper.items())
    return {'': wrapper}


def _fits(wrapper: OptimWrapper, state: dict) -> bool:
    """Return whether a state has the groups and settings of an optimizer."""
    groups, others = wrapper.optimizer.param_groups, state['param_groups']
    return len(groups) == len(others) and all(
        len(group['params']) == len(other['params'])
        and _settings(group) == _settings(other)
        for group, other in zip(groups, others))


def _settings(group: dict) -> set:
    return {key for key in group
            if key not in _FLAGS and not key.startswith('initial_')}


def _compare_settings(name: str, wrapper: OptimWrapper, state: dict,
                      ) -> list[str]:
    """Return the settings of an optimizer that differ from its state."""
    option = f'optim_wrapper.{name}.optimizer'.replace('..', '.')
    groups = wrapper.optimizer.param_groups
    found = []
    for key in sorted(_settings(groups[0])):
        pairs = [(other.get(f'initial_{key}', other[key]),
                  group.get(f'initial_{key}', group[key]))
                 for group, other in zip(groups, state['param_groups'])]
        different = [pair for pair in pairs if _differ(*pair)]
        if different:
            some = (f' in {len(different)} of {len(pairs)} groups'
                    if len(different) < len(pairs) else '')
            found.append(f'{option}.{key} {_both(*different[0])}{some}')
    return found


def _differ(then, now):
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return list(then) != list(now)
    try:
        return bool(then != now)
    except (RuntimeError, ValueError):  # tensors and arrays
        return False


def _both(then, now):
    if isinstance(then, Counter) and isinstance(now, Counter):  # milestones
        then, now = sorted(then.elements()), sorted(now.elements())
    return f'{then!r:.60} (config: {now!r:.60})'


def _shorten(texts):
    more = len(texts) - _SHOWN
    return ', '.join(texts[:_SHOWN]) + (
        f' and {more} more' if more > 0 else '')


def _flat(schedulers):
    """Return names and schedulers, or their states, of all optimizers."""
    if isinstance(schedulers, dict):
        return [(f'param_scheduler.{name}[{place}]', one)
                for name, some in schedulers.items()
                for place, one in enumerate(some)]
    return [(f'param_scheduler[{place}]', one)
            for place, one in enumerate(schedulers or ())]


def _public(state):
    return {key: value for key, value in state.items()
            if not key.startswith('_') and key not in _POSITION}


def _compare_schedules(runner: Runner, checkpoint: dict,
                       ) -> tuple[bool, list[str]]:
    """Return whether schedules have the same types, and what differs."""
    now = [(name, _public(one.state_dict()))
           for name, one in _flat(runner.param_schedulers)]
    then = [_public(one)
            for _, one in _flat(checkpoint.get('param_schedulers'))]
    if len(now) != len(then) or any(
            one.keys() != other.keys()
            or one['param_name'] != other['param_name']
            for (_, one), other in zip(now, then)):
        return False, []
    return True, [
        f'{name}.{key} {_both(other[key], one[key])}'
        for (name, one), other in zip(now, then) for key in one
        if _differ(other[key], one[key])]


def _log_length(runner: Runner, checkpoint: dict) -> None:
    """Log that the length of a run has changed."""
    loop = runner.train_loop
    key = ('max_iters' if isinstance(loop, IterBasedTrainLoop)
           else 'max_epochs')
    then = (checkpoint.get('message_hub') or {}).get('runtime_info', {})
    then, now = then.get(key), getattr(loop, key, None)
    if then is not None and then != now:
        _log(f'taken from the config: train_cfg.{key} {now} (checkpoint: '
             f'{then})')


def _use_config(runner: Runner, checkpoint: dict, wrappers: dict,
                states: dict | None) -> None:
    """Put the settings of the config into the checkpoint.

    Schedules are moved to the step of the checkpoint.
    """
    progress = checkpoint.get('progress') or {}
    advance([one for _, one in _flat(runner.param_schedulers)],
            checkpoint['meta']['epoch'], checkpoint['meta']['iter'],
            progress.get('batches_done', 0))
    if states is None:
        checkpoint.pop('optimizer', None)
    for name, state in (states or {}).items():
        wrapper = wrappers[name]
        for group, other in zip(wrapper.optimizer.param_groups,
                                state['param_groups']):
            params = other['params']
            other.clear()
            other.update(group, params=params)
        if getattr(wrapper, 'base_param_settings', None) is not None:
            state['base_param_settings'] = copy.deepcopy(
                wrapper.base_param_settings)
    schedulers = runner.param_schedulers
    if schedulers is not None:
        checkpoint['param_schedulers'] = {
            name: [one.state_dict() for one in some]
            for name, some in schedulers.items()
        } if isinstance(schedulers, dict) else [
            one.state_dict() for one in schedulers]


def advance(schedulers: list, epochs: int, iterations: int,
            batches_done: int = 0) -> None:
    """Move schedulers from the start of a run to a later step.

    Schedules that depend on a metric stay at their start.

    Args:
        schedulers (list): New schedulers; they change their optimizer.
        epochs (int): Number of finished epochs.
        iterations (int): Number of finished steps in all epochs.
        batches_done (int): Number of finished steps in the current epoch.
            Default: 0.
    """
    schedulers = [one for one in schedulers
                  if not getattr(one, 'need_val_args', False)]

    def step(by_epoch):
        for one in schedulers:
            if one.by_epoch == by_epoch and one._global_step < one.end:
                one.step()

    in_epochs = iterations - batches_done if epochs else 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer has done no step
        done = 0
        for epoch in range(1, epochs + 1):
            while done < in_epochs * epoch // epochs:
                step(by_epoch=False)
                done += 1
            step(by_epoch=True)
        for _ in range(iterations - done):
            step(by_epoch=False)


def _log(text):
    print_log(f'Resuming: {text}', 'current', logging.WARNING)
