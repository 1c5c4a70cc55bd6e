"""What the viewer shows of a field that is a shape: its surface, the surface that it was fitted to, and where they differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import yaml
from jaxtyping import Float, Float64, UInt8

from neuralfield.errors import SignalError
from neuralfield.extraction import extract, of_field
from neuralfield.run_folder import CONFIG, MESH
from neuralfield.shape_results import inside_is
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from neuralfield.viewer.runs import Run, signal_options

_MEMORY = 2**30


class ShapeModel:
    """Surfaces of a run of a shape, all in cube coordinates.

    **Arguments**

    - `run`: of a field of three coordinates.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.placement = placement_of(run)
        self._truth: TriangleMesh | None = None

    @property
    def up(self) -> str:
        """The axis that the run drew upwards: "y" or "z"."""
        try:
            config = yaml.safe_load((self._run.entry.folder / CONFIG).read_text(encoding="utf-8"))
            return "z" if config["mesh"]["up"] == "z" else "y"
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
            return "y"

    @property
    def has_mesh(self) -> bool:
        """Whether the run left a mesh of its fit."""
        return (self._run.entry.folder / MESH).is_file()

    def written(self) -> TriangleMesh:
        """The mesh that the run left. Raises :class:`~neuralfield.errors.SignalError` if it cannot be read."""
        from neuralfield.signals.mesh_files import read_mesh

        return read_mesh(self._run.entry.folder / MESH).moved(self.placement)

    def extracted(self, resolution: int, on_progress: Callable[[float], None] | None = None) -> TriangleMesh:
        """The field's surface with so many cells along the cube's side, by marching cubes.

        What `on_progress` raises ends it. Raises :class:`~neuralfield.extraction.NoSurfaceError` if nothing is inside.
        """
        return extract(
            of_field(self._run.field),
            resolution,
            inside_is=inside_is(self._run.signal.get("kind")),
            skip_empty=True,
            on_progress=on_progress,
            memory=_MEMORY,
        )

    def truth(self) -> TriangleMesh:
        """The surface that was fitted, from the file or the formula in the run's configuration.

        Raises one of the package's errors if it is not known or cannot be read, and
        :class:`~neuralfield.errors.SignalError` if the file has changed since.
        """
        if self._truth is None:
            self._truth = self._load_truth()
        return self._truth

    def errors(self, mesh: TriangleMesh) -> Float64[np.ndarray, " v"]:
        """Distance of each vertex of `mesh` to the truth, in parts of the truth's longest side.

        Raises what :meth:`truth` raises.
        """
        from neuralfield.shape_metrics import nearest_on

        low, high = self.truth().box
        return nearest_on(self.truth(), mesh.vertices)[0] / float((high - low).max())

    def _load_truth(self) -> TriangleMesh:
        options = signal_options(self._run)
        margin = options.get("margin", 0.05)
        if not options.get("path"):
            from neuralfield.signals.analytic import SOLIDS

            name = str(options.get("name", "gyroid"))
            if name not in SOLIDS:
                raise SignalError(f"there is no solid {name!r}; there are {', '.join(SOLIDS)}")
            return SOLIDS[name](margin).mesh()
        from neuralfield.signals.mesh_files import read_mesh
        from neuralfield.signals.mesh_repair import repaired

        path = str(options["path"])
        mesh, _ = repaired(read_mesh(path))
        known = self._run.signal.get("faces")
        if known is not None and known != len(mesh.faces):
            raise SignalError(
                f"{path} has changed since the fit ({known} triangles were fitted, {len(mesh.faces)} are there)"
            )
        return mesh.moved(self.placement)


def placement_of(run: Run) -> Placement:
    """Where the field's cube lies in the source's coordinates, as the field says; the cube itself where it does not."""
    scale, offset = run.signal.get("scale"), run.signal.get("offset")
    try:
        numbers = tuple(float(c) for c in offset)  # type: ignore[union-attr]
        size = float(scale)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Placement(1.0, (0.0, 0.0, 0.0))
    usable = len(numbers) == 3 and size > 0 and bool(np.isfinite([*numbers, size]).all())
    return Placement(size, numbers) if usable else Placement(1.0, (0.0, 0.0, 0.0))


def error_colours(errors: Float[np.ndarray, " v"], limit: float) -> UInt8[np.ndarray, "v 3"]:
    """sRGB bytes: light grey where there is no error, so that the form is seen, then yellow and red to nearly black."""
    from neuralfield.viz.shape_figure import error_ramp

    return np.rint(255 * error_ramp(np.clip(errors / limit, 0, 1))).astype(np.uint8)
