"""Cases drawn by number: networks, images, damaged files.

A case is a function of its seed alone. It gives a word for how it ended, as
it should, or raises what is wrong.
"""

import io
import logging
import math
import os
import random
import shutil
import tempfile
import warnings
from collections import OrderedDict
from functools import cache
from pathlib import Path

import definition
import numpy as np
import torch
from helpers import paddle_file
from helpers.child_process import run_apart

from mmcyclemlp import CycleNet, load_pretrained
from mmcyclemlp.checkpoint_files import read_checkpoint
from mmcyclemlp.errors import CheckpointError

RIGHT, REFUSED, UNGUARDED = 'right', 'refused', 'no checksum'
CLEAR = (ValueError, TypeError, CheckpointError)


class WrongError(AssertionError):
    """A case did not end as it should."""


def check(condition, *what):
    if not condition:
        raise WrongError(' '.join(map(str, what)))


# --- networks

_WRONG = {
    'arch': ['b9', '', None, 5, {}, [], ('b1', ), {'embed_dims': [4]}] + [
        {'embed_dims': [8, 8], 'depths': [1, 1], 'mlp_ratios': [2, 2],
         **change} for change in (
            {'embed_dims': [8, 0]}, {'embed_dims': [8, -8]}, {'extra': 1},
            {'embed_dims': [8, 2.5]}, {'embed_dims': [8, '8']},
            {'embed_dims': 8}, {'embed_dims': None}, {'depths': []},
            {'depths': [1]}, {'depths': [1, 0]}, {'depths': [1, None]},
            {'depths': [1, math.nan]}, {'mlp_ratios': [2, math.inf]},
            {'mlp_ratios': [2, -1]}, {'mlp_ratios': [2, math.nan]},
            {'embed_dims': [8, 10**30]}, {'downsample': 'pool'},
            {'downsample': None}, {'reweight': 'yes'},
            {'reweight': None}, {'embed_dims': [8, [8]]})],
    'stem': ['conv5', '', None, 7, ['conv7']],
    'in_channels': [0, -1, '3', 2.5, None, math.nan],
    'out_indices': [(), (1, 0), (0, 0), (-1, ), (99, ), 'ab', None, 3,
                    (0.5, ), ('0', ), (None, ), [[0]], (math.nan, )],
    'num_classes': [0, -1, 2.5, 'a', None],
    'drop_rate': [-.1, 1., 1.5, 'a', None, math.nan],
    'drop_path_rate': [-.1, 1., 1.5, 'a', None, math.nan],
    'skip_lam': [0, 0., -1., 'a', None, math.nan, math.inf],
    'frozen_stages': [-2, 99, 1.5, 'a', None, math.nan],
    'norm_cfg': [None, {}, 'LN', {'type': 'BN'}, {'type': None},
                 {'type': 'LN', 'epsilon': 1e-5}, {'type': ['LN']},
                 {'type': 'LN', 'eps': 'a'}, {'type': 'LN', 'eps': -1.},
                 {'type': 'LN', 'eps': None}],
    'act_cfg': [None, {}, 'GELU', {'type': 'Tanh'}, {'type': None},
                {'type': 'GELU', 'approximate': 'tanh'}, {'type': []}],
    'backend': ['cuda', '', 5, ['torch']],
    'init_cfg': [{}, 'x.pth', {'type': 'Pretrained'}, 5,
                 {'type': 'Kaiming', 'checkpoint': 'x.pth'},
                 {'type': 'Pretrained', 'checkpoint': 'x', 'map': 1}],
    'unknown': [1],
}
_IMAGES = {
    'channels': lambda x: x.repeat(1, 2, 1, 1), '3-D': lambda x: x[:, 0],
    '5-D': lambda x: x[None], 'whole numbers': lambda x: x.long(),
    'no height': lambda x: x[:, :, :0], 'no width': lambda x: x[..., :0],
    'an array': lambda x: x.numpy(), 'nothing': lambda x: None,
    'double': lambda x: x.double(),
}


def _size(rng):
    return rng.randint(1, rng.choice([4, 12, 40, 80, 200]))


