"""Networks as ONNX, torch.export or TorchScript, for images of any size."""

import copy
import io
import logging
import os
import warnings
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..backbones import CycleNet
from ..backbones.checkpoint import CheckpointError, load_pretrained
from ..backbones.files import write_whole
from .errors import UserError
from .loading import check_fit, read_whole

PARTS = ('backbone', 'neck', 'whole')
# By the ending of the file.
FORMATS = {'.onnx': 'ONNX', '.pt2': 'torch.export', '.pt': 'TorchScript'}
# The first with LayerNormalization as one operator.
OPSET = 17
TOLERANCE = 1e-4


class Exportable(nn.Module):
    """A part of a model, from images to a flat tuple of tensors.

    Args:
        model (nn.Module): Backbone, classifier, detector or segmentor.
        part (str): 'backbone', 'neck' (with what is before it) or 'whole':
            logits of a classifier; of a segmentor, at the size of the
            image; of a one-stage detector what its head gives.
        normalize (tuple | None): Mean and standard deviation of three
            channels, to take RGB of 0 to 255 as input; None for an image
            that is normalised already. Default: None.

    Inputs:
        image (Tensor): (B, 3, H, W).

    Raises:
        UserError: The model has no such part.
    """

    def __init__(self, model, part, normalize=None):
        super().__init__()
        self.model, self.part = model, part
        self.normalize = normalize is not None
        if self.normalize:
            for name, values in zip(('mean', 'std'), normalize):
                self.register_buffer(name, torch.tensor(
                    values, dtype=torch.float32).view(-1, 1, 1))
        self.backbone = getattr(model, 'backbone', model)
        if part == 'neck' and getattr(model, 'neck', None) is None:
            raise UserError('--part neck: the model has no neck')
        if part == 'whole':
            self.run = self._find_run()

    def _find_run(self):
        for name, run in (('bbox_head', self._detect),
                          ('decode_head', self._segment)):
            if hasattr(self.model, name) and not hasattr(
                    self.model, 'rpn_head'):
                return run
        if isinstance(self.backbone, CycleNet) and (
                not self.backbone.fork_feat):
            return self.backbone
        raise UserError(
            f'--part whole: of a {type(self.model).__name__} the heads are '
            'not exported: what they do depends on the boxes found. Give '
            '--part neck (mmdeploy exports whole detectors)')

    def _detect(self, image):
        return self.model.bbox_head(self.model.extract_feat(image))

    def _segment(self, image):
        head = self.model.decode_head
        logits = head(self.model.extract_feat(image))
        return F.interpolate(
            logits, size=image.shape[2:], mode='bilinear',
            align_corners=self.model.align_corners)

    def forward(self, image):
        if self.normalize:
            image = (image - self.mean) / self.std
        if self.part == 'backbone':
            return _flat(self.backbone(image))
        if self.part == 'neck':
            return _flat(self.model.extract_feat(image))
        return _flat(self.run(image))

    def names(self, outputs):
        """Names of the outputs, given these."""
        if self.part == 'whole':
            head = getattr(self.model, 'bbox_head', None)
            if head is None:
                return ['logits']
            levels = len(head.prior_generator.strides)
            kinds = ['cls_score', 'bbox_pred', 'centerness']
            return [f'{kind}{level}' for kind in kinds
                    for level in range(levels)][:len(outputs)]
        if len(outputs) == 1:
            return ['features']
        first = 'stage' if self.part == 'backbone' else 'level'
        indices = getattr(self.backbone, 'out_indices', ())
        if self.part == 'backbone' and len(indices) == len(outputs):
            return [f'{first}{i + 1}' for i in indices]
        return [f'{first}{i}' for i in range(len(outputs))]


def _flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return (outputs, )
    return tuple(one for part in outputs for one in _flat(part))


