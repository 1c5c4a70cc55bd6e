"""What a finished fit of a shape leaves in its folder: how well it is met, its surface and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch

from neuralfield.errors import ConfigError
from neuralfield.extraction import NoSurfaceError, extract, of_field
from neuralfield.field import Field
from neuralfield.files import atomic
from neuralfield.fitting.eikonal import gradient
from neuralfield.fitting.evaluation import evaluate
from neuralfield.fitting.progress import Notes, Silent
from neuralfield.mesh_export import write_mesh
from neuralfield.run_folder import COMPARISON, MESH, RECONSTRUCTION, TRUTH
from neuralfield.shape_metrics import nearest_on, surface_quality
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from neuralfield.signals.shape import ShapeSignal
from neuralfield.viz.shape_figure import cuts, shaded, shape_comparison
from neuralfield.viz.viewpoint import best_view

MEASURED = ("chamfer_l1", "chamfer_l2", "accuracy", "completeness", "f_score", "normal_consistency")
"""What is measured on surfaces, see :mod:`neuralfield.shape_metrics`."""
SIDE = 800
"""Pixels of the pictures of the surface alone."""
RESOLUTION = 256
"""Cells of the mesh along the cube's side."""
_PORTION = 2**14


def write(
    signal: ShapeSignal,
    field: Field,
    known: Mapping[str, Any],
    folder: Path,
    *,
    mesh: Mapping[str, Any],
    tell: Silent,
    **_: Any,
) -> dict[str, Any]:
    """Write the surface and its comparison into `folder`; returns what was measured, lengths in parts of the longest side.

    `known` are the numbers of the fit, for captions; `mesh` the options of that group: `resolution`, and the axis `up` of
    pictures.
    """
    found: dict[str, Any] = dict(measure(signal, field))
    resolution = mesh.get("resolution", RESOLUTION)
    surface = _surface(signal, field, resolution, tell)
    truth, error = signal.truth_mesh(resolution), None
    longest = float(np.subtract(*reversed(signal.solid.box)).max())
    if surface is not None:
        write_mesh(folder / MESH, surface, signal.placement, comment=f"neuralfield: {signal.name}")
        # In parts of the longest side: the usual unit of these numbers, whatever the margin.
        unit = Placement(longest, (0.0, 0.0, 0.0))
        quality = surface_quality(truth.moved(unit), surface.moved(unit))
        found |= {key: quality[key] for key in MEASURED}
        error = nearest_on(truth, surface.vertices)[0] / longest
    up = mesh.get("up", "y")
    _draw(signal, field, truth, surface, error, {**known, **found}, folder, up)
    return found


def measure(signal: ShapeSignal, field: Field) -> dict[str, float]:
    """IoU on all of the signal's points for judging: uniform in the bounding box, and near the surface.

    Of a signed distance also the mean length of the field's gradient on the former, which is 1 for a distance, and the mean
    absolute error there.
    """
    found = {}
    for name, samples in signal.judged_on().items():
        index = samples.index(torch.arange(samples.n))
        points, truth = signal.coordinates(index), signal.values(index)
        values = evaluate(field, points)
        found[name] = signal.quality.measure(values, truth)
        if name == "iou_uniform" and not signal.logits:
            found["distance_error"] = float((values - truth).abs().mean())
            lengths = [gradient(field, part.to(field.device)).norm(dim=1).cpu() for part in points.split(_PORTION)]
            found["gradient_norm"] = float(torch.cat(lengths).mean())
    return found


def inside_is(kind: Any) -> str:
    """Where a field of a shape of that kind is inside: "above" or "below" zero."""
    return "below" if kind == "sdf" else "above"


def _surface(signal: ShapeSignal, field: Field, resolution: int, tell: Silent) -> TriangleMesh | None:
    notes = Notes(tell, f"extracting the surface on a lattice of {resolution}^3")
    where = inside_is(signal.kind)
    try:
        return extract(of_field(field), resolution, inside_is=where, skip_empty=True, safety=0, on_progress=notes)
    except (NoSurfaceError, ConfigError) as error:  # or one of more triangles than memory holds
        tell.note(f"no {MESH}: {error}")
        return None


def _draw(
    signal: ShapeSignal,
    field: Field,
    truth: TriangleMesh,
    surface: TriangleMesh | None,
    error: np.ndarray | None,
    numbers: Mapping[str, Any],
    folder: Path,
    up: str,
) -> None:
    above = inside_is(signal.kind) == "above"

    def inside(points: np.ndarray) -> np.ndarray:
        values = evaluate(field, torch.from_numpy(points.astype(np.float32)))[:, 0].numpy()
        found: np.ndarray = values > 0 if above else values < 0
        return found

    shown = ("encoding", "iou_uniform", "iou_surface", "f_score", "steps", "train_seconds", "n_parameters")
    camera = best_view(truth, surface, up=up)
    shape_comparison(
        truth,
        surface,
        error,
        title=f"{signal.name}: truth, fit and error",
        captions={key: numbers.get(key) for key in shown},
        path=folder / COMPARISON,
        cuts=cuts(signal.inside, inside, up=up),
        camera=camera,
        up=up,
    )
    for name, mesh in ((RECONSTRUCTION, surface), (TRUTH, truth)):
        with atomic(folder / name) as temporary:
            imageio.imwrite(temporary, shaded(mesh, camera=camera, width=SIDE, height=SIDE))