def _draw_arguments(rng):
    stages = rng.choice([1, 2, 3, 4, 4, 4, 5])
    arch = {
        'embed_dims': [rng.choice([1, 2, 3, 4, 5, 8, 12, 20])
                       for _ in range(stages)],
        'depths': [rng.choice([1, 1, 1, 2]) for _ in range(stages)],
        'mlp_ratios': [rng.choice([.1, 1, 1.5, 2, 4])
                       for _ in range(stages)]}
    if rng.random() < .5:
        arch['downsample'] = rng.choice(['conv', 'patch_merging'])
    if rng.random() < .5:
        arch['reweight'] = rng.choice([True, False])
    if rng.random() < .2:
        arch = {key: tuple(value) if isinstance(value, list) else value
                for key, value in arch.items()}
    args = {'arch': arch}
    if rng.random() < .01:
        args['arch'], stages = rng.choice(['b1', 't']), 4
    wanted = range(stages)
    choices = {
        'stem': ['conv7', 'conv4'], 'in_channels': [1, 2, 3, 4, 6],
        'fork_feat': [True, True, False],
        'fork_last3': [None, True, False],
        'out_indices': [sorted(rng.sample(wanted, rng.randint(1, stages)))],
        'num_classes': [1, 2, 7, 30], 'drop_rate': [0, .1, .5, .9],
        'drop_path_rate': [0, .1, .5, .99], 'qkv_bias': [True, False],
        'skip_lam': [1., .5, 3], 'frozen_stages': range(-1, stages + 1),
        'with_cp': [True, False],
        'norm_cfg': [{'type': 'LN'}, {'type': 'LN', 'eps': 1e-3},
                     {'type': 'LN', 'bias': False},
                     {'type': 'LN', 'elementwise_affine': False}],
        'act_cfg': [{'type': name}
                    for name in ('GELU', 'ReLU', 'SiLU', 'Hardswish')],
        'backend': [None, 'torch', 'plain', 'reference'], 'init_cfg': [None],
    }
    if stages != 4 or rng.random() < .6:  # the default is of four
        args['out_indices'] = rng.choice(choices['out_indices'])
    for name, values in choices.items():
        if name != 'out_indices' and rng.random() < .4:
            args[name] = rng.choice(list(values))
    return args, stages


def _is_clear(error, values):
    """Whether an error says in one line what was wrong."""
    text = str(error)
    kinds = CLEAR
    if text.startswith('Input type ('):  # torch says it well
        kinds, values = RuntimeError, ['Input type']
    return isinstance(error, kinds) and text and '\n' not in text and any(
        text_of in text for value in values
        for text_of in (repr(value), str(value)) if text_of)


