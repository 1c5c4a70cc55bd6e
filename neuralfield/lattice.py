r"""Values of a function at the points of a 3D lattice, layer by layer: all of them, or only those near a level set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from neuralfield.errors import SignalError

Evaluate = Callable[[Float[Tensor, "n 3"]], Shaped[Tensor, " n"]]
"""From float32 points ``[n, 3]`` to their values ``[n]``."""

POINTS = 1 << 18
"""The most points that are evaluated at once: coordinates and values take 4 MiB."""

BRICK = 8
"""Points along the side of a brick; the coarse lattice takes every eighth point."""

SAFETY = 1.5
_LARGEST = float(np.finfo(np.float32).max)
_SIDES = [d for d in itertools.product((-1, 0, 1), repeat=3) if any(d)]


class Lattice:
    r"""$(n_x + 1)(n_y + 1)(n_z + 1)$ points in a box, faces included, at which a function is known on demand.

    **Arguments**

    - `evaluate`: the function; called with at most :data:`POINTS` points.
    - `axes`: coordinates of the points along x, y and z, float64, increasing.
    - `on_points`: called with the number of points evaluated since the last call.

    **Attributes**

    - `shape`: points along x, y and z; `held`: bytes of values kept.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        axes: tuple[np.ndarray, np.ndarray, np.ndarray],
        on_points: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.axes = axes
        self.shape = tuple(len(axis) for axis in axes)
        self._float32 = [axis.astype(np.float32) for axis in axes]
        self.held = 0
        self._evaluate = evaluate
        self._on_points = on_points

    def layers(self, start: int, stop: int) -> Float32[np.ndarray, "layers y z"]:
        """Values at the points whose number along x is ``start`` to ``stop - 1``."""
        _, ny, nz = self.shape
        values = np.empty((stop - start) * ny * nz, np.float32)
        plane = np.stack(np.meshgrid(*self._float32[1:], indexing="ij"), axis=-1).reshape(-1, 2)
        together = max(1, POINTS // len(plane))
        for first in range(start, stop, together):
            count = min(together, stop - first)
            points = np.empty((count, len(plane), 3), np.float32)
            points[..., 0] = self._float32[0][first : first + count, None]
            points[..., 1:] = plane
            at = (first - start) * len(plane)
            values[at : at + count * len(plane)] = self.at(points.reshape(-1, 3))
            self._on_points(count * len(plane))
        return values.reshape(stop - start, ny, nz)

    def at(self, points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, " n"]:
        """Values at any points; infinities become the largest finite number of their sign.

        Raises :class:`~neuralfield.errors.SignalError` where a value is not a number.
        """
        values = np.empty(len(points), np.float32)
        for first in range(0, len(points), POINTS):
            part = points[first : first + POINTS]
            result = self._evaluate(torch.from_numpy(part)).detach().cpu()
            if result.numel() != len(part):
                raise SignalError(f"{len(part)} points gave values of shape {list(result.shape)}, not one for each")
            values[first : first + POINTS] = result.reshape(-1).float().numpy()
        wrong = np.isnan(values)
        if wrong.any():
            point = ", ".join(f"{c:.4g}" for c in points[int(wrong.argmax())])
            raise SignalError(f"the value at ({point}) is not a number, so there is no surface to find; fit again")
        return np.clip(values, -_LARGEST, _LARGEST, out=values)

    def slabs(self, layers: int) -> Iterator[tuple[int, Float32[np.ndarray, "layers y z"]]]:
        """Slabs of up to `layers` cells that share a layer with the next: (number of the first layer, values).

        What is shared is handed on, not evaluated again: with another batch around it a point's value can differ in
        its last bit, and so in its sign.
        """
        last: np.ndarray | None = None
        for first in range(0, self.shape[0] - 1, layers):
            stop = min(first + layers, self.shape[0] - 1) + 1
            new = self.layers(first if last is None else first + 1, stop)
            slab = new if last is None else np.concatenate([last, new])
            last = slab[-1:].copy()
            yield first, slab


class SparseLattice(Lattice):
    r"""A lattice that is evaluated near a level set alone; elsewhere it holds the largest or the smallest number.

    The points are cut into bricks of 8 x 8 x 8. First every eighth point is evaluated. A brick, which lies between
    eight of those, is wanted where $f - \text{level}$ changes its sign among the eight, or where it could reach zero
    between them: $\min |f - \text{level}| \le s \Delta$, with the safety s and $\Delta$ the largest difference between
    coarse neighbours within one coarse cell around. (A function of slope L has $\Delta \ge 8hL/\sqrt 3$ where the slope
    is steady, and comes within $8hL\sqrt3/2 = 1.5 \cdot 8hL/\sqrt3$ of what the nearest of the eight points says: hence
    s = 1.5 unless given.)
    Then the level set is followed: where an evaluated point and one beside it (of the 26 around) that was left out lie on
    different sides, the other's brick is evaluated too, until there is no such pair.

    So every connected component of the surface (that the whole lattice would give) is found as a whole or missed as a
    whole; missed is what lies wholly in bricks that seemed far from the level, such as a speck between the coarse points
    of a field that is nearly constant there.

    **Arguments**

    - `level`: of the set to find.
    - `safety`: s. With 0 only bricks whose corners differ in sign are wanted at first: cheap where f is far from the level
      and yet restless, as the logits of Fourier features are; what is then missed is smaller than a brick or two.
    - `capacity`: the most bricks to keep, 2 KiB each. If more are wanted, `complete` is False and nothing was gained.
    - `on_wanted`: called with the number of points that are to be evaluated, as it becomes known.
    """

    complete: bool

    def __init__(
        self,
        evaluate: Evaluate,
        axes: tuple[np.ndarray, np.ndarray, np.ndarray],
        level: float,
        capacity: int,
        on_points: Callable[[int], None] = lambda _: None,
        on_wanted: Callable[[int], None] = lambda _: None,
        safety: float = SAFETY,
    ) -> None:
        super().__init__(evaluate, axes, on_points)
        self._level = np.float32(level)
        coarse = self._coarse()
        # The side of a brick that is left out is that of any of its corners.
        above = coarse[:-1, :-1, :-1] > self._level
        self._side = np.where(above, np.float32(_LARGEST), np.float32(-_LARGEST))
        self._number = np.full(self._side.shape, -1, np.int32)
        self._values = np.empty((0, BRICK, BRICK, BRICK), np.float32)
        self.complete = True
        wanted = np.argwhere(_near(coarse, self._level, safety))
        n_known = 0
        while len(wanted):
            on_wanted(len(wanted) * BRICK**3)
            if n_known + len(wanted) > capacity:
                self.complete = False
                return
            if not len(self._values):  # memory is taken when it is written to, not now
                self._values = np.empty((min(capacity, self._number.size), BRICK, BRICK, BRICK), np.float32)
            self._number[tuple(wanted.T)] = np.arange(n_known, n_known + len(wanted))
            self._fill(wanted, n_known)
            n_known += len(wanted)
            wanted = self._entered(wanted)
        self.held = n_known * self._values[:1].nbytes

    def layers(self, start: int, stop: int) -> Float32[np.ndarray, "layers y z"]:
        _, ny, nz = self.shape
        values = np.empty((stop - start, ny, nz), np.float32)
        for bx in range(start // BRICK, (stop - 1) // BRICK + 1):
            low, high = max(start, bx * BRICK), min(stop, (bx + 1) * BRICK)
            side = self._side[bx]
            whole = np.empty((high - low, side.shape[0], BRICK, side.shape[1], BRICK), np.float32)
            whole[:] = side[:, None, :, None]
            by, bz = np.nonzero(self._number[bx] >= 0)
            whole[:, by, :, bz, :] = self._values[self._number[bx, by, bz], low - bx * BRICK : high - bx * BRICK]
            joined = whole.reshape(high - low, side.shape[0] * BRICK, side.shape[1] * BRICK)
            values[low - start : high - start] = joined[:, :ny, :nz]
        return values

    def _coarse(self) -> Float32[np.ndarray, "x y z"]:
        """Values at every eighth point, and at the last one along each axis."""
        every = []
        for axis in self._float32:
            n_bricks = -(-len(axis) // BRICK)
            every.append(axis[np.minimum(np.arange(n_bricks + 1) * BRICK, len(axis) - 1)])
        points = np.stack(np.meshgrid(*every, indexing="ij"), axis=-1)
        return self.at(points.reshape(-1, 3)).reshape(points.shape[:3])

    def _fill(self, bricks: Int64[np.ndarray, "m 3"], first: int) -> None:
        """Evaluate bricks and store them from number `first` on."""
        offsets = np.arange(BRICK)
        some = POINTS // BRICK**3
        for start in range(0, len(bricks), some):
            part = bricks[start : start + some]
            points = np.empty((len(part), BRICK, BRICK, BRICK, 3), np.float32)
            for axis in range(3):
                # A brick at the far side reaches beyond the lattice: its last point, again.
                index = np.minimum(part[:, axis, None] * BRICK + offsets, self.shape[axis] - 1)
                shape = [len(part), 1, 1, 1]
                shape[axis + 1] = BRICK
                points[..., axis] = self._float32[axis][index].reshape(shape)
            values = self.at(points.reshape(-1, 3))
            self._values[first + start : first + start + len(part)] = values.reshape(-1, BRICK, BRICK, BRICK)
            self._on_points(len(values))

    def _entered(self, bricks: Int64[np.ndarray, "m 3"]) -> Int64[np.ndarray, "k 3"]:
        """Bricks not evaluated so far beside whose points one of `bricks` has points on the other side."""
        found = np.zeros(self._number.shape, bool)
        for side in _SIDES:
            beside = bricks + np.array(side)
            there = np.all((beside >= 0) & (beside < self._number.shape), axis=1)
            there[there] = self._number[tuple(beside[there].T)] < 0
            if not there.any():
                continue
            to = tuple(beside[there].T)
            touching = tuple({-1: slice(0, 1), 0: slice(None), 1: slice(-1, None)}[d] for d in side)
            number = self._number[tuple(bricks[there].T)]
            part = (number, *touching)
            above = self._values[part] > self._level
            differs = (above != (self._side[to] > 0)[:, None, None, None]).any(axis=(1, 2, 3))
            found[tuple(index[differs] for index in to)] = True
        return np.argwhere(found)


def axis_points(low: float, high: float, cells: int) -> Float64[np.ndarray, " n"]:
    """`cells` + 1 coordinates from `low` to `high`, both exact."""
    return np.linspace(low, high, cells + 1)


def _corners(values: np.ndarray) -> Iterator[np.ndarray]:
    """The eight corners of each cell, as views."""
    for i, j, k in itertools.product((slice(None, -1), slice(1, None)), repeat=3):
        yield values[i, j, k]


def _near(coarse: Float[np.ndarray, "x y z"], level: np.float32, safety: float) -> Bool[np.ndarray, "cx cy cz"]:
    """Which coarse cells the level set crosses or could reach."""
    from scipy.ndimage import maximum_filter

    nearest = np.full(np.array(coarse.shape) - 1, np.inf, np.float32)
    n_above = np.zeros(nearest.shape, np.int8)
    for corner in _corners(coarse):
        # Half of each, because the difference of two largest numbers is infinite.
        np.minimum(nearest, np.abs(corner / 2 - level / 2), out=nearest)
        n_above += corner > level
    steepest = np.zeros(nearest.shape, np.float32)
    for axis in range(3):
        step = np.abs(np.diff(coarse / 2, axis=axis))
        others = [i for i in range(3) if i != axis]
        for shift in itertools.product((slice(None, -1), slice(1, None)), repeat=2):
            index: list[slice] = [slice(None)] * 3
            for other, cut in zip(others, shift, strict=True):
                index[other] = cut
            np.maximum(steepest, step[tuple(index)], out=steepest)
    steepest = maximum_filter(steepest, size=3, mode="nearest")
    return ((n_above > 0) & (n_above < 8)) | (nearest <= np.float32(safety) * steepest)
