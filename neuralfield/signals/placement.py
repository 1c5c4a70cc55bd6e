"""Where a solid object lies in the unit cube: one scale for all axes, so that shapes keep their proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuralfield.checks import number
from neuralfield.errors import SignalError


@dataclass(frozen=True)
class Placement:
    r"""$\text{world} = \text{scale} \cdot \text{cube} + \text{offset}$, with cube coordinates in $[0, 1]^D$.

    - `scale`: length of the cube's side in the source's own units (a mesh's, a scanner's millimetres).
    - `offset`: where the cube's corner 0 lies there, x, y, z.
    """

    scale: float
    offset: tuple[float, ...]

    @classmethod
    def around(cls, low: Sequence[float], high: Sequence[float], margin: float = 0.0) -> Placement:
        r"""The placement that puts the centre of a box at the cube's, its longest side spanning $1 - 2\,\text{margin}$.

        Raises :class:`~neuralfield.errors.SignalError` for a box without extent, or with a bound that is not finite.
        """
        margin = number("margin", margin, 0, 0.45)
        lower, upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
        longest = float((upper - lower).max()) if np.isfinite([lower, upper]).all() else float("nan")
        if not longest > 0:
            raise SignalError(
                f"the box from {lower.tolist()} to {upper.tolist()} has no extent to place in the unit cube"
            )
        scale = longest / (1 - 2 * margin)
        return cls(scale, tuple(float(c) for c in (lower + upper) / 2 - scale / 2))

    def to_cube(self, points: Float[np.ndarray, "*n dim"]) -> Float[np.ndarray, "*n dim"]:
        """World to cube."""
        return (points - np.asarray(self.offset)) / self.scale

    def to_world(self, points: Float[np.ndarray, "*n dim"]) -> Float[np.ndarray, "*n dim"]:
        """Cube to world."""
        return points * self.scale + np.asarray(self.offset)
