"""What the viewer shows of a field that is a volume: slices at any depth, and the surface at a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8

from neuralfield.checks import choice
from neuralfield.extraction import extract, of_field
from neuralfield.field import Field
from neuralfield.fitting.evaluation import evaluate
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.volume import VolumeSignal

AXES = "xyz"
_LAYERS = 1 << 16  # points evaluated between two looks at whether the slice is still wanted
_PROBES = 48  # a side, for a first guess of a level
_UNKNOWN = 128  # voxels along the longest side where the field does not know its volume
_MEMORY = 2**30


@dataclass(frozen=True)
class Plane:
    """A slice: `axis` is the number of the one that it is perpendicular to, `rows` and `columns` of the others.

    Rows and columns both run along their axes upwards from the box's low side, as in the array [z, y, x].
    """

    axis: int
    rows: int
    columns: int


PLANES = (Plane(0, 2, 1), Plane(1, 2, 0), Plane(2, 1, 0))
"""Across x, y and z."""


class VolumeModel:
    """Draws slices of a volume (the fit, the truth or the error) and extracts surfaces. Values are the field's own.

    **Arguments**

    - `field`: of three coordinates.
    - `truth`: the volume that it was fitted to, or None.
    """

    def __init__(self, field: Field, truth: VolumeSignal | None = None) -> None:
        self.field, self.truth = field, truth
        known = field.signal if truth is None else truth.describe()
        self.low, self.high = _box(known.get("box"))
        sizes = [known.get(key) for key in ("width", "height", "depth")]
        longest = float((self.high - self.low).max())
        if all(isinstance(size, int) and size > 0 for size in sizes):
            self.voxels: tuple[int, int, int] = (int(sizes[0]), int(sizes[1]), int(sizes[2]))  # type: ignore[arg-type]
        else:
            x, y, z = (max(1, round(_UNKNOWN * side / longest)) for side in self.high - self.low)
            self.voxels = (x, y, z)
        low, high = known.get("low", 0.0), known.get("high", 1.0)
        usable = isinstance(low, (int, float)) and isinstance(high, (int, float)) and high > low
        self.range = (float(low), float(high)) if usable else (0.0, 1.0)

    @property
    def channels(self) -> int:
        """How many values there are at each point."""
        return self.field.out_dim

    def place(self, axis: int, voxel: float) -> float:
        """The cube coordinate along an axis of a voxel's middle; fractions lie between middles."""
        side = self.high[axis] - self.low[axis]
        return float(self.low[axis] + (voxel + 0.5) / self.voxels[axis] * side)

    def values(
        self,
        shown: str,
        axis: int,
        voxel: float,
        detail: float = 1.0,
        check: Callable[[], None] | None = None,
    ) -> Float32[np.ndarray, "rows columns channels"]:
        """A slice as numbers.

        **Arguments**

        - `shown`: "fit", "truth" or "error". The last two are known at voxels alone: at those nearest to `voxel`.
        - `axis`: 0, 1, 2 for the one across x, y, z. `voxel`: where along it.
        - `detail`: samples of the fit to a voxel's side.
        - `check`: called between portions; what it raises ends the work.
        """
        if choice("shown", shown, ("fit", "truth", "error")) != "fit":
            return self._known(shown, axis, voxel)
        plane = PLANES[axis]
        rows, columns = (
            max(2, round(self.voxels[k] * detail)) if self.voxels[k] > 1 else 1 for k in (plane.rows, plane.columns)
        )
        points = torch.empty(rows, columns, 3, dtype=torch.float64)
        points[..., axis] = self.place(axis, voxel)
        for k, n, shape in ((plane.rows, rows, (-1, 1)), (plane.columns, columns, (1, -1))):
            middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
            points[..., k] = (self.low[k] + middle * (self.high[k] - self.low[k])).reshape(shape)
        return self._evaluated(points.reshape(-1, 3).float(), check).reshape(rows, columns, -1)

    def levels(self) -> tuple[float, float, float]:
        """The lowest value, one that divides the volume in two, and the highest, of the first channel on a coarse lattice.

        The middle one is by N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Systems, Man,
        Cybernetics 9, 1979. Of a constant, or where nothing is finite, they are 0, 0.5 and 1.
        """
        from skimage.filters import threshold_otsu

        steps = [np.linspace(a, b, _PROBES) for a, b in zip(self.low, self.high, strict=True)]
        points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        values = evaluate(self.field, torch.from_numpy(points.astype(np.float32)))[:, 0].numpy()
        values = values[np.isfinite(values)]
        if not len(values) or values.max() <= values.min():
            return 0.0, 0.5, 1.0
        return float(values.min()), float(threshold_otsu(values)), float(values.max())

    def surface(
        self, level: float, resolution: int, channel: int = 0, on_progress: Callable[[float], None] | None = None
    ) -> TriangleMesh:
        """Where the fit's value is `level`, in cube coordinates, with so many cells along the box's longest side.

        What `on_progress` raises ends it. Raises :class:`~neuralfield.extraction.NoSurfaceError` if no value is higher.
        """
        box = self.low.tolist(), self.high.tolist()
        function = of_field(self.field, channel)
        return extract(function, resolution, level=level, box=box, on_progress=on_progress, memory=_MEMORY)

    def in_source(self, value: float) -> float:
        """A value of the field in the source's own units."""
        low, high = self.range
        return low + value * (high - low)

    def _known(self, shown: str, axis: int, voxel: float) -> Float32[np.ndarray, "rows columns channels"]:
        assert self.truth is not None
        n = self.voxels[axis]
        middle = (min(max(round(voxel), 0), n - 1) + 0.5) / n
        truth = self.truth.slice(AXES[axis], middle)
        if shown == "truth":
            return truth
        index = self.truth.slice_indices(AXES[axis], middle)
        fit = evaluate(self.field, self.truth.coordinates(index.reshape(-1))).numpy()
        return np.abs(fit.reshape(truth.shape) - truth)

    def _evaluated(
        self, points: Float[torch.Tensor, "n 3"], check: Callable[[], None] | None
    ) -> Float32[np.ndarray, "n channels"]:
        parts = []
        for part in points.split(_LAYERS):
            if check is not None:
                check()
            parts.append(evaluate(self.field, part).numpy())
        return np.concatenate(parts)


def windowed(
    values: Float[np.ndarray, "rows columns channels"], level: float, width: float, channel: int | None = None
) -> UInt8[np.ndarray, "rows columns 3"]:
    r"""A slice for the screen: $\text{level} \mp \text{width}/2$ become black and white (a radiologist's window).

    `channel` is shown as grey; None shows three channels as red, green and blue, and of other numbers the first. NaN is
    black.
    """
    if channel is None and values.shape[2] != 3:
        channel = 0
    picked = values if channel is None else values[..., channel : channel + 1]
    grey = np.nan_to_num((picked.astype(np.float64) - level) / max(width, 1e-9) + 0.5, posinf=1.0, neginf=0.0)
    levels = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _box(given: object) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
    """Lower and upper corner as the field says them; the cube's where it does not, or says something else."""
    try:
        low, high = np.asarray(given, np.float64)
        if low.shape == high.shape == (3,) and bool((low >= 0).all() and (low < high).all() and (high <= 1).all()):
            return low, high
    except (TypeError, ValueError):
        pass
    return np.zeros(3), np.ones(3)
