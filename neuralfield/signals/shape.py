"""A solid as a signal to fit: coordinates in, inside or distance out. :class:`ShapeSignal` and :func:`load_shape`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from neuralfield import checks
from neuralfield.errors import ConfigError, SignalError, nearest
from neuralfield.signals.analytic import SOLIDS
from neuralfield.signals.base import SampleSet, Signal
from neuralfield.signals.colour import Option
from neuralfield.signals.holdout import Split
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from neuralfield.signals.quality import IOU_OF_DISTANCES, IOU_OF_LOGITS
from neuralfield.signals.shape_labels import KINDS, TEST_POINTS, labelled_points
from neuralfield.signals.shape_points import ShapePoints
from neuralfield.signals.solid import FunctionSolid, MeshSolid, Points, Solid

_POINTS_PER_CELL = 8
_CROSSED = 1.5  # cells of a lattice that a unit of area crosses, per squared cell: the mean of |nx| + |ny| + |nz|


@dataclass(frozen=True)
class _Pools(Split):
    """Training samples come first, then the ones for judging."""

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return position + self.n_train


class ShapeSignal(Signal):
    r"""A solid, known at a pool of points that were labelled once.

    Samples 0 to n - 1 are the pool for training (:class:`~neuralfield.signals.shape_points.ShapePoints`); then come two
    sets of fresh points for judging, uniform in the bounding box and near the surface, by the protocol of Tancik et al.
    2020. Within each the points follow Morton's curve.

    - occupancy: 1 inside, 0 outside; a field gives the logarithm of the odds, positive inside.
    - sdf: distance to the surface, the cube's side being 1, negative inside.

    **Arguments**

    - `solid`: in cube coordinates.
    - `placement`: between the cube and the source's own coordinates.
    - `name`, `source`: what to call it, and where it came from.
    - `kind`: "occupancy" or "sdf".
    - `sampling`: where the training points lie.
    - `test_points`: in each of the two sets for judging.
    - `truncation`: distances beyond it are cut to it, in cube units; None for none.
    - `cache`: keep points and labels on disk (:func:`~neuralfield.signals.label_cache.cache_folder`), if the solid has an
      identity.
    - `notes`: what a person should know of it, such as what was repaired.
    - `on_progress`: called with a fraction, 0 to 1, while points are labelled.

    **Attributes**

    - `solid`, `placement`, `kind`, `notes`: as above. `n_train`, `n_heldout` are in `split`.

    Raises :class:`~neuralfield.errors.SignalError` if no point at all lies inside an occupancy.
    """

    type = "shape"
    in_dim, out_dim = 3, 1

    def __init__(
        self,
        solid: Solid,
        *,
        placement: Placement,
        name: str,
        source: str,
        kind: str = "occupancy",
        sampling: ShapePoints | None = None,
        test_points: Option = TEST_POINTS,
        truncation: Option = None,
        cache: Option = True,
        notes: Sequence[str] = (),
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        self.solid, self.placement, self.name, self.source = solid, placement, name, source
        self.kind = checks.choice("signal.kind", kind, KINDS)
        self.logits = kind == "occupancy"
        self.quality = IOU_OF_LOGITS if self.logits else IOU_OF_DISTANCES
        self.default_loss = "bce" if self.logits else "mape"
        self.sampling = sampling or ShapePoints()
        self.notes = list(notes)
        self._n_test = checks.integer("signal.test_points", test_points, 1)
        self.split = _Pools(self.sampling.n, 2 * self._n_test)
        self.truncation = _truncation(truncation, kind)
        checks.flag("signal.cache", cache)
        found = labelled_points(solid, kind, self.sampling, self._n_test, cache=cache, on_progress=on_progress)
        labels = torch.from_numpy(found.labels)
        self._points = torch.from_numpy(found.points)
        self._labels = labels if self.truncation is None else labels.clamp(-self.truncation, self.truncation)
        self._digest = found.digest
        self._check_inside()

    @classmethod
    def from_mesh(
        cls,
        mesh: TriangleMesh,
        *,
        name: str = "mesh",
        source: str = "mesh",
        margin: Option = 0.05,
        **options: Any,
    ) -> ShapeSignal:
        """The inside of a mesh in its own units; it is repaired first (:mod:`~neuralfield.signals.mesh_repair`).

        Args:
            mesh: vertices and faces.
            name: what to call it.
            source: where it came from.
            margin: between its longest side and the sides of the cube, 0 to 0.45.
            **options: those of :func:`load_shape` from `kind` to `on_progress`.
        """
        from neuralfield.signals.mesh_repair import repaired

        options = _options(options)
        mended, repair = repaired(mesh)
        low, high = (bound.tolist() for bound in mended.box)
        placement = Placement.around(low, high, margin=checks.number("signal.margin", margin, 0, 0.45))
        solid = MeshSolid(mended.moved(placement), name)
        notes = [words] if (words := repair.words()) else []
        return cls(solid, placement=placement, name=name, source=source, notes=notes, **options)

    @classmethod
    def from_function(
        cls,
        inside: Callable[[np.ndarray], Any],
        low: Sequence[float],
        high: Sequence[float],
        *,
        name: str = "function",
        margin: Option = 0.05,
        **options: Any,
    ) -> ShapeSignal:
        """Whatever a function says is inside of a box: ``inside(points [n, 3]) -> [n]`` truth values.

        Its surface is found by marching cubes with 256 cells along the box's longest side: what is thinner is missed near
        the surface, and distances are to those triangles. Nothing is cached, because a function has no identity.

        Args:
            inside: takes float64 points in its own units, at most 2^18 at a time.
            low: the box's lowest x, y, z; beyond the box nothing is inside.
            high: its highest.
            name: what to call it.
            margin: between the box's longest side and the sides of the cube, 0 to 0.45.
            **options: those of :func:`load_shape` from `kind` to `on_progress`.
        """
        options = _options(options)
        placement = Placement.around(low, high, margin=checks.number("signal.margin", margin, 0, 0.45))
        solid = FunctionSolid(inside, low, high, placement, name)
        return cls(solid, placement=placement, name=name, source="function", **options)

    @property
    def n_samples(self) -> int:
        """Training points and points for judging."""
        return self.split.n_train + self.split.n_heldout

    def coordinates(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Points in the cube, float32 in [0, 1], on the device of ``index``."""
        return self._points[index.to(self._points.device)].to(index.device)

    def values(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        """1 or 0, or a distance; float32, on the device of ``index``."""
        return self._labels[index.to(self._labels.device)].float()[:, None].to(index.device)

    def judged_on(self) -> dict[str, SampleSet]:
        """The set that is uniform in the bounding box, and the one near the surface, which decides."""
        n, train = self._n_test, self.split.n_train
        return {
            "iou_uniform": SampleSet(n, lambda position: position + train),
            "iou_surface": SampleSet(n, lambda position: position + (train + n)),
        }

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """The truth at any points of the cube, ``[n, 3]``."""
        return self.solid.inside(points)

    def signed_distance(self, points: Points) -> Float64[np.ndarray, " n"]:
        """Distance to the surface, negative inside, the cube's side being 1; not truncated."""
        return self.solid.signed_distance(points)

    def truth_mesh(self, resolution: int | None = None) -> TriangleMesh:
        """The surface in cube coordinates: the repaired mesh, or marching cubes of a formula (256 cells unless given)."""
        return self.solid.mesh(resolution)

    @property
    def size(self) -> str:
        """How many triangles, of a mesh, and how many training points."""
        faces = f"{len(self.solid.mesh().faces):,} triangles, " if isinstance(self.solid, MeshSolid) else ""
        return f"{faces}{self.split.n_train:,} points"

    @property
    def lattice(self) -> float:
        r"""Cells along the cube's side such that one at the surface holds eight training points, on average.

        Around an area A, n points with Gaussian noise of width w have the density $n / (A\,w \sqrt{2\pi})$ there. With a
        few points to a cell a grid learns the points instead of the shape: on a scan with two million points a grid of 512
        reached an IoU near the surface of 0.961 and then lost 0.01 of it, one of 256 reached 0.972 and kept it.
        """
        low, high = self.solid.box
        uniform, *near = self.sampling.counts
        density = float(uniform)
        for count, width in zip(near, self.sampling.widths, strict=False):
            density += count / (self.solid.area * width * float((high - low).max()) * math.sqrt(2 * math.pi))
        return max(1.0, (density / _POINTS_PER_CELL) ** (1 / 3))

    @property
    def details(self) -> int:
        r"""About how many cells of that lattice the surface crosses, $\tfrac32 A\,N^2$; at most all training points."""
        crossed = _CROSSED * self.solid.area * self.lattice**2
        return max(1, min(self.split.n_train, math.ceil(crossed)))

    @property
    def highest_frequency(self) -> float:
        """32 cycles per side of the cube: the six octaves of Tancik et al. 2020 for occupancy."""
        return 32.0

    @property
    def bandwidth(self) -> float:
        """5 cycles per side of the cube; 10, as for images, was worse at every number of steps that a CPU reaches."""
        return 5.0

    def warnings(self) -> list[str]:
        """What was repaired, and whether nothing is inside."""
        return [f"{self.name}: {note}" for note in self.notes]

    def describe(self) -> dict[str, Any]:
        """What this signal is, as plain values for a report or a JSON file; lengths are the cube's but for the scale."""
        low, high = self.solid.box
        faces = len(self.solid.mesh().faces) if isinstance(self.solid, MeshSolid) else None
        return {
            "type": self.type,
            "kind": self.kind,
            "name": self.name,
            "source": self.source,
            "box": [low.tolist(), high.tolist()],
            "scale": self.placement.scale,
            "offset": list(self.placement.offset),
            "faces": faces,
            "surface_area": self.solid.area,
            "notes": list(self.notes),
            "n_train": self.split.n_train,
            "n_heldout": self.split.n_heldout,
            "uniform": self.sampling.uniform,
            "widths": list(self.sampling.widths),
            "truncation": self.truncation,
            "seed": self.sampling.seed,
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the points, their labels and their kind."""
        return hashlib.sha256(f"{self.kind} {self.truncation} {self._digest}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"ShapeSignal({self.name!r}, {self.kind}, {self.size})"

    def _check_inside(self) -> None:
        """Refuse an occupancy without an inside, and say so of distances."""
        inside = self._labels if self.logits else self._labels < 0
        if bool(inside.any()):
            return
        said = f"none of {len(inside):,} points lies inside"
        why = f" ({'; '.join(self.notes)})" if self.notes else ""
        if self.logits:
            raise SignalError(
                f"{self.name}: {said}{why}: it encloses nothing, so there is no occupancy to fit. Close its surface "
                "or give it thickness, or fit the distance to it with signal.kind=sdf"
            )
        self.notes.append(f"{said}: distances have no sign, and the intersection over union says nothing")


def load_shape(
    path: str | Path | None = None,
    name: str = "gyroid",
    *,
    kind: str = "occupancy",
    points: Option = 2**22,
    uniform: Option = 0.4,
    widths: Option = (0.002, 0.005, 0.02),
    test_points: Option = TEST_POINTS,
    margin: Option = 0.05,
    truncation: Option = None,
    holdout: str = "none",
    cache: Option = True,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> ShapeSignal:
    """Load a mesh, or a solid that a formula describes, as a signal.

    Args:
        path: a mesh; when given, ``name`` is not looked at. Formats: :func:`neuralfield.signals.mesh_files.read_mesh`.
        name: one of :data:`neuralfield.signals.analytic.SOLIDS`: gyroid, torus, sphere, menger, csg.
        kind: "occupancy": inside or not. "sdf": signed distance in units of the cube's side.
        points: how many points train. About 13 bytes each stay in memory, and on disk.
        uniform: the share of them anywhere in the cube, 0 to 1; the others lie near the surface.
        widths: how near: standard deviations of the noise, in units of the object's longest side; equal shares.
        test_points: in each of the two sets that a fit is judged on.
        margin: between the object's longest side and the sides of the cube, 0 to 0.45.
        truncation: cut distances to at most this, in cube units; only for "sdf".
        holdout: only "none": fits are judged on fresh points anyway.
        cache: keep points and labels on disk for the next run.
        seed: of the points.
        on_progress: called with a fraction, 0 to 1, while points are labelled.

    Raises:
        SignalError: the file cannot be used. ConfigError: an option has a wrong name or value.
    """
    if holdout not in ("none", None):
        raise ConfigError(
            f"signal.holdout={holdout} is for images and volumes: a shape is judged on {2 * TEST_POINTS:,} fresh points "
            "that never train; use signal.holdout=none"
        )
    options: dict[str, Any] = {
        "kind": kind,
        "points": points,
        "uniform": uniform,
        "widths": widths,
        "test_points": test_points,
        "truncation": truncation,
        "cache": cache,
        "seed": seed,
        "on_progress": on_progress,
    }
    if path is not None and str(path) != "":
        from neuralfield.signals.mesh_files import read_mesh

        _options(options)  # a wrong one is said before a large file is read
        return ShapeSignal.from_mesh(read_mesh(path), name=Path(path).stem, source=str(path), margin=margin, **options)
    if name not in SOLIDS:
        raise ConfigError(
            f"there is no solid {name!r}{nearest(str(name), SOLIDS)}; there are {', '.join(SOLIDS)}. A mesh of your "
            "own is given with signal.path=mesh.obj"
        )
    solid = SOLIDS[name](margin)
    placement = Placement(1.0, (0.0, 0.0, 0.0))
    return ShapeSignal(solid, placement=placement, name=name, source=f"solid:{name}", **_options(options))


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Options of :func:`load_shape` as arguments of :class:`ShapeSignal`, checked."""
    options = dict(given)
    fields = {"points": "n", "uniform": "uniform", "widths": "widths", "seed": "seed"}
    options["sampling"] = ShapePoints(**{fields[k]: options.pop(k) for k in list(options) if k in fields})
    kind = checks.choice("signal.kind", options.setdefault("kind", "occupancy"), KINDS)
    _truncation(options.get("truncation"), kind)
    checks.integer("signal.test_points", options.get("test_points", TEST_POINTS), 1)
    checks.flag("signal.cache", options.get("cache", True))
    return options


def _truncation(value: Any, kind: str) -> float | None:
    if value is None:
        return None
    if kind != "sdf":
        raise ConfigError(
            f"signal.truncation={value} cuts distances, and signal.kind={kind} has none; leave it out, or fit distances "
            "with signal.kind=sdf"
        )
    return checks.number("signal.truncation", value, 0, above=True)