def network_case(seed):
    """Build, run, train, save and load a network of random arguments."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    args, stages = _draw_arguments(rng)
    wrong = None
    if rng.random() < .3:
        wrong = rng.choice(list(_WRONG))
        args[wrong] = rng.choice(_WRONG[wrong])
        if wrong == 'out_indices':
            args['fork_feat'] = True
        if wrong == 'num_classes':
            args['fork_feat'] = False
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        warnings.simplefilter('error', RuntimeWarning)
        # Of channels that are divided to none; by torch itself.
        warnings.filterwarnings('ignore', 'Initializing zero-element')
        try:
            model = CycleNet(**args)
        except Exception as error:
            check(wrong is not None, 'refused a good network:', repr(error))
            check(_is_clear(error, [args[wrong], wrong, *(
                args['arch'].values() if isinstance(args['arch'], dict)
                else ())]), wrong, args[wrong], 'unclear:', repr(error))
            return REFUSED
        check(wrong is None, 'took', wrong, args.get(wrong))
        return _run_network(rng, model, args, stages)


def _run_network(rng, model, args, stages):
    for value in model.parameters():
        value.data += .2 * torch.randn_like(value)
    named = isinstance(args['arch'], str)
    height, width = (_size(rng) // (4 if named else 1) + 1 for _ in range(2))
    x = torch.randn(rng.choice([0, 1, 1, 2]), args.get('in_channels', 3),
                    height, width)
    if rng.random() < .1:
        wrong = rng.choice(list(_IMAGES))
        x = _IMAGES[wrong](x)
        try:
            model(x)
        except Exception as error:
            check(_is_clear(error, [getattr(x, 'dtype', x), type(x),
                                    tuple(getattr(x, 'shape', ())),
                                    'x'.join(map(str, x.shape[-2:]))
                                    if hasattr(x, 'shape') else '']),
                  wrong, 'unclear:', repr(error))
            return REFUSED
        raise WrongError(f'took an image with {wrong}')
    model.eval()
    shapes = _shapes(model, args, x)
    if shapes is None:
        try:
            model(x)
        except Exception as error:
            check(_is_clear(error, [f'{height}x{width}']), 'unclear:',
                  repr(error))
            return REFUSED
        raise WrongError(f'took an image of {height}x{width}')
    x.requires_grad_()
    with torch.no_grad():
        outs = _outputs(model, x)
    check([tuple(out.shape) for out in outs] == shapes, 'shapes',
          [out.shape for out in outs], shapes)
    check(all(out.is_contiguous() and out.isfinite().all() for out in outs),
          'not finite or not contiguous')
    other = CycleNet(**{**args, 'backend': 'reference', 'with_cp': False})
    other.load_state_dict(model.state_dict())
    other.eval()
    _save_and_load(rng, model, args, x, outs)
    if min(model.embed_dims) > 2:  # norms of two numbers are steep
        _compare('outputs', outs, _outputs(other, x.detach()))
    # So twice as exact.
    model, other, x = model.double(), other.double(), x.double()
    _compare('exact outputs', _outputs(model, x), _outputs(other, x), 1e-8)
    _check_gradients(rng, model, other, x, args)
    return RIGHT


def _outputs(model, x):
    out = model(x)
    check(isinstance(out, tuple) is model.fork_feat, 'no tuple')
    return out if model.fork_feat else (out, )


def _shapes(model, args, x):
    """Shapes of the outputs; None if the image is too small."""
    batch, _, *size = x.shape
    if args.get('stem', 'conv7') == 'conv7':
        if min(size) < 3:
            return None
        size = [(n - 3) // 4 + 1 for n in size]
    else:
        size = [-(-n // 4) for n in size]
    if not model.fork_feat:
        return [(batch, args.get('num_classes', 1000))]
    shapes = []
    for dim in model.embed_dims:
        shapes.append((batch, dim, *size))
        size = [-(-n // 2) for n in size]
    return [shapes[i] for i in args.get('out_indices', (0, 1, 2, 3))]


def _compare(what, ours, theirs, tolerance=2e-4):
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a is None or b is None:
            check(a is b, what, i, 'of one alone')
        elif a.numel():
            a, b = a.detach(), b.detach()
            scale = max(1., float(b.abs().max()))
            difference = float((a - b).abs().max()) / scale
            check(difference < tolerance, what, 'differ by', difference)


def _check_gradients(rng, model, other, x, args):
    """That they are where they must be, there alone, and right."""
    train = rng.random() < .5
    exact = not train or not (
        args.get('drop_rate') or args.get('drop_path_rate'))
    weights = [torch.randn(shape).double()
               for shape in _shapes(model, args, x)]
    found = []
    for network in (model, other):
        network.train(train)
        y = x.detach().requires_grad_()
        outs = _outputs(network, y)
        loss = sum((out * w).sum() for out, w in zip(outs, weights))
        loss.backward()
        found.append([y.grad, *(p.grad for p in network.parameters())])
    last = max(args.get('out_indices', (3, ))) if model.fork_feat else (
        model.num_stages - 1)
    frozen = model.frozen_stages
    for name, value in model.named_parameters():
        parts = name.split('.')
        place = int(parts[1]) if parts[0] == 'network' else -1
        is_frozen = place > 2 * last or (
            frozen > 0 and parts[0] in ('patch_embed', 'network')
            and place < 2 * frozen - 1)
        check(value.requires_grad is not is_frozen, name, 'frozen?')
        check((value.grad is not None) is not is_frozen, name,
              'gradient' if value.grad is not None else 'no gradient')
        check(value.grad is None or value.grad.isfinite().all(), name,
              'gradient not finite')
    if exact:
        _compare('gradients', *found, tolerance=1e-6)


def _save_and_load(rng, model, args, x, outs):
    folder = tempfile.mkdtemp()
    try:
        path = os.path.join(folder, 'x.pth')
        state = model.state_dict()
        content = rng.choice([state, {'model': state}, {'state_dict': {
            f'backbone.{key}': value for key, value in state.items()}}])
        torch.save(content, path, _use_new_zipfile_serialization=(
            rng.random() < .8))
        fresh = CycleNet(**{
            **args, 'init_cfg': dict(type='Pretrained', checkpoint=path)})
        fresh.init_weights()
    finally:
        shutil.rmtree(folder)
    with torch.no_grad():
        again = _outputs(fresh.eval(), x)
    check(all(torch.equal(a, b) for a, b in zip(outs, again)),
          'other outputs once loaded')


# --- images

@cache
def _small_network(kind):
    torch.manual_seed(kind)
    arch = dict(embed_dims=[6, 8, 12, 16], depths=[1, 2, 1, 1],
                mlp_ratios=[4, 4, 2, 2])
    if kind in (1, 2):
        arch.update(downsample='patch_merging', reweight=False)
    model = CycleNet(arch, stem='conv4' if kind == 2 else 'conv7',
                     fork_feat=kind != 3, num_classes=5, fork_last3=kind == 0)
    for value in model.parameters():
        value.data += .2 * torch.randn_like(value)
    return model.eval()


def image_case(seed):
    """An image of any size through a network, held to the formulas."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind = rng.randrange(4)
    model = _small_network(kind)
    x = torch.randn(rng.choice([1, 1, 2]), 3, _size(rng), _size(rng))
    if rng.random() < .3:
        x = x.to(memory_format=torch.channels_last)
    if rng.random() < .2:  # a part of a larger one
        x = x[:, :, x.shape[2] // 2:, x.shape[3] // 3:]
    if min(x.shape[2:]) < 3 and kind != 2:
        try:
            model(x)
        except ValueError as error:
            check(f'{x.shape[2]}x{x.shape[3]}' in str(error), error)
            return REFUSED
        raise WrongError(f'took {x.shape}')
    with torch.no_grad():
        outs = _outputs(model, x)
        state, depths = model.state_dict(), [1, 2, 1, 1]
        theirs = [definition.classifier(state, x, depths)] if kind == 3 else (
            definition.backbone(state, x, depths, last3=kind == 0))
    check(all(a.shape == b.shape and a.isfinite().all()
              for a, b in zip(outs, theirs)), 'shapes')
    _compare('outputs', outs, theirs)
    return RIGHT


_CONFIGS = {
    'retinanet': 'retinanet/retinanet_cyclemlp-b1_fpn_1x_coco',
    'mask_rcnn': 'mask_rcnn/mask-rcnn_cyclemlp-b1_fpn_1x_coco',
    'sem_fpn': 'sem_fpn_ade20k/fpn_cyclemlp-b1_8xb4-40k_ade20k-512x512',
    'upernet': 'upernet_ade20k/upernet_cyclemlp-b1_8xb2-160k_ade20k-512x512',
}


@cache
def _whole_model(name):
    """A model of the configs, with a small backbone."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(str(
        Path(__file__).parent.parent / 'configs' / f'{_CONFIGS[name]}.py'))
    init_default_scope(cfg.default_scope)
    dims = [6, 8, 12, 16]
    cfg.model.backbone.update(init_cfg=None, arch=dict(
        embed_dims=dims, depths=[1] * 4, mlp_ratios=[2] * 4))
    heads = [cfg.model.get(key) for key in (
        'neck', 'decode_head', 'auxiliary_head')]
    for head in filter(None, heads):
        if head.in_channels == [64, 128, 320, 512]:
            head.in_channels = dims
        elif head.in_channels == 320:
            head.in_channels = dims[2]
    torch.manual_seed(0)
    return cfg.default_scope, MODELS.build(cfg.model).eval()


def model_case(seed):
    """An image of any size through a whole detector or segmentor."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    name = rng.choice(list(_CONFIGS))
    scope, model = _whole_model(name)
    height, width = _size(rng), _size(rng)
    meta = dict(img_shape=(height, width), ori_shape=(height, width),
                pad_shape=(height, width), scale_factor=(1., 1.))
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            sample, = model.test_step(dict(
                inputs=[image], data_samples=[Sample(metainfo=meta)]))
    except ValueError as error:
        check(min(height, width) < 3 and f'{height}x{width}' in str(error),
              name, height, width, error)
        return REFUSED
    if scope == 'mmseg':
        check(sample.pred_sem_seg.shape == (height, width)
              and sample.seg_logits.data.isfinite().all(), 'logits')
        return RIGHT
    found = sample.pred_instances
    least, most = torch.zeros(4), torch.tensor([width, height] * 2)
    check(found.bboxes.isfinite().all() and found.scores.isfinite().all()
          and ((found.bboxes >= least) & (found.bboxes <= most)).all(),
          'boxes')
    if name == 'mask_rcnn':
        check(found.masks.shape[1:] == (height, width), 'masks')
    return RIGHT


# --- damaged files

KINDS = ('official', 'old', 'safetensors', 'paddle', 'mm')


@cache
def _good_file(kind):
    """Bytes of a good file, and what it holds."""
    torch.manual_seed(5)
    model = CycleNet(dict(embed_dims=[6, 8], depths=[1, 1],
                          mlp_ratios=[2, 2]), fork_feat=False, num_classes=3)
    for value in model.parameters():  # each is to be found by its bytes
        value.data += torch.randn_like(value)
    content = definition.official_file(model)
    state = content['model']
    file = io.BytesIO()
    if kind == 'safetensors':
        from safetensors.torch import save

        return save(state), state, model
    if kind == 'paddle':
        return paddle_file.dumps(paddle_file.pairs(state)), state, model
    if kind == 'mm':
        content = _mm_checkpoint(model)
    torch.save(content, file, _use_new_zipfile_serialization=kind != 'old')
    return file.getvalue(), content if kind == 'mm' else state, model


def _mm_checkpoint(model):
    from mmengine.logging.history_buffer import HistoryBuffer

    optimizer = torch.optim.AdamW(model.parameters())
    for value in model.parameters():
        value.grad = torch.randn_like(value)
    optimizer.step()
    return dict(
        meta=dict(epoch=1, iter=2, seed=3, dataset_meta=dict(CLASSES=['a'])),
        state_dict=OrderedDict((f'backbone.{key}', value) for key, value
                               in model.state_dict().items()),
        message_hub=dict(
            log_scalars={'train/loss': HistoryBuffer([1., 2.], [1, 1])},
            runtime_info=OrderedDict(iter=2, best=np.float64(.5)),
            resumed_keys=OrderedDict(iter=True)),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=2, milestones=[8, 11])])


