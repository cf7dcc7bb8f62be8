"""FSDP with the checkpoints of other runs."""

from mmengine._strategy import FSDPStrategy
from mmengine.dist import all_gather_object
from mmengine.registry import FUNCTIONS, STRATEGIES
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType

from ..backbones.cyclenet import CycleBlock


@FUNCTIONS.register_module()
def wrap_blocks(module, recurse, nonwrapped_numel):
    """Shard CycleNet block by block: an ``auto_wrap_policy`` of FSDP.

    mm calls ``predict`` of heads, which FSDP does not see. So only blocks
    are wrapped.

    Args:
        module (nn.Module): The module to wrap or not.
        recurse (bool): Whether FSDP asks about the children of the module.
        nonwrapped_numel (int): Number of parameters; ignored.

    Returns:
        bool: True for blocks, and for all children to be visited.
    """
    return recurse or isinstance(module, CycleBlock)


@STRATEGIES.register_module()
class WholeFSDPStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy that saves one checkpoint of plain tensors.

    Args:
        model_wrapper (dict | None): See FSDPStrategy. Default: None.
        state_dict_cfg (str | dict): See FSDPStrategy. Default: 'full', which
            saves one checkpoint of the whole model.
        kwargs: Other arguments of FSDPStrategy.
    """

    def __init__(self, *, model_wrapper=None, state_dict_cfg='full',
                 **kwargs):
        super().__init__(model_wrapper=model_wrapper,
                         state_dict_cfg=state_dict_cfg, **kwargs)

    def model_state_dict(self):
        """Return the weights by name.

        They are detached: FSDP sets an attribute on each tensor, which would
        be pickled as an object, and the safe reader refuses it.
        """
        state = super().model_state_dict()
        for name, value in state.items():
            state[name] = value.detach()
        return state

    def optim_state_dict(self):
        """Return the state of the whole optimizer, by parameter names.

        It is gathered one kind ('exp_avg', ...) at a time, since on a CPU
        torch uses one buffer for all kinds.
        """
        optimizer = self.optim_wrapper.optimizer
        local = optimizer.state_dict()
        kinds = all_gather_object(
            {kind for values in local['state'].values() for kind in values})
        whole = {}
        for kind in sorted(set().union(*kinds)):
            part = {
                key: {kind: values[kind]}
                for key, values in local['state'].items() if kind in values}
            gathered = FullyShardedDataParallel.optim_state_dict(
                self.model, optimizer, dict(local, state=part))
            if not whole:
                whole = dict(gathered, state={})
            for name, values in gathered.get('state', {}).items():
                whole['state'].setdefault(name, {}).update(values)
        return whole

    def load_optim_state_dict(self, state_dict):
        """Load the part of this process of the optimizer's state.

        mmengine passes the arguments in the order of torch 2.0.

        Args:
            state_dict (dict): State from :meth:`optim_state_dict`, or of a
                run without FSDP, with numbers of parameters.
        """
        optimizer = self.optim_wrapper.optimizer
        state_dict = FullyShardedDataParallel.rekey_optim_state_dict(
            state_dict, OptimStateKeyType.PARAM_NAME, self.model,
            optim=optimizer)
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(
                self.model, optimizer, state_dict))
