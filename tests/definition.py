"""Slow definitions of operator and network, to compare the package with.

They follow the paper's equations and the keys of the released files, and
share no code with the package. The operator is defined twice: one channel at
a time, and, for larger maps, as an ordinary convolution. The network uses the
convolution.
"""

from functools import partial

import torch
import torch.nn.functional as F


def cycle_fc(x, weight, bias, kernel_size):
    """Compute CycleFC on (N, C, H, W), one channel at a time."""
    n, channels, height, width = x.shape
    y = x.new_zeros(n, weight.shape[0], height, width)
    size_h, size_w = kernel_size
    for c in range(channels):
        dy = (c + size_h // 2) % size_h - size_h // 2
        dx = (c // size_h + size_w // 2) % size_w - size_w // 2
        for i in range(height):
            for j in range(width):
                if 0 <= i + dy < height and 0 <= j + dx < width:
                    y[:, :, i, j] += (
                        weight[:, c, 0, 0] * x[:, c, i + dy, j + dx, None])
    return y if bias is None else y + bias[:, None, None]


def cycle_fc_dense(x, weight, bias, kernel_size):
    """Compute the same as a convolution whose kernel is mostly zeros."""
    size_h, size_w = kernel_size
    channels = weight.shape[1]
    dense = weight.new_zeros(*weight.shape[:2], size_h, size_w)
    for c in range(channels):
        i = (c + size_h // 2) % size_h
        j = (c // size_h + size_w // 2) % size_w
        dense[:, c, i, j] = weight[:, c, 0, 0]
    return F.conv2d(x, dense, bias, padding=(size_h // 2, size_w // 2))


def _linear(state, name, x):
    return F.linear(x, state[f'{name}.weight'], state.get(f'{name}.bias'))


def _norm(state, name, x):
    weight = state[f'{name}.weight']
    return F.layer_norm(x, weight.shape, weight, state[f'{name}.bias'], 1e-5)


def _cycle(state, name, x, kernel_size):
    y = cycle_fc_dense(x.permute(0, 3, 1, 2), state[f'{name}.weight'],
                       state[f'{name}.bias'], kernel_size)
    return y.permute(0, 2, 3, 1)


def mixer(state, name, x):
    """Token mixer on (B, H, W, C)."""
    h = _cycle(state, f'{name}.sfc_h', x, (1, 3))
    w = _cycle(state, f'{name}.sfc_w', x, (3, 1))
    c = _linear(state, f'{name}.mlp_c', x)
    if f'{name}.reweight.fc1.weight' not in state:
        return _linear(state, f'{name}.proj', h + w + c)
    a = (h + w + c).flatten(1, 2).mean(1)
    a = _linear(state, f'{name}.reweight.fc1', a)
    a = _linear(state, f'{name}.reweight.fc2', F.gelu(a))
    a = a.reshape(x.shape[0], x.shape[3], 3).permute(2, 0, 1).softmax(0)
    a = a[:, :, None, None]
    return _linear(state, f'{name}.proj', h * a[0] + w * a[1] + c * a[2])


def stages(state, x, depths):
    """Return the maps (B, H, W, C) of the stages, without output norms."""
    def conv(name, x, stride, padding):
        y = F.conv2d(x.permute(0, 3, 1, 2), state[f'{name}.proj.weight'],
                     state[f'{name}.proj.bias'], stride, padding)
        return y.permute(0, 2, 3, 1)

    def merge(name, x):
        # Concatenate 2x2 neighbors, the left column first.
        b, height, width, c = x.shape
        full = x.new_zeros(b, height + height % 2, width + width % 2, c)
        full[:, :height, :width] = x
        full = full.reshape(b, full.shape[1] // 2, 2, full.shape[2] // 2, 2, c)
        full = full.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return _linear(state, f'{name}.reduction',
                       _norm(state, f'{name}.norm', full))

    x = x.permute(0, 2, 3, 1)
    if 'patch_embed.norm.weight' in state:
        b, height, width, c = x.shape
        full = x.new_zeros(b, height + -height % 4, width + -width % 4, c)
        full[:, :height, :width] = x
        x = _norm(state, 'patch_embed.norm', conv('patch_embed', full, 4, 0))
    else:
        x = conv('patch_embed', x, 4, 2)
    maps = []
    for i, depth in enumerate(depths):
        if i > 0:
            name = f'network.{2 * i - 1}'
            step = merge if f'{name}.norm.weight' in state else partial(
                conv, stride=2, padding=1)
            x = step(name, x)
        for j in range(depth):
            name = f'network.{2 * i}.{j}'
            x = x + mixer(state, f'{name}.attn',
                          _norm(state, f'{name}.norm1', x))
            y = _linear(state, f'{name}.mlp.fc1',
                        _norm(state, f'{name}.norm2', x))
            x = x + _linear(state, f'{name}.mlp.fc2', F.gelu(y))
        maps.append(x)
    return maps


def backbone(state, x, depths, last3=False):
    """Return the four maps (B, C, H, W) of the backbone."""
    maps = stages(state, x, depths)
    return [(y if i == 0 and last3 else _norm(state, f'norm{2 * i}', y)
             ).permute(0, 3, 1, 2) for i, y in enumerate(maps)]


def classifier(state, x, depths):
    """Return the logits (B, classes) of the classifier."""
    y = _norm(state, 'norm', stages(state, x, depths)[-1])
    return _linear(state, 'head', y.flatten(1, 2).mean(1))


def official_file(model):
    """Return a checkpoint of a classifier in the released layout."""
    state = {}
    for key, value in model.state_dict().items():
        state[key] = value.clone()
        if '.sfc_' in key and key.endswith('.weight'):
            channels = value.shape[1]
            delta = (torch.arange(channels) + 1) % 3 - 1
            offset = torch.zeros(channels, 2)
            offset[:, 1 if 'sfc_h' in key else 0] = delta.float()
            state[key[:-len('weight')] + 'offset'] = offset.reshape(
                1, 2 * channels, 1, 1)
    return {'model': state}