class _AdaptivePool(nn.Module):
    """nn.AdaptiveAvgPool2d in products of matrices, for any size.

    ONNX has it for sizes that are known and divide, only.
    """

    def __init__(self, size):
        super().__init__()
        self.size = size

    @staticmethod
    def _means(length, bins, like):
        # (bins, length): 1 / n where a bin of n positions has one.
        i = torch.arange(bins, device=like.device)[:, None]
        first = i * length // bins
        end = ((i + 1) * length + bins - 1) // bins
        at = torch.arange(length, device=like.device)
        inside = ((at >= first) & (at < end)).to(like)
        return inside / (end - first).to(like)

    def forward(self, x):
        rows = self._means(x.shape[2], self.size[0], x)
        columns = self._means(x.shape[3], self.size[1], x)
        return rows @ x @ columns.t()


class _Upsample(nn.Module):
    """mmseg's Upsample, which makes a Python number of the size."""

    def __init__(self, like):
        super().__init__()
        self.factor, self.mode = int(like.scale_factor), like.mode
        self.align_corners = like.align_corners

    def forward(self, x):
        return F.interpolate(
            x, size=(x.shape[2] * self.factor, x.shape[3] * self.factor),
            mode=self.mode, align_corners=self.align_corners)


def for_any_size(module):
    """A copy in which nothing is fixed to the size it is traced at.

    Args:
        module (nn.Module): To export; left alone.

    Returns:
        nn.Module: Gives the same.
    """
    module = copy.deepcopy(module).eval()

    def replace(parent):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                size = size if isinstance(size, tuple) else (size, size)
                setattr(parent, name, _AdaptivePool(size))
            elif type(child).__name__ == 'Upsample' and (
                    getattr(child, 'scale_factor', None)
                    and float(child.scale_factor).is_integer()):
                setattr(parent, name, _Upsample(child))
            else:
                replace(child)

    replace(module)
    return module


def build_model(cfg, checkpoint, part, trusted=False):
    """Build a config's model with the weights of a checkpoint.

    Args:
        cfg (Config): Of a detector, a segmentor or a classifier; changed in
            place.
        checkpoint (str): Of the whole model; for the backbone or a
            classifier any file of weights.
        part (str): One of :data:`PARTS`.
        trusted (bool): Whether code in the checkpoint may be run.
            Default: False.

    Returns:
        nn.Module: The model, to be evaluated.

    Raises:
        UserError: The model cannot be built.
        CheckpointError: The checkpoint cannot be read or does not fit.
    """
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise UserError('the model of the config has no backbone')
    backbone.init_cfg = None
    # Stock operators.
    backbone.backend = 'plain'
    scope = cfg.get('default_scope') or 'mmengine'
    alone = scope in ('mmengine', 'mmpretrain') or part == 'backbone'
    init_default_scope(scope)
    try:
        model = MODELS.build(backbone if alone else cfg.model)
    except Exception as error:  # of the model: the user's own Python
        raise UserError(f'the model cannot be built: {type(error).__name__}: '
                        f'{error}') from error
    model = revert_sync_batchnorm(model)
    if alone:
        report = load_pretrained(model, checkpoint, trusted=trusted)
        head = [key for key in report.kept if key.startswith('head.')]
        if head:
            raise CheckpointError(
                f'{checkpoint} has no classifier, and its logits are to be '
                'exported: give --part backbone')
        return model.eval()
    state = read_whole(checkpoint, cfg.model, trusted).get('state_dict')
    check_fit(model, state, checkpoint)
    model.load_state_dict(
        {key: state[key] for key in model.state_dict()})
    return model.eval()


@contextmanager
def _quietly():
    # What tracers say of shapes is looked at by check().
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def export(module, path, size):
    """Write a module as the ending of the path says, whole or not at all.

    Args:
        module (Exportable): What to export.
        path (str): Ends as :data:`FORMATS` say.
        size (tuple[int, int]): Height and width to trace at, in pixels.

    Raises:
        UserError: A package is missing, the network has what the format
            cannot express, or the file cannot be written.
    """
    ending = os.path.splitext(path)[1]
    traced, image = for_any_size(module), torch.rand(2, 3, *size)
    try:
        with _quietly(), torch.no_grad():
            data = _EXPORTERS[ending](traced, image)
    except ImportError as error:
        raise UserError(
            f'{FORMATS[ending]} needs {error.name}: pip install '
            "'mmcyclemlp[export]'") from error
    except Exception as error:  # exporters raise of any kind
        reason = str(error).strip().split('\n')[0]
        raise UserError(
            f'{FORMATS[ending]} cannot express the network: '
            f'{type(error).__name__}: {reason}') from error
    try:
        write_whole(data, path, lambda written: None)
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror}') from error


