"""FSDP whose checkpoints are as those of other runs."""

from mmengine._strategy import FSDPStrategy
from mmengine.registry import STRATEGIES

from .errors import UserError


@STRATEGIES.register_module()
class WholeFSDPStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy, with one checkpoint that is read safely.

    The model is one unit, as blocks read the weights of their layers
    themselves, which therefore cannot be gathered layer by layer.

    Args:
        model_wrapper (dict | None): As there, but without
            ``auto_wrap_policy``. Default: None.
        state_dict_cfg (str | dict): As there, but one whole checkpoint is
            the default. Default: 'full'.
        kwargs: As there.

    Raises:
        UserError: There is an ``auto_wrap_policy``.
    """

    def __init__(self, *, model_wrapper=None, state_dict_cfg='full',
                 **kwargs):
        if (model_wrapper or {}).get('auto_wrap_policy') is not None:
            raise UserError(
                'strategy.model_wrapper: leave auto_wrap_policy '
                f'({model_wrapper["auto_wrap_policy"]}) out: blocks of '
                'CycleNet read the weights of their layers themselves')
        super().__init__(model_wrapper=model_wrapper,
                         state_dict_cfg=state_dict_cfg, **kwargs)

    def model_state_dict(self):
        """The weights by name, without the mark that FSDP sets on each.

        It would be pickled as an object, which safe reading refuses.
        """
        state = super().model_state_dict()
        for name, value in state.items():
            state[name] = value.detach()
        return state

    def load_optim_state_dict(self, state_dict):
        """Refuse to resume.

        mmengine gives torch the arguments in the order of torch 2.0; given
        in today's, training goes on with other steps than without a break.

        Raises:
            UserError: Always.
        """
        raise UserError(
            'a run with FSDP cannot be resumed, as its steps would be others '
            'than without a break: give the checkpoint as load_from '
            'to go on from its weights, or train with '
            'ZeroRedundancyOptimizer, which resumes')
