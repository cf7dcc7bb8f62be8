"""Parameters and multiply-adds of a model, by part and by op.

This module needs torch alone. mm is imported only for a whole model.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..backbones.cyclenet import CycleMixer, CycleNet
from ..errors import UserError, describe
from ..ops.custom_op import HAS_CUSTOM_OP
from .models import build_model, is_backbone_alone

# Default height and width for the models of a library.
SIZES = dict(mmpretrain=(224, 224), mmdet=(800, 1280), mmseg=(512, 512))


class Counts:
    """The result of :func:`count`.

    Attributes:
        parameters (dict[str, int]): Number of parameters of each part.
        macs (dict[str, Counter]): Multiply-adds of each part, by op.
    """

    def __init__(self):
        self.parameters, self.macs = {}, {}

    def by_op(self) -> Counter:
        """Return the multiply-adds of all parts by op."""
        return sum(self.macs.values(), Counter())

    def total(self) -> tuple[int, int]:
        """Return the parameters and multiply-adds of the whole model."""
        return (sum(self.parameters.values()),
                sum(sum(ops.values()) for ops in self.macs.values()))


def count(cfg: Any, size: tuple[int, int] | None = None,
          executed: bool = False) -> Counts:
    """Count the parameters and multiply-adds of a model for one image.

    The model is built on the meta device, so this needs no memory for it.
    Convolutions and matrix products are counted. A two-stage detector is
    run with 1000 proposals for a box head and 100 for a mask head. An
    auxiliary head has parameters, but is not run.

    Args:
        cfg (Config | dict): Config of an arch, a classifier, a detector or
            a segmentor; changed in place.
        size (tuple[int, int] | None): Height and width of the image in
            pixels. None for the size in :data:`SIZES`.
        executed (bool): Whether to count what the blocks of this package
            execute, in place of the paper's formulas. Default: False.

    Returns:
        Counts: By part and by op.

    Raises:
        UserError: The model cannot be built, or cannot be run on images
            alone; or this torch cannot count what is executed.
    """
    if executed and not HAS_CUSTOM_OP:
        raise UserError('--executed needs torch 2.6 or later, got '
                        f'{torch.__version__}: leave --executed out')
    alone = is_backbone_alone(cfg)
    backbone = cfg.get('model', {}).get('backbone')
    if backbone is None:
        raise UserError('the config has no model.backbone to count')
    if not executed:
        backbone['backend'] = 'plain'
    height, width = size or SIZES.get(
        cfg.get('default_scope'), SIZES['mmpretrain'])
    try:
        with torch.device('meta'), torch.no_grad():
            model = build_model(cfg, 'backbone' if alone else None)
            image = torch.empty(
                1, backbone.get('in_channels', 3), height, width)
            with FlopCounterMode(display=False) as counter:
                attribution = _Attribution(model, counter, executed)
                if alone:
                    model(image)
                elif 'roi_head' in cfg['model']:
                    _run_two_stages(model, image)
                else:
                    model(image, mode='tensor')
                attribution.finish()
    except UserError:
        raise
    except Exception as error:  # of the model: the user's own Python
        raise UserError(
            f'the model cannot be counted at {height}x{width}: '
            f'{describe(error)}') from error
    if executed:
        _split_stages(attribution.result.macs)
    return attribution.result


def _split_stages(macs):
    """Move what is not of the MLPs from the stages to their mixers."""
    fused_mlp = str(torch.ops.mmcyclemlp.residual_mlp)
    for name in [name for name in macs if name.endswith(': MLPs')]:
        ops = macs[name]
        macs[name] = Counter({fused_mlp: ops.pop(fused_mlp, 0)})
        macs[name.replace('MLPs', 'mixers')] = ops


def _run_two_stages(model, image):
    """Run the parts of a two-stage detector, with proposals of any kind."""
    model.rpn_head(model.extract_feat(image))
    for name, proposals in [('bbox', 1000), ('mask', 100)]:
        heads = getattr(model.roi_head, f'{name}_head', None)
        if heads is None:
            continue
        extractors = getattr(model.roi_head, f'{name}_roi_extractor')
        if not isinstance(heads, nn.ModuleList):
            heads, extractors = [heads], [extractors]
        for head, extractor in zip(heads, extractors):
            head(torch.empty(proposals, extractor.out_channels,
                             *extractor.roi_layers[0].output_size))


def _parts(model):
    """Yield the name and module of each part, and then of its parts."""
    children = ([('backbone', model)] if isinstance(model, CycleNet)
                else model.named_children())
    for name, child in children:
        if isinstance(child, CycleNet):
            yield from _backbone_parts(child)
        elif name == 'roi_head':
            yield from child.named_children()
        else:
            yield name, child


def _backbone_parts(backbone):
    yield 'stem', backbone.patch_embed
    for place, module in enumerate(backbone.network):
        stage = place // 2 + 1
        if place % 2:
            yield f'to stage {stage + 1}', module
            continue
        yield f'stage {stage}: MLPs', module
        for block in module:
            for child in block.children():
                if isinstance(child, CycleMixer):
                    yield f'stage {stage}: mixers', child
    for name, module in backbone.named_children():
        if name.startswith('norm'):
            yield 'output norms', module
        elif name == 'head':
            yield 'classifier', module


class _Attribution:
    """Add what a counter counts to the innermost part that runs."""

    def __init__(self, model, counter, executed):
        self.counter, self.seen, self.running = counter, Counter(), ['rest']
        self.result = Counts()
        owners = dict.fromkeys(map(id, model.parameters()), 'rest')
        for name, module in _parts(model):
            if next(module.parameters(), None) is None:
                continue
            self.result.parameters.setdefault(name, 0)
            owners.update(dict.fromkeys(map(id, module.parameters()), name))
            if executed and isinstance(module, CycleMixer):
                continue  # or the block would not be fused
            # mm calls forward() directly, so a hook would not run.
            module.forward = self._credited(name, module.forward)
        for parameter in model.parameters():
            owner = owners[id(parameter)]
            self.result.parameters[owner] = (
                self.result.parameters.get(owner, 0) + parameter.numel())

    def _credited(self, name, forward):
        def run(*args, **kwargs):
            with self._inside(name):
                return forward(*args, **kwargs)

        return run

    @contextmanager
    def _inside(self, name):
        self.finish()
        self.running.append(name)
        yield
        self.finish()
        self.running.pop()

    def finish(self):
        """Add what was counted since the last call to the running part."""
        now = Counter({
            str(op): flops // 2  # a multiply-add is two operations
            for op, flops in self.counter.get_flop_counts().get(
                'Global', {}).items()})
        new = now - self.seen
        self.seen = now
        if new:
            self.result.macs.setdefault(
                self.running[-1], Counter()).update(new)