def _to_onnx(module, image):
    import onnx

    names = module.names(module(image))
    maps = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'}
            for name, one in zip(names, module(image)) if one.dim() == 4}
    axes = {'image': {0: 'batch', 2: 'height', 3: 'width'},
            **{name: {0: 'batch'} for name in names}, **maps}
    buffer = io.BytesIO()
    # The exporter that traces: in all versions of torch, and its graph
    # keeps the sizes open.
    options = ({'dynamo': False} if _has_dynamo() else {})
    torch.onnx.export(
        module, (image, ), buffer, input_names=['image'], output_names=names,
        dynamic_axes=axes, opset_version=OPSET, **options)
    data = buffer.getvalue()
    model = onnx.load_from_string(data)
    foreign = {f'{node.domain}::{node.op_type}' for node in model.graph.node
               if node.domain not in ('', 'ai.onnx')}
    if foreign:
        raise ValueError(f'it has operators of others: {sorted(foreign)}')
    onnx.checker.check_model(model)
    return data


def _has_dynamo():
    import inspect

    return 'dynamo' in inspect.signature(torch.onnx.export).parameters


def _to_torch_export(module, image):
    dim = getattr(getattr(torch, 'export', None), 'Dim', None)
    if not hasattr(dim, 'AUTO'):
        raise ValueError('torch.export for images of any size needs torch '
                         f'2.6 or later, got {torch.__version__}')
    # From which size on it works, it finds out: where a map has but one
    # position is a case of its own to it.
    program = torch.export.export(module, (image, ), dynamic_shapes=(
        dict.fromkeys((0, 2, 3), dim.AUTO), ))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _to_torchscript(module, image):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, image), buffer)
    return buffer.getvalue()


_EXPORTERS = {'.onnx': _to_onnx, '.pt2': _to_torch_export,
              '.pt': _to_torchscript}


def load(path):
    """Load what was exported, to run on a CPU.

    Args:
        path (str): The file.

    Returns:
        Callable: From an image to a list of tensors.

    Raises:
        UserError: A package is missing.
    """
    ending = os.path.splitext(path)[1]
    if ending == '.onnx':
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("to run it, pip install 'mmcyclemlp[export]', or "
                            'give --no-check') from error
        session = onnxruntime.InferenceSession(
            path, providers=['CPUExecutionProvider'])
        return lambda image: [
            torch.from_numpy(one)
            for one in session.run(None, {'image': image.numpy()})]
    if ending == '.pt2':
        program = torch.export.load(path).module()
        return lambda image: list(program(image))
    program = torch.jit.load(path)
    return lambda image: list(program(image))


def check(module, path, sizes):
    """Hold what was exported to the module, at sizes it was not traced at.

    Args:
        module (Exportable): What was exported.
        path (str): The file.
        sizes (Sequence[tuple[int, int, int]]): Batch, height and width of
            the images.

    Returns:
        list[float]: The largest difference at each size, over 1 or the
        largest value expected, whatever is more.

    Raises:
        UserError: It is more than :data:`TOLERANCE`.
    """
    run, errors = load(path), []
    for batch, height, width in sizes:
        image = torch.rand(batch, 3, height, width)
        if module.normalize:
            image *= 255
        with torch.no_grad():
            expected, given = module(image), run(image)
        if [one.shape for one in expected] != [one.shape for one in given]:
            raise UserError(
                f'{path} gives {[tuple(one.shape) for one in given]} for '
                f'{batch}x{height}x{width}, and not '
                f'{[tuple(one.shape) for one in expected]}')
        errors.append(max(
            float((a - b).abs().max() / max(1, float(b.abs().max())))
            for a, b in zip(given, expected)))
        if not errors[-1] <= TOLERANCE:
            raise UserError(
                f'{path} differs by {errors[-1]:.1e} at '
                f'{batch}x{height}x{width}, more than {TOLERANCE:.0e}')
    return errors
