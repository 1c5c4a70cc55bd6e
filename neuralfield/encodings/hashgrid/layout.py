"""The shape of a multiresolution grid: levels, resolutions, offsets. No tensors, no engine.

The layout and arithmetic are those of tiny-cuda-nn 2.0, so that weights move between the two unchanged; the paper is
Müller et al. 2022, "Instant Neural Graphics Primitives", section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError

# One factor per axis, from tiny-cuda-nn; the first is 1 so that neighbours along x stay neighbours in memory.
PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)

# Above this a position no longer has a meaningful fraction in float32.
_MAX_RESOLUTION = 2**22


@dataclass(frozen=True)
class Level:
    """One grid of the pyramid.

    - `scale`: cells per unit length; position p = scale * x + 0.5 (a float32 number).
    - `resolution`: vertices per axis, ceil(scale) + 1.
    - `entries`: rows of its table.
    - `offset`: rows of all tables before it.
    - `hashed`: whether rows are found by the hash (else by the dense, x-fastest index).
    """

    scale: float
    resolution: int
    entries: int
    offset: int
    hashed: bool


@dataclass(frozen=True)
class GridLayout:
    """All levels of a grid in `in_dim` dimensions with `n_features` numbers per entry."""

    in_dim: int
    n_features: int
    levels: tuple[Level, ...]

    @property
    def n_entries(self) -> int:
        """Rows of the whole table."""
        return self.levels[-1].offset + self.levels[-1].entries

    @property
    def n_parameters(self) -> int:
        """Length of the flat parameter vector."""
        return self.n_entries * self.n_features

    @property
    def out_dim(self) -> int:
        """Features per point, level-major."""
        return len(self.levels) * self.n_features


def growth_factor(n_levels: int, base_resolution: int, max_resolution: float) -> float:
    r"""The per-level scale $s = \exp\!\left(\ln(N_\text{max}/N_\text{min}) / (L - 1)\right)$ (Müller et al. 2022, eq. 3)."""
    return math.exp(math.log(max_resolution / base_resolution) / (n_levels - 1)) if n_levels > 1 else 1.0


def make_layout(
    in_dim: int,
    n_levels: int,
    n_features: int,
    log2_hashmap_size: int,
    base_resolution: int,
    per_level_scale: float,
) -> GridLayout:
    r"""The levels, in float32 as written:

        scale_l      = exp2(l * log2(per_level_scale)) * base_resolution - 1
        resolution_l = ceil(scale_l) + 1
        entries_l    = min(round_up_to_8(resolution_l ** D), 2 ** log2_hashmap_size)

    In float64 the length would differ wherever base * s**l is an exact integer: from 16 to 1024 over 16 levels, level 5
    has 65 vertices per axis, not 64. The -1 makes the coarsest grid have exactly `base_resolution` vertices.

    Raises :class:`~neuralfield.errors.ConfigError` for values out of range.
    """
    in_dim = integer("in_dim", in_dim, 1, len(PRIMES))
    n_levels = integer("n_levels", n_levels, 1, 64)
    n_features = integer("n_features_per_level", n_features, 1, 64)
    table = 2 ** integer("log2_hashmap_size", log2_hashmap_size, 3, 30)
    base = np.float32(integer("base_resolution", base_resolution, 1, _MAX_RESOLUTION))
    growth = np.float32(number("per_level_scale", per_level_scale, 1, _MAX_RESOLUTION))
    # Functions in float64, rounded to float32 at each step: NumPy's own float32 ones differ by an ulp between processors,
    # and a table must not change its length when a file moves to another machine.
    log2_growth = np.float32(math.log2(growth))
    levels: list[Level] = []
    offset = 0
    for index in range(n_levels):
        with np.errstate(over="ignore"):  # infinity is refused below
            scale = np.float32(np.exp2(np.float64(np.float32(index) * log2_growth))) * base - np.float32(1)
        if scale >= _MAX_RESOLUTION:
            raise ConfigError(
                f"level {index} would have {scale:,.0f} vertices per axis, more than float32 coordinates can tell apart "
                f"({_MAX_RESOLUTION:,}); use fewer levels, a smaller per_level_scale or a smaller max_resolution"
            )
        resolution = math.ceil(scale) + 1
        vertices = resolution**in_dim
        entries = min(-(-vertices // 8) * 8, table)
        levels.append(Level(float(scale), resolution, entries, offset, hashed=vertices > table))
        offset += entries
    return GridLayout(in_dim, n_features, tuple(levels))


MAX_DIM, MAX_FEATURES = 4, 8
"""What the compiled engines were written for."""


def too_large(layout: GridLayout) -> str | None:
    """`None` when the compiled engines take a grid of these sizes, else why not."""
    if layout.in_dim > MAX_DIM or layout.n_features > MAX_FEATURES:
        return (
            f"it takes at most {MAX_DIM} dimensions and {MAX_FEATURES} features per level, "
            f"and this grid has {layout.in_dim} and {layout.n_features}"
        )
    return None
