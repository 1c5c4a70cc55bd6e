r"""The surface of a solid that a function describes, as triangles: marching cubes, slab by slab.

The function is known on a lattice of `resolution` cells along the longest side of a box, both faces included. What lies
outside the box counts as empty, so a solid that reaches the box's faces is closed there, by flat triangles in the faces
themselves: the mesh is always watertight, whatever the function.

The triangles of a cell come from scikit-image's ``marching_cubes(method="lorensen")``, on the signs of $f$ alone. The
vertex on a lattice edge with values $f_a, f_b$ at its ends $a, b$ is then placed here, in float64, at
$a + \frac{\text{level} - f_a}{f_b - f_a}(b - a)$. Knowing each vertex by its edge, not by its position, makes slabs fit
together exactly. The classic table is the one that closes always: how it cuts a face of a cell depends on the signs in
that face alone. (scikit-image's default, Lewiner's table, decides ambiguous faces by values and leaves cracks where
products of values tie, as those of a saturated field do.)

Source: W. E. Lorensen, H. E. Cline, "Marching cubes: a high resolution 3D surface construction algorithm", SIGGRAPH 1987.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from neuralfield.checks import choice, flag, integer, number
from neuralfield.errors import ConfigError, SignalError
from neuralfield.field import Field
from neuralfield.fitting.evaluation import evaluate as evaluate_field
from neuralfield.lattice import BRICK, SAFETY, Evaluate, Lattice, SparseLattice, axis_points
from neuralfield.signals.mesh import TriangleMesh

_MAX_RESOLUTION = 2048
_MIN_SPARSE = 4 * BRICK  # points a side: on fewer, every eighth says too little and the others cost little
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_SLAB_BYTES = 2**26
_BYTES_PER_POINT = 4 + 4 + 4 + 2  # of a slab: values, their copy when slabs are joined, signs for scikit-image, masks
# Of a vertex with its two triangles: while they are gathered, and when they are put together as float64 and int64.
_BYTES_GATHERED = 48
_BYTES_PER_VERTEX = 130


class NoSurfaceError(SignalError):
    """Nowhere on the lattice is there anything inside, so there is no surface at this level."""


def of_field(field: Field, channel: int = 0) -> Evaluate:
    """The function that :func:`extract` takes, of one channel of a field of three coordinates."""
    if field.in_dim != 3:
        raise ConfigError(f"only a field of 3 coordinates has a surface in space; this one has {field.in_dim}")
    integer("channel", channel, 0, field.out_dim - 1)
    return lambda points: evaluate_field(field, points)[:, channel]


def extract(
    evaluate: Callable[[Float[Tensor, "n 3"]], Tensor],
    resolution: int,
    *,
    level: float = 0.0,
    inside_is: str = "above",
    box: Sequence[Sequence[float]] = _UNIT,
    skip_empty: bool = False,
    safety: float = SAFETY,
    on_progress: Callable[[float], None] | None = None,
    memory: int = 2**30,
) -> TriangleMesh:
    r"""The boundary of $\{x \in \text{box} : f(x) > \text{level}\}$ (or $<$), in cube coordinates, watertight.

    Triangles are oriented outward: counter-clockwise seen from outside. A value equal to the level is outside. To leading
    order in the side h of a cell, vertices lie within $h^2 \max|f''| / (8 |\nabla f|)$ of the surface: what linear
    interpolation along an edge leaves.

    **Arguments**

    - `evaluate`: from float32 points ``[n, 3]`` in the box to values ``[n]``, see :func:`of_field`. It is asked for at
      most 2^18 points at once.
    - `resolution`: cells along the box's longest side, 1 to 2048; there is one lattice point more. Along the others as
      many as make cells nearest to cubes.
    - `level`, `inside_is`: what is solid: f "above" or "below" the level. Logits: 0, "above". Signed distances: 0, "below".
    - `box`: lower and upper corner, in [0, 1].
    - `skip_empty`: evaluate a coarse lattice first, then only near the level (where there are over 32 points a side). Finds
      each connected component of the surface as a whole or not at all; :class:`~neuralfield.lattice.SparseLattice` says
      which could be missed.
    - `safety`: how readily something is taken to be near the level, see there; 0 follows what the coarse lattice shows.
    - `on_progress`: called with the fraction done, increasing to 1.
    - `memory`: bytes to stay below, the result's vertices and faces included (the function's own work space is not). The
      lattice is never held as a whole.

    Raises :class:`NoSurfaceError` if nothing is inside; :class:`~neuralfield.errors.SignalError` if a value is NaN or the
    function does not give one value for each point; :class:`~neuralfield.errors.ConfigError` for a wrong option or a
    surface of too many triangles for `memory`.
    """
    level = float(np.float32(number("level", level, -1e38, 1e38)))
    choice("inside_is", inside_is, ("above", "below"))
    flag("skip_empty", skip_empty)
    number("safety", safety, 0)
    axes = _axes(integer("resolution", resolution, 1, _MAX_RESOLUTION), box)
    plane = (len(axes[1]) + 2) * (len(axes[2]) + 2) * _BYTES_PER_POINT
    slab = min(_SLAB_BYTES, integer("memory", memory, 1) // 4)
    if slab < 2 * plane:
        raise ConfigError(
            f"memory={memory} does not hold a few layers of {len(axes[1])} x {len(axes[2])} points; give at least {8 * plane}"
        )
    progress = _Progress(on_progress)
    lattice = _lattice(evaluate, axes, level, safety if skip_empty else None, memory, progress)
    most = min((memory - lattice.held - slab) // _BYTES_GATHERED, memory // _BYTES_PER_VERTEX)
    surface = _Surface(axes, level, inside_is == "above", most)
    for first, values in lattice.slabs(slab // plane - 1):
        surface.add(first, values)
        progress.layers((first + len(values)) / len(axes[0]))
    del lattice  # with the values it kept
    mesh = surface.mesh()
    progress.done()
    return mesh


class _Surface:
    """Vertices and triangles of the slabs so far."""

    def __init__(self, axes: tuple[np.ndarray, np.ndarray, np.ndarray], level: float, above: bool, most: int) -> None:
        self._axes, self._level, self._above, self._most = axes, level, above, most
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._n_vertices = 0
        # Of the vertices in the layer that the next slab begins with: keys, increasing, and numbers.
        self._shared = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, first: int, values: Float32[np.ndarray, "layers y z"]) -> None:
        """Add the cells between the layers of `values`, of which the first is layer `first` of the lattice."""
        n_layers = len(values)
        at_start, at_end = first == 0, first + n_layers == len(self._axes[0])
        # One more layer on each face of the lattice, which is outside.
        inside = np.zeros((n_layers + at_start + at_end, values.shape[1] + 2, values.shape[2] + 2), bool)
        real = inside[int(at_start) : int(at_start) + n_layers, 1:-1, 1:-1]
        np.greater(values, self._level, out=real) if self._above else np.less(values, self._level, out=real)
        twice, faces = _march(inside)
        if not len(faces):
            self._shared = np.empty(0, np.int64), np.empty(0, np.int64)
            return
        twice += 2 * np.array([first - at_start, -1, -1])
        key, position = self._vertices_on(twice, first, values)
        key, where, which = np.unique(key, return_index=True, return_inverse=True)
        number = self._numbered(key, position[where])
        faces = number[which][faces]
        repeated = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
        self._faces.append(faces[~repeated].astype(np.int32))
        in_last_layer = (key >> 2) // (len(self._axes[1]) * len(self._axes[2])) == first + n_layers - 1
        self._shared = key[in_last_layer], number[in_last_layer]
        if self._n_vertices > self._most:
            done = (first + n_layers) / len(self._axes[0])
            raise ConfigError(
                f"the surface has over {sum(map(len, self._faces)):.2g} triangles in the first {done:.0%} of the box, more "
                "than fit into the memory granted; take a lower resolution or a part of the box"
            )

    def _vertices_on(
        self, twice: Int64[np.ndarray, "v 3"], first: int, values: Float32[np.ndarray, "layers y z"]
    ) -> tuple[Int64[np.ndarray, " v"], Float64[np.ndarray, "v 3"]]:
        """Keys and positions of the vertices in the middle of lattice edges, given by `twice` their lattice coordinates.

        An edge's key is its lower end's, with the edge's direction in the last two bits (0, 1, 2). An edge to the layer
        outside becomes the point in the face of the box that it starts from, with 3 for a direction.
        """
        size = np.array([len(axis) for axis in self._axes])
        low, odd = twice >> 1, twice & 1
        high = low + odd
        leaves = (low < 0).any(axis=1) | (high >= size).any(axis=1)
        low, high = np.clip(low, 0, size - 1), np.clip(high, 0, size - 1)
        direction = np.where(leaves, 3, odd.argmax(axis=1))
        key = ((low[:, 0] * size[1] + low[:, 1]) * size[2] + low[:, 2]) * 4 + direction
        ends = [values[p[:, 0] - first, p[:, 1], p[:, 2]].astype(np.float64) for p in (low, high)]
        rise = np.where(leaves, 1.0, ends[1] - ends[0])
        along = np.where(leaves, 0.0, (self._level - ends[0]) / rise)
        from_, to = (np.stack([axis[p[:, i]] for i, axis in enumerate(self._axes)], axis=-1) for p in (low, high))
        return key, from_ + along[:, None] * (to - from_)

    def _numbered(self, key: Int64[np.ndarray, " k"], position: Float64[np.ndarray, "k 3"]) -> Int64[np.ndarray, " k"]:
        """The numbers of vertices in the mesh: those of the layer shared with the last slab are there already."""
        keys, numbers = self._shared
        place = np.minimum(np.searchsorted(keys, key), max(len(keys) - 1, 0))
        known = keys[place] == key if len(keys) else np.zeros(len(key), bool)
        result = np.empty(len(key), np.int64)
        result[known] = numbers[place[known]]
        n_new = int((~known).sum())
        result[~known] = self._n_vertices + np.arange(n_new)
        self._vertices.append(position[~known])
        self._n_vertices += n_new
        return result

    def mesh(self) -> TriangleMesh:
        """All of it; what was gathered is given up."""
        if not self._n_vertices:
            side = "above" if self._above else "below"
            raise NoSurfaceError(
                f"there is no surface at the level {self._level:g}: no value of the lattice lies {side} it"
            )
        vertices = np.concatenate(self._vertices)
        self._vertices.clear()
        faces = np.empty((sum(map(len, self._faces)), 3), np.int64)
        start = 0
        for part in self._faces:
            faces[start : start + len(part)] = part
            start += len(part)
        self._faces.clear()
        return TriangleMesh(vertices, faces)


def _march(inside: Bool[np.ndarray, "a b c"]) -> tuple[Int64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Marching cubes on signs: twice the vertices' lattice coordinates (the middles of edges), and outward triangles."""
    from skimage.measure import marching_cubes

    cut = []
    for axis in range(3):
        some = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        if not len(some):
            return np.empty((0, 3), np.int64), np.empty((0, 3), np.int64)
        cut.append(slice(max(int(some[0]) - 1, 0), int(some[-1]) + 2))
    part = inside[tuple(cut)]
    signs = np.where(part, np.float32(1), np.float32(-1))
    vertices, faces, _, _ = marching_cubes(signs, 0.0, method="lorensen", gradient_direction="ascent")
    twice = np.rint(2 * vertices).astype(np.int64) + 2 * np.array([c.start for c in cut])
    return twice, faces.astype(np.int64)