def _damage(rng, data):
    """Damaged bytes, and where."""
    data, size = bytearray(data), len(data)
    # Half of them where it is no tensor's: at the ends.
    near = rng.choice([size, 400])

    def place(length=0):
        at = min(rng.randrange(min(near, size)), size - length)
        return at if rng.random() < .5 else size - length - at

    way = rng.choice(['flip', 'flip', 'byte', 'bytes', 'zeros', 'swap',
                      'truncate', 'delete', 'insert', 'double', 'grow'])
    length = min(rng.choice([1, 2, 8, 64, 1000]), size // 3)
    if way == 'flip':
        spots = {place(1) for _ in range(rng.choice([1, 1, 1, 2, 5]))}
        for at in spots:
            data[at] ^= 1 << rng.randrange(8)
        return data, spots
    if way == 'byte':
        at = place(1)
        data[at] = rng.randrange(256)
        return data, {at}
    at = place(length)
    if way == 'bytes':
        data[at:at + length] = rng.randbytes(length)
        return data, set(range(at, at + length))
    if way == 'zeros':
        data[at:at + length] = bytes(length)
        return data, set(range(at, at + length))
    if way == 'swap':
        other = rng.randrange(size - length)
        if abs(other - at) < length:
            other = at
        one, two = data[at:at + length], data[other:other + length]
        data[at:at + length], data[other:other + length] = two, one
        return data, {*range(at, at + length), *range(other, other + length)}
    if way == 'truncate':
        return data[:at], set()
    if way == 'delete':
        return data[:at] + data[at + length:], {at}
    if way == 'insert':
        return data[:at] + rng.randbytes(length) + data[at:], {at - 1, at}
    if way == 'double':
        return data[:at] + data[at:at + length] + data[at:], {at - 1, at}
    return data + rng.randbytes(length), set()


def _differing(ours, theirs, place=''):
    """Where two contents are not the same to the bit."""
    if isinstance(theirs, dict):
        if not isinstance(ours, dict) or list(ours) != list(theirs):
            return [place]
        return [found for key in theirs for found in _differing(
            ours[key], theirs[key], f'{place}.{key}')]
    if isinstance(theirs, (list, tuple)):
        if type(ours) is not type(theirs) or len(ours) != len(theirs):
            return [place]
        return [found for i, value in enumerate(theirs)
                for found in _differing(ours[i], value, f'{place}.{i}')]
    if isinstance(theirs, torch.Tensor):
        same = (isinstance(ours, torch.Tensor) and ours.dtype == theirs.dtype
                and ours.shape == theirs.shape
                and ours.numpy().tobytes() == theirs.numpy().tobytes())
    elif hasattr(theirs, '_log_history'):
        same = type(ours) is type(theirs) and all(
            a.dtype == b.dtype and a.tobytes() == b.tobytes()
            for a, b in zip(ours.data, theirs.data))
    else:
        same = type(ours) is type(theirs) and ours == theirs
    return [] if same else [place]


def damage_case(seed):
    """A damaged file, read and loaded."""
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    good, content, model = _good_file(kind)
    data, spots = _damage(rng, good)
    folder = tempfile.mkdtemp()
    try:
        path = os.path.join(folder, 'x.pth')
        with open(path, 'wb') as file:
            file.write(data)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                if kind == 'mm':
                    from mmcyclemlp.engine.saved_objects import allowed

                    found = read_checkpoint(path, allowed())
                else:
                    found = None
                    load_pretrained(model, path)
            except CheckpointError as error:
                check('\n' not in str(error) and path in str(error)
                      and len(str(error)) < 2000, 'unclear:', error)
                return REFUSED
    finally:
        shutil.rmtree(folder)
    if kind == 'mm':
        differing = _differing(found, content)
    else:
        loaded = model.state_dict()
        differing = _differing(loaded, {key: content[key] for key in loaded})
    if differing and kind in ('old', 'safetensors', 'paddle'):
        # No checksum: what is wrong in a tensor's own bytes, is so in it.
        for name in differing:
            value = content[name[1:]]
            value = value.t() if kind == 'paddle' and value.dim() == 2 else (
                value)
            raw = value.contiguous().numpy().tobytes()
            start = good.index(raw)
            check(spots & set(range(start, start + len(raw))),
                  kind, 'silently other weights:', name)
        return UNGUARDED
    check(not differing, kind, 'silently other content:', differing)
    return RIGHT


CASES = {'network': network_case, 'image': image_case,
         'model': model_case, 'damage': damage_case}


def _one(kind, seed):
    logging.getLogger('mmcyclemlp').setLevel('WARNING')
    try:
        return CASES[kind](seed), ''
    except Exception as error:
        return 'WRONG', f'{type(error).__name__}: {error}'


def run(kind, seeds):
    """Run cases; how often they ended how, and what went wrong.

    Apart, so that a crash or a hang is seen: many at once, and one by one
    where they did not all come back.

    Returns:
        tuple[dict, list[str]]: Counts by word; a line for each wrong case.
    """
    counts, wrong = {}, []
    seeds = list(seeds)
    for first in range(0, len(seeds), 50):
        some = seeds[first:first + 50]
        outcome = run_apart(
            lambda some: [_one(kind, seed) for seed in some], some,
            seconds=240, memory=4 << 30)
        results = outcome.value
        if results is None:
            results = []
            for seed in some:
                one = run_apart(_one, kind, seed, seconds=60, memory=4 << 30)
                results.append(one.value or (
                    'WRONG', f'{one.error}: {one.text}'))
        for seed, (word, text) in zip(some, results):
            counts[word] = counts.get(word, 0) + 1
            if text:
                wrong.append(
                    f'{text} -- PYTHONPATH=tests python -c "import fuzz; '
                    f'fuzz.{kind}_case({seed})"')
    return counts, wrong
