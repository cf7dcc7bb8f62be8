"""Learning rates that fall from the head down to the stem."""

import logging
from numbers import Real

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from ..errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor of optimizers, with layer-wise decay.

    The learning rate of each layer of the backbone is ``layer_decay_rate``
    times that of the layer above it; norms of the backbone's outputs, necks
    and heads have the full one. All else of ``paramwise_cfg`` is as
    mmengine has it, an ``lr_mult`` coming on top. Parameters with the same
    settings share a group.

    Works for every model with a ``backbone`` that has
    :meth:`~mmcyclemlp.CycleNet.get_layer_depth`.

    Args:
        optim_wrapper_cfg (dict): As of mmengine's constructor; the
            optimizer has an ``lr``.
        paramwise_cfg (dict): As there, and ``layer_decay_rate`` (float),
            in (0, 1].

    Raises:
        UserError: The rate, the ``lr`` or the method of the backbone is
            missing, the rate is out of its range, or a parameter that parts
            of the model share would be stepped twice.
    """

    def _validate_cfg(self):
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, Real) or not 0 < rate <= 1:
            raise UserError(
                'layer_decay_rate of paramwise_cfg is a number above 0 and '
                f'up to 1, e.g. 0.8, got {rate!r}')
        if self.base_lr is None:
            raise UserError(
                'layer_decay_rate scales the lr of the optimizer, and it '
                f'has none: {self.optimizer_cfg}')

    def add_params(self, params, module, prefix='', is_dcn_module=None):
        """Add the parameters of a model, grouped by their settings.

        Args:
            params (list[dict]): Groups; changed in place.
            module (nn.Module): The model; or, when mmengine calls this for
                the parts of it, such a part.
            prefix (str): Name of the part. Default: ''.
            is_dcn_module (bool | None): As in mmengine. Default: None.
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
            raise UserError(
                'layer_decay_rate needs a backbone with get_layer_depth, '
                f'such as CycleNet, and that of {type(model).__name__} is '
                f'{"missing" if backbone is None else "a "}'
                f'{"" if backbone is None else type(backbone).__name__}')

    def _decay(self, params, model):
        rate = self.paramwise_cfg['layer_decay_rate']
        names = {parameter: name.replace('_fsdp_wrapped_module.', '')
                 for name, parameter in model.named_parameters()}
        groups = {}
        rates = {}
        for group in params:
            parameter, = group.pop('params')
            name = names.pop(parameter, None)
            if name is None:
                raise UserError(
                    'parts of the model share a parameter of shape '
                    f'{tuple(parameter.shape)}: set bypass_duplicate=True '
                    'in paramwise_cfg')
            depth, number = model.backbone.get_layer_depth(name, 'backbone.')
            scale = rate ** (number - 1 - depth)
            rates[depth] = self.base_lr * scale
            group['lr'] = group.get('lr', self.base_lr) * scale
            key = repr(sorted(group.items()))
            groups.setdefault(key, dict(group, params=[]))
            groups[key]['params'].append(parameter)
        params[:] = groups.values()
        print_log(
            f'Learning rates by layer, from the stem: '
            f'{", ".join(f"{rates[depth]:.3g}" for depth in sorted(rates))} '
            f'({len(params)} parameter groups)', logger='current',
            level=logging.DEBUG)
