"""What a resumed run takes from its checkpoint, and what from its config."""

import copy
import logging
import warnings
from collections import Counter

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from ...errors import UserError

# How torch computes, not what.
_FLAGS = {'params', 'foreach', 'fused', 'capturable', 'differentiable',
          'maximize', 'decoupled_weight_decay'}
_POSITION = {'base_values', 'last_step', 'verbose'}
_SHOWN = 6


class ResumeHook(Hook):
    """Say what of the config a resumed run does not take, or have it taken.

    mm takes the learning rate, the schedule and all other settings of the
    optimizer from the checkpoint, and says nothing. Weights, momentum, epoch
    and step are always those of the checkpoint.

    Args:
        resume_with (str): Where the settings come from: 'checkpoint' or
            'config'. Default: 'checkpoint'.
    """

    def __init__(self, resume_with='checkpoint'):
        self.resume_with = resume_with

    def after_load_checkpoint(self, runner, checkpoint):
        """Compare the checkpoint with the config, before mm loads it."""
        if not isinstance(runner, Runner) or not runner.cfg.get('resume'):
            return
        _tell_length(runner, checkpoint)
        wrappers = _named(runner.optim_wrapper)
        states = checkpoint.get('optimizer')
        if states is not None and not isinstance(
                runner.optim_wrapper, OptimWrapperDict):
            states = {'': states}
        fits = states is not None and states.keys() == wrappers.keys() and (
            all(_fit(wrapper, states[name])
                for name, wrapper in wrappers.items()))
        if states is not None and not fits and (
                self.resume_with == 'checkpoint'):
            raise UserError(
                'the checkpoint is of another optimizer, or of other groups '
                'of parameters, than optim_wrapper builds: resume with the '
                'config it was trained with, or give --resume-with config '
                'to go on with a new optimizer')
        kept = [text for name, wrapper in wrappers.items()
                for text in _settings(name, wrapper, states[name])
                ] if fits else []
        same, schedules = _schedules(runner, checkpoint)
        kept += schedules
        if self.resume_with == 'checkpoint' and fits and same:
            if kept:
                _log(f'kept from the checkpoint, against the config: '
                     f'{_some(kept)}. To take them from the config, give '
                     '--resume-with config')
            return
        why = ('' if self.resume_with == 'config' else
               ', as the checkpoint has no optimizer' if states is None else
               ', as the checkpoint has other types of schedules')
        _log('learning rate, schedule and all settings of the optimizer are '
             f'taken from the config{why}'
             + (f'; the checkpoint has {_some(kept)}' if kept else '')
             + ('' if fits else '; the optimizer begins without momentum'))
        _take_config(runner, checkpoint, wrappers, states if fits else None)


def _named(wrapper):
    """Optimizers by name, '' for the only one."""
    if isinstance(wrapper, OptimWrapperDict):
        return dict(wrapper.items())
    return {'': wrapper}


def _fit(wrapper, state):
    """Whether the state is of such an optimizer."""
    groups, others = wrapper.optimizer.param_groups, state['param_groups']
    return len(groups) == len(others) and all(
        len(group['params']) == len(other['params'])
        and _hyper(group) == _hyper(other)
        for group, other in zip(groups, others))


def _hyper(group):
    return {key for key in group
            if key not in _FLAGS and not key.startswith('initial_')}


def _settings(name, wrapper, state):
    """Settings of an optimizer that differ."""
    option = f'optim_wrapper.{name}.optimizer'.replace('..', '.')
    groups = wrapper.optimizer.param_groups
    for key in sorted(_hyper(groups[0])):
        pairs = [(other.get(f'initial_{key}', other[key]),
                  group.get(f'initial_{key}', group[key]))
                 for group, other in zip(groups, state['param_groups'])]
        different = [pair for pair in pairs if _differ(*pair)]
        if different:
            some = (f' in {len(different)} of {len(pairs)} groups'
                    if len(different) < len(pairs) else '')
            yield f'{option}.{key} {_against(*different[0])}{some}'


def _differ(then, now):
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return list(then) != list(now)
    try:
        return bool(then != now)
    except (RuntimeError, ValueError):  # tensors and arrays
        return False


def _against(then, now):
    if isinstance(then, Counter) and isinstance(now, Counter):  # milestones
        then, now = sorted(then.elements()), sorted(now.elements())
    return f'{then!r:.60} (config: {now!r:.60})'


def _some(texts):
    more = len(texts) - _SHOWN
    return ', '.join(texts[:_SHOWN]) + (
        f' and {more} more' if more > 0 else '')


def _flat(schedulers):
    """Schedulers, or states of them, of all optimizers, with their names."""
    if isinstance(schedulers, dict):
        return [(f'param_scheduler.{name}[{place}]', one)
                for name, some in schedulers.items()
                for place, one in enumerate(some)]
    return [(f'param_scheduler[{place}]', one)
            for place, one in enumerate(schedulers or ())]


def _public(state):
    return {key: value for key, value in state.items()
            if not key.startswith('_') and key not in _POSITION}


def _schedules(runner, checkpoint):
    """Whether schedules are of the same types, and what of them differs."""
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
        f'{name}.{key} {_against(other[key], one[key])}'
        for (name, one), other in zip(now, then) for key in one
        if _differ(other[key], one[key])]


def _tell_length(runner, checkpoint):
    """Say that a run is now longer or shorter."""
    loop = runner.train_loop
    key = 'max_iters' if 'Iter' in type(loop).__name__ else 'max_epochs'
    before = (checkpoint.get('message_hub') or {}).get('runtime_info', {})
    before, now = before.get(key), getattr(loop, key, None)
    if before is not None and before != now:
        _log(f'taken from the config: train_cfg.{key} {now} (checkpoint: '
             f'{before})')


def _take_config(runner, checkpoint, wrappers, states):
    """Put the config's settings, at the step of the checkpoint, into it."""
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
            kept = other['params']
            other.clear()
            other.update(group, params=kept)
        if getattr(wrapper, 'base_param_settings', None) is not None:
            state['base_param_settings'] = copy.deepcopy(
                wrapper.base_param_settings)
    if runner.param_schedulers is None:
        return
    given = runner.param_schedulers
    checkpoint['param_schedulers'] = {
        name: [one.state_dict() for one in some]
        for name, some in given.items()
    } if isinstance(given, dict) else [one.state_dict() for one in given]


def advance(schedulers, epochs, iterations, batches_done=0):
    """Move schedulers from the start of a run to where it is.

    Schedules that follow a metric stay at their start.

    Args:
        schedulers (list): As they are built; they change their optimizer.
        epochs (int): Epochs that are done.
        iterations (int): Steps that are done, of all epochs.
        batches_done (int): Steps of an epoch that is not done.
            Default: 0.
    """
    schedulers = [one for one in schedulers
                  if not getattr(one, 'need_val_args', False)]

    def step(by_epoch):
        for one in schedulers:
            if one.by_epoch == by_epoch and one._global_step < one.end:
                one.step()

    whole = iterations - batches_done if epochs else 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no optimizer has taken a step
        done = 0
        for epoch in range(1, epochs + 1):
            while done < whole * epoch // epochs:
                step(by_epoch=False)
                done += 1
            step(by_epoch=True)
        for _ in range(iterations - done):
            step(by_epoch=False)


def _log(text):
    print_log(f'Resuming: {text}', 'current', logging.WARNING)
