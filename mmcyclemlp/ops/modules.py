"""The operator as a module that owns its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import check_backend, check_kernel_size, cycle_fc


class CycleFC(nn.Module):
    """CycleFC layer: a linear layer over channels read at cycling offsets.

    See :func:`~mmcyclemlp.ops.cycle_fc` for the formula and its source.

    Args:
        in_channels: C, channels of the input.
        out_channels: O, channels of the output.
        kernel_size: ``(S_H, S_W)``, both odd.
        bias: Whether a bias is added.
        backend: How it runs, see :func:`~mmcyclemlp.ops.cycle_fc`.

    Shape:
        Input (N, C, H, W) in any memory format, output (N, O, H, W) in the
        same.

    Raises:
        ValueError: A channel count or the kernel size is not positive and
            integral, the kernel size is even, or there is no such backend.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        bias: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                'CycleFC takes at least one channel on each side, got '
                f'{in_channels=}, {out_channels=}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = check_kernel_size(kernel_size)
        self.backend = check_backend(backend)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal (std 0.02) weight, zero bias."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return cycle_fc(x, self.weight, self.bias, self.kernel_size,
                        backend=self.backend)

    def extra_repr(self) -> str:
        return (f'{self.in_channels}, {self.out_channels}, '
                f'kernel_size={self.kernel_size}, '
                f'bias={self.bias is not None}')
