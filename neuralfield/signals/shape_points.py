r"""Where the points lie at which a solid is learned and judged.

All points are float32 in $[0, 1]^3$, a pure function of the solid and the seed, made in blocks, and ordered along Morton's
curve, so that neighbours in memory are neighbours in space: batches with one point of each stretch
(:mod:`~neuralfield.signals.sampling`) are spread evenly, and tables and trees are read in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt64

from neuralfield import checks
from neuralfield.errors import ConfigError
from neuralfield.signals.colour import Option
from neuralfield.signals.solid import Solid

_BLOCK = 1 << 18
_MOST = 2**30  # points; their coordinates alone take 12 GiB

TEST_NOISE = 0.01
TEST_MARGIN = 1e-3
"""Both in units of the object's longest side: the near-surface noise and the widening of the box of the test sets."""


@dataclass(frozen=True)
class ShapePoints:
    r"""A mixture of points for training: some anywhere, most near the surface.

    With the object's longest side L, the share of the points near the surface is divided equally between the widths w:
    points uniform on the surface, plus noise $\mathcal{N}(0, (wL)^2)$ along each axis. Those that would leave the cube are
    mirrored at its sides, which keeps their density smooth: clamping would heap them up there.

    **Arguments**

    - `n`: how many points, 1 to 2^30; memory while they are made: 45 bytes each.
    - `uniform`: the share of them that is uniform in the whole cube, 0 to 1.
    - `widths`: the standard deviations w, above 0 and at most 1; one number or several.
    - `seed`: of everything random.

    Raises :class:`~neuralfield.errors.ConfigError` for anything else. As attributes they are int, float, tuple and int.
    """

    n: Option = 2**22
    uniform: Option = 0.4
    widths: Option = (0.002, 0.005, 0.02)
    seed: Option = 0

    def __post_init__(self) -> None:
        given = [self.widths] if isinstance(self.widths, (int, float)) else self.widths
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise ConfigError(f"signal.widths must be numbers such as [0.002,0.005,0.02], got {self.widths!r}")
        widths = tuple(checks.number("signal.widths", width, 0, 1, above=True) for width in given)
        object.__setattr__(self, "n", checks.integer("signal.points", self.n, 1, _MOST))
        object.__setattr__(self, "uniform", checks.number("signal.uniform", self.uniform, 0, 1))
        object.__setattr__(self, "seed", checks.integer("signal.seed", self.seed, 0))
        object.__setattr__(self, "widths", widths)
        if not widths and self.uniform < 1:
            raise ConfigError(
                f"signal.widths is empty and signal.uniform={self.uniform:g} leaves points for near the surface; give "
                "widths such as [0.002,0.005,0.02], or signal.uniform=1"
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """How many points are uniform, then how many there are of each width; together n."""
        near = self.n - round(self.uniform * self.n) if self.widths else 0
        each = len(self.widths)
        return (self.n - near, *(near // each + (k < near % each) for k in range(each)))

    def draw(self, solid: Solid, on_progress: Callable[[float], None] | None = None) -> Float32[np.ndarray, "n 3"]:
        """The points, in Morton's order. `on_progress` is called with the fraction done."""
        longest, points, done = _longest(solid), np.empty((self.n, 3), np.float32), 0
        for kind, count in enumerate(self.counts):
            for size, rng in _blocks(count, self.seed, kind):
                if kind == 0:
                    block = rng.random((size, 3), np.float32)
                else:
                    block = _near(solid, size, self.widths[kind - 1] * longest, rng)
                points[done : done + size] = block
                done += size
                if on_progress is not None:
                    on_progress(done / self.n)
        return points[along_curve(points)]


def uniform_test(solid: Solid, n: int = 2**18, seed: int = 0) -> Float32[np.ndarray, "n 3"]:
    """Points for judging, uniform in the solid's bounding box widened by 1e-3 of its longest side (and in the cube).

    The protocol of Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains", 2020, 3D shape regression: there, too, 2^18 points.
    """
    beyond = TEST_MARGIN * _longest(solid)
    low, high = (np.clip(bound, 0, 1) for bound in (solid.box[0] - beyond, solid.box[1] + beyond))
    blocks = [low + (high - low) * rng.random((size, 3)) for size, rng in _blocks(n, seed, 100)]
    points = np.concatenate(blocks).astype(np.float32)
    return points[along_curve(points)]


def surface_test(solid: Solid, n: int = 2**18, seed: int = 0) -> Float32[np.ndarray, "n 3"]:
    r"""Points for judging near the surface: uniform by area on it, plus $\mathcal{N}(0, (0.01\,L)^2)$ along each axis.

    The protocol of Tancik et al. 2020; L is the object's longest side, about 1 in their units. (Their code draws the
    triangles with equal probability instead of by area.)
    """
    blocks = [_near(solid, size, TEST_NOISE * _longest(solid), rng) for size, rng in _blocks(n, seed, 101)]
    points = np.concatenate(blocks).astype(np.float32)
    return points[along_curve(points)]


def along_curve(points: Float[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """The order of points of the unit cube along Morton's curve through 2^21 cells per axis; equal ones stay in order."""
    key = np.empty(len(points), np.uint64)
    for first in range(0, len(points), _BLOCK):
        key[first : first + _BLOCK] = morton_code(points[first : first + _BLOCK])
    return np.argsort(key, kind="stable")


def morton_code(points: Float[np.ndarray, "n 3"]) -> UInt64[np.ndarray, " n"]:
    r"""63 bits: bit $3b + a$ is bit b of $\lfloor 2^{21} x_a \rfloor$ for axes a = 0, 1, 2 (Morton 1966)."""
    code = np.zeros(len(points), np.uint64)
    for axis in range(3):
        cell = np.clip(points[:, axis].astype(np.float64) * 2**21, 0, 2**21 - 1).astype(np.uint64)
        for shift, mask in _SPREAD:  # halves move apart, then quarters, ..., until two zeros follow each bit
            cell = (cell | (cell << shift)) & mask
        code |= cell << np.uint64(axis)
    return code


_SPREAD = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )
)


def mirrored(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Points brought into the unit cube by mirrors at its sides; those inside stay as they are."""
    folded = 1 - np.abs(1 - np.mod(points, 2))
    return np.where((points >= 0) & (points <= 1), points, folded)


def _near(solid: Solid, n: int, width: float, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
    points = solid.surface(n, rng)
    return mirrored(points + width * rng.standard_normal(points.shape))


def _longest(solid: Solid) -> float:
    low, high = solid.box
    return float((high - low).max())


def _blocks(n: int, seed: int, kind: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Sizes of blocks and a generator of its own for each, so that no block depends on another."""
    for k in range(math.ceil(n / _BLOCK)):
        yield min(_BLOCK, n - k * _BLOCK), np.random.default_rng((seed, kind, k))
