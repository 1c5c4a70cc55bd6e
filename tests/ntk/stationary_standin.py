"""A stationary kernel written down independently of the package: ReLU layers over sums of cosines, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Fourier:
    """The NTK of `depth` hidden ReLU layers (w_std = sqrt 2, no bias) on frequencies drawn with spread `sigma`."""

    stationary = True

    def __init__(self, in_dim: int = 2, sigma: float = 3.0, m: int = 24, depth: int = 2, whole: bool = False) -> None:
        b = torch.randn(in_dim, m, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sigma
        self.frequencies = b.round() if whole else b
        self.depth = depth

    def of_offsets(self, dv: Tensor, which: str = "ntk") -> Tensor:
        cosine = torch.cos(2 * math.pi * dv.to(torch.float64) @ self.frequencies).mean(1).clamp(-1, 1)
        tangent = cosine
        for _ in range(self.depth):
            angle = torch.arccos(cosine)
            cosine = (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi
            tangent = cosine + tangent * (math.pi - angle) / math.pi
        return (tangent if which == "ntk" else cosine).to(dv)

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self._dense(x1, x2, "ntk")

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self._dense(x1, x2, "nngp")

    def _dense(self, x1: Tensor, x2: Tensor | None, which: str) -> Tensor:
        x2 = x1 if x2 is None else x2
        offsets = (x1[:, None] - x2[None]).reshape(-1, x1.shape[1])
        return self.of_offsets(offsets, which).reshape(len(x1), len(x2))

    def __repr__(self) -> str:
        return "Fourier()"


class Moving(Fourier):
    """The same kernel with a factor that differs from place to place."""

    stationary = False

    def _dense(self, x1: Tensor, x2: Tensor | None, which: str) -> Tensor:
        x2 = x1 if x2 is None else x2
        return super()._dense(x1, x2, which) * (1 + x1.sum(1))[:, None] * (1 + x2.sum(1))[None]


def grid(*shape: int) -> Tensor:
    """Pixel centres in row-major order, float64: the last array axis is the first coordinate."""
    axes = [(torch.arange(size, dtype=torch.float64) + 0.5) / size for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1).reshape(-1, len(shape))
