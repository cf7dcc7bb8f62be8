"""A damaged file is refused, or what is read is what was written.

1,200 files here; 12,000 by ``pytest --soak -m soak``.
"""

import io
import logging
import warnings
from collections import Counter, OrderedDict
from functools import cache

import definition
import numpy as np
import pytest
import torch
from helpers import fuzz, paddle_file
from helpers.child_process import run_in_child
from hypothesis import strategies as st

from mmcyclemlp import CycleNet, load_pretrained
from mmcyclemlp.checkpoint_files import read_checkpoint
from mmcyclemlp.errors import CheckpointError

KINDS = ('official', 'old', 'safetensors', 'paddle', 'mm')


@cache
def good_file(kind):
    """Return the bytes of a good file, its content, and its network."""
    torch.manual_seed(5)
    model = CycleNet(dict(embed_dims=[6, 8], depths=[1, 1],
                          mlp_ratios=[2, 2]), fork_feat=False, num_classes=3)
    for value in model.parameters():  # so that their bytes are unique
        value.data += torch.randn_like(value)
    content = definition.official_file(model)
    state = content['model']
    if kind == 'safetensors':
        safetensors = pytest.importorskip('safetensors.torch')
        return safetensors.save(state), state, model
    if kind == 'paddle':
        return paddle_file.dumps(paddle_file.pairs(state)), state, model
    if kind == 'mm':
        content = state = mm_checkpoint(model)
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=kind != 'old')
    return file.getvalue(), state, model


def mm_checkpoint(model):
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


@st.composite
def damages(draw, kind):
    """Draw the place of bytes, and the bytes that replace them."""
    good = good_file(kind)[0]
    near = st.integers(0, 400)  # the ends hold no tensors
    start = draw(st.one_of(near, near.map(lambda n: len(good) - 1 - n),
                           st.integers(0, len(good) - 1)))
    way = draw(st.sampled_from(['flip', 'overwrite', 'delete', 'insert']))
    if way == 'flip':
        return start, 1, bytes([good[start] ^ 1 << draw(st.integers(0, 7))])
    length = draw(st.sampled_from([1, 2, 8, 64, 1000, len(good)]))
    length = min(length, len(good) - start)
    if way == 'delete':
        return start, length, b''
    length = min(length, 1000)
    new = draw(st.one_of(st.just(bytes(length)), st.binary(
        min_size=length, max_size=length)))
    return start, length * (way == 'overwrite'), new


def differing(ours, theirs, place=''):
    """Return where two contents are not the same, bit by bit."""
    if isinstance(theirs, dict):
        if not isinstance(ours, dict) or list(ours) != list(theirs):
            return [place]
        return [found for key in theirs for found in differing(
            ours[key], theirs[key], f'{place}.{key}')]
    if isinstance(theirs, (list, tuple)):
        if type(ours) is not type(theirs) or len(ours) != len(theirs):
            return [place]
        return [found for i, value in enumerate(theirs)
                for found in differing(ours[i], value, f'{place}.{i}')]
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


def check_damage(kind, damage, path):
    """Read a damaged file, and return how it ended."""
    good, content, model = good_file(kind)
    start, length, new = damage
    path.write_bytes(good[:start] + new + good[start + length:])
    try:
        if kind == 'mm':
            from mmcyclemlp.engine.saved_objects import allowed

            wrong = differing(read_checkpoint(path, allowed()), content)
        else:
            load_pretrained(model, path)
            loaded = model.state_dict()
            wrong = differing(loaded, {key: content[key] for key in loaded})
    except CheckpointError as error:
        text = str(error)
        assert '\n' not in text and str(path) in text and len(text) < 2000
        return 'refused'
    if not wrong:
        return 'right'
    # Without checksums, a tensor is wrong only where its bytes are.
    assert kind in ('old', 'safetensors', 'paddle'), (kind, wrong)
    shifted = len(new) != length
    damaged = range(start - shifted, start + length + shifted)
    for name in wrong:
        value = content[name[1:]]
        value = value.t() if kind == 'paddle' and value.dim() == 2 else value
        raw = value.contiguous().numpy().tobytes()
        first = good.index(raw)
        assert set(damaged) & set(range(first, first + len(raw))), name
    return 'not detectable'


@pytest.mark.soak
@pytest.mark.parametrize('kind', KINDS)
def test_damaged_files(kind, rounds, tmp_path):
    good_file(kind)  # before the fork
    last, counts = tmp_path / 'example', Counter()

    def check(damage):
        last.write_text(repr(damage))  # in case the process crashes
        counts[check_damage(kind, damage, tmp_path / 'x.pth')] += 1

    def run():
        logging.getLogger('mmcyclemlp').setLevel('WARNING')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            fuzz.run(check, damages(kind), rounds(240, 2_400))
        return counts

    outcome = run_in_child(
        run, cpu_seconds=rounds(300, 3_000), memory=4 << 30)
    assert not outcome.error, (
        f'{outcome.error} at {last.read_text()}\n{outcome.trace}')
    print(kind, outcome.value)
    assert outcome.value['refused'] and sum(outcome.value.values()) > 100
