"""An encoding of a scene that does not live in the unit cube."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import number
from neuralfield.encodings.base import Encoding, build, register, registry
from neuralfield.errors import ConfigError


@register("bounded")
class Bounded(Encoding):
    r"""$\gamma\big((x - \text{low}) / (\text{high} - \text{low})\big)$: world coordinates of an axis-aligned box, for any
    encoding of the unit cube. NeRF hosts hand over raw positions, often negative.

    **Arguments**

    - `encoding`: the inner encoding, as an instance or as a dictionary ``{"name": ..., options}``.
    - `low`, `high`: corners of the box; one number each, or one per axis.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        encoding: Encoding | dict[str, Any],
        low: float | Sequence[float] = 0.0,
        high: float | Sequence[float] = 1.0,
    ) -> None:
        inner = build(**encoding) if isinstance(encoding, dict) else encoding
        super().__init__(inner.in_dim)
        self.encoding = inner
        corners = [_corner(name, value, self.in_dim) for name, value in (("low", low), ("high", high))]
        if any(a >= b for a, b in zip(*corners, strict=True)):
            raise ConfigError(f"low must lie below high on every axis, got {corners[0]} and {corners[1]}")
        self.register_buffer("low", torch.tensor(corners[0], dtype=torch.float32))
        self.register_buffer("high", torch.tensor(corners[1], dtype=torch.float32))

    @property
    def out_dim(self) -> int:
        return self.encoding.out_dim

    @property
    def config(self) -> dict[str, Any]:
        inner = {"name": registry.name_of(self.encoding), **self.encoding.config}
        return {**super().config, "encoding": inner}

    def extra_repr(self) -> str:
        return f"low={self.low.tolist()}, high={self.high.tolist()}, out_dim={self.out_dim}"

    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        return self.encoding((x - self.low) / (self.high - self.low))


def _corner(name: str, value: float | Sequence[float], dim: int) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * dim
    if len(values) != dim:
        raise ConfigError(f"{name} needs one number, or {dim} (one per axis); got {len(values)}")
    return [number(name, v) for v in values]
