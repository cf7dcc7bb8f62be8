"""The layers and networks that the benchmark compares."""

from __future__ import annotations

from typing import Any, NamedTuple

# How a contender runs -> the mode of torch.compile. None does not compile.
MODES = {'eager': None, 'graph': None, 'compiled': 'default',
         'max-autotune': 'max-autotune-no-cudagraphs',
         'reduce-overhead': 'reduce-overhead'}


class Contender(NamedTuple):
    """A layer or a network, and how it runs.

    Attributes:
        name: Name in tables.
        kind: ``'ours'``, ``'textbook'`` (the paper's formulas in stock
            operators), ``'linear'`` (``F.linear``, which moves nothing) or
            ``'peer'`` (another network, a key of ``PEERS``).
        backend: Backend of CycleNet. None selects the default.
        mode: A key of ``MODES``.
    """

    name: str
    kind: str = 'ours'
    backend: str | None = None
    mode: str = 'eager'

    @property
    def label(self) -> str:
        """Name and mode."""
        mode = 'CUDA graph' if self.mode == 'graph' else self.mode
        return self.name if mode == 'eager' else f'{self.name}, {mode}'

    @property
    def compiles(self) -> bool:
        """Whether torch.compile compiles it."""
        return MODES[self.mode] is not None

    @property
    def checked(self) -> bool:
        """Whether its results must be those of the definition."""
        return self.kind not in ('linear', 'peer')

    def runs(self, mode: str) -> Contender:
        """Return the same contender in another mode."""
        return self._replace(mode=mode)


OFFICIAL = Contender('official route', backend='reference')
OURS = Contender('ours')
TRITON = Contender('triton', backend='triton')
TORCH = Contender('torch', backend='torch')
# In double precision, the definition that results are compared with.
TEXTBOOK = Contender('textbook', 'textbook', 'plain')
LINEAR = Contender('F.linear', 'linear')

# Name -> name in timm, and options. An img_size is set to that of the image.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    'Swin-T': ('swin_tiny_patch4_window7_224', dict(img_size=None)),
    'ConvNeXt-T': ('convnext_tiny', {}),
    # The first map of timm's ResNet has stride 2.
    'ResNet-50': ('resnet50', dict(out_indices=(1, 2, 3, 4))),
    'PVTv2-B2': ('pvt_v2_b2', {}),
    'PoolFormer-S36': ('poolformer_s36', {}),
    'InceptionNeXt-T': ('inception_next_tiny', {}),
    'FasterNet-S': ('fasternet_s', {}),
    'RepViT-M1.5': ('repvit_m1_5', {}),
    'PoolFormer-S24': ('poolformer_s24', {}),
}


def peer(name: str) -> Contender:
    """Return the contender of a key of ``PEERS``."""
    return Contender(name, 'peer')


class LeftOut(Exception):
    """A contender cannot run here. The message says why."""


def first_line(error: BaseException) -> str:
    """Return the first line of a message, or else the type's name."""
    return str(error).strip().split('\n')[0] or type(error).__name__