def _lattice(
    evaluate: Evaluate,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    level: float,
    safety: float | None,
    memory: int,
    progress: _Progress,
) -> Lattice:
    if safety is not None and min(map(len, axes)) > _MIN_SPARSE:
        # Half of the memory for values; the surface has its own share, and is small where bricks are few.
        capacity = memory // 2 // (4 * BRICK**3)
        sparse = SparseLattice(evaluate, axes, level, capacity, progress.points, progress.expect, safety)
        if sparse.complete:
            return sparse
        progress.restart()
    progress.expect(int(np.prod([len(axis) for axis in axes])))
    return Lattice(evaluate, axes, progress.points)


def _axes(resolution: int, box: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of the lattice's points along each axis."""
    try:
        low, high = ([number("box", float(c), 0, 1) for c in corner] for corner in box)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a box is two corners of three numbers in [0, 1], got {box!r}") from error
    if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
        raise ConfigError(f"a box is a lower and an upper corner of three numbers each, got {box!r}")
    sides = [b - a for a, b in zip(low, high, strict=True)]
    cells = [max(1, round(resolution * side / max(sides))) for side in sides]
    x, y, z = (axis_points(a, b, n) for a, b, n in zip(low, high, cells, strict=True))
    return x, y, z


class _Progress:
    """The fraction done: nine tenths are evaluations, the rest is marching."""

    def __init__(self, report: Callable[[float], None] | None) -> None:
        self._report = report
        self._expected = self._evaluated = 0
        self._marched = self._shown = 0.0

    def expect(self, points: int) -> None:
        self._expected += points

    def restart(self) -> None:
        self._expected = self._evaluated = 0

    def points(self, count: int) -> None:
        self._evaluated += count
        self._show()

    def layers(self, fraction: float) -> None:
        self._marched = min(fraction, 1.0)
        self._show()

    def done(self) -> None:
        self._show(1.0)

    def _show(self, fraction: float | None = None) -> None:
        if fraction is None:
            share = min(1.0, self._evaluated / self._expected) if self._expected else 0.0
            fraction = 0.9 * share + 0.1 * self._marched
        if self._report is not None and fraction > self._shown:
            self._shown = fraction
            self._report(fraction)
