"""Layer-wise decay of learning rates."""

from __future__ import annotations

from numbers import Real

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor of optimizers, with layer-wise decay.

    The learning rate of each layer of the backbone is ``layer_decay_rate``
    times that of the next layer. The norms of the backbone's outputs, necks
    and heads have the full rate. The other options of ``paramwise_cfg`` work
    as in mmengine; an ``lr_mult`` multiplies the decayed rate. Parameters
    with the same settings share a group.

    It works for every model with a ``backbone`` that has
    :meth:`~mmcyclemlp.CycleNet.get_layer_depth`.

    Args:
        optim_wrapper_cfg (dict): See mmengine's constructor. The optimizer
            must have an ``lr``.
        paramwise_cfg (dict): See mmengine's constructor, and
            ``layer_decay_rate`` (float), in (0, 1].

    Raises:
        UserError: The rate is missing or out of its range, the optimizer
            has no ``lr``, the backbone has no ``get_layer_depth``, or parts
            of the model share a parameter, which would be stepped twice.
    """

    def _validate_cfg(self):
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, Real) or not 0 < rate <= 1:
            raise UserError(
                'paramwise_cfg.layer_decay_rate must be a number above 0 and '
                f'up to 1, e.g. 0.8, got {rate!r}')
        if self.base_lr is None:
            raise UserError(
                'layer_decay_rate scales the lr of the optimizer, which has '
                f'none: {self.optimizer_cfg}')

    def add_params(self, params: list[dict], module: nn.Module,
                   prefix: str = '', is_dcn_module: bool | None = None,
                   ) -> None:
        """Add the parameters of a model, grouped by their settings.

        Args:
            params (list[dict]): Groups; changed in place.
            module (nn.Module): The model. mmengine also calls this method
                for each part of it.
            prefix (str): Name of the part. Default: ''.
            is_dcn_module (bool | None): See mmengine. Default: None.
        """
        if not prefix:
            self._check_model(module)
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:
            self._decay(params, module)

    @staticmethod
    def _check_model(model):
        backbone = getattr(model, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            has = ('no backbone' if backbone is None
                   else f'a {type(backbone).__name__}')
            raise UserError(
                'layer_decay_rate needs a backbone with get_layer_depth, '
                f'such as CycleNet, but {type(model).__name__} has {has}')

    def _decay(self, params, model):
        rate = self.paramwise_cfg['layer_decay_rate']
        names = {parameter: name.replace('_fsdp_wrapped_module.', '')
                 for name, parameter in model.named_parameters()}
        groups = {}
        for group in params:
            parameter, = group.pop('params')
            name = names.pop(parameter, None)
            if name is None:
                raise UserError(
                    'parts of the model share a parameter of shape '
                    f'{tuple(parameter.shape)}: set bypass_duplicate=True '
                    'in paramwise_cfg')
            depth, number = model.backbone.get_layer_depth(name, 'backbone.')
            group['lr'] = group.get('lr', self.base_lr) * (
                rate ** (number - 1 - depth))
            key = repr(sorted(group.items()))
            groups.setdefault(key, dict(group, params=[]))
            groups[key]['params'].append(parameter)
        params[:] = groups.values()
