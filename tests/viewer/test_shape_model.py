"""Surfaces of a run of a shape: in cube coordinates, whatever the source's are, and how far they are from the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from neuralfield.errors import NeuralFieldError, SignalError
from neuralfield.extraction import NoSurfaceError
from neuralfield.mesh_export import write_mesh
from neuralfield.signals.analytic import SOLIDS
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from neuralfield.viewer.runs import find_runs, open_run
from neuralfield.viewer.shape_model import ShapeModel, error_colours, placement_of
from tests.viewer.conftest import linear_field

OCTAHEDRON = TriangleMesh(
    np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float),
    np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]),
)


def model_of(folder: Path) -> ShapeModel:
    return ShapeModel(open_run(find_runs([folder])[0]))


@pytest.mark.parametrize(("kind", "weight", "bias"), [("occupancy", -4, 2), ("sdf", 1, -0.5)])
def test_the_inside_of_each_kind(make_run: Callable[..., Path], kind: str, weight: float, bias: float) -> None:
    folder = make_run("half", linear_field([[weight, 0, 0]], [bias], {"type": "shape", "kind": kind}))
    fractions: list[float] = []
    mesh = model_of(folder).extracted(40, fractions.append)
    low, high = mesh.box
    assert np.allclose(low, 0) and np.allclose(high, [0.5, 1, 1]) and mesh.volume == pytest.approx(0.5)
    assert fractions[-1] == 1 and not model_of(folder).has_mesh


def test_nothing_inside(make_run: Callable[..., Path]) -> None:
    model = model_of(make_run("empty", linear_field([[0, 0, 0]], [-1], {"type": "shape", "kind": "occupancy"})))
    with pytest.raises(NoSurfaceError):
        model.extracted(16)


def test_the_written_mesh_comes_back_into_the_cube(shape_run: Path, make_run: Callable[..., Path]) -> None:
    place = Placement(20.0, (-5.0, 3.0, 7.0))
    said = {"type": "shape", "kind": "occupancy", "scale": place.scale, "offset": list(place.offset)}
    folder = make_run("placed", linear_field([[-4, 0, 0]], [2], said))
    inside = OCTAHEDRON.moved(Placement(4.0, (-2.0, -2.0, -2.0)))  # in the cube, half as large
    write_mesh(folder / "mesh.ply", inside, place)
    model = model_of(folder)
    assert model.has_mesh and np.allclose(model.written().vertices, inside.vertices, atol=1e-6)
    (folder / "mesh.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\n")
    with pytest.raises(SignalError):
        model_of(folder).written()


def test_the_truth_of_a_formula_and_the_distance_to_it(shape_run: Path) -> None:
    model = model_of(shape_run)
    truth = model.truth()
    assert np.abs(np.linalg.norm(truth.vertices - 0.5, axis=1) - 0.45).max() < 1e-6 and model.truth() is truth
    # A sphere that is larger by a tenth of the radius is a twentieth of the longest side away, up to the facets.
    small = SOLIDS["sphere"](0.05).mesh(24)
    assert model.errors(small).max() < 1e-4
    grown = TriangleMesh(0.5 + 1.1 * (small.vertices - 0.5), small.faces)
    assert np.abs(model.errors(grown) - 0.05).max() < 1e-4


def test_the_truth_of_a_file(make_run: Callable[..., Path], tmp_path: Path) -> None:
    write_mesh(tmp_path / "octahedron.off", OCTAHEDRON)
    place = Placement.around((-1, -1, -1), (1, 1, 1), margin=0.05)
    said = {"type": "shape", "kind": "sdf", "scale": place.scale, "offset": list(place.offset), "faces": 8}
    config = {"signal": {"type": "shape", "path": str(tmp_path / "octahedron.off"), "margin": 0.05}}
    folder = make_run("run", linear_field([[1, 0, 0]], [-0.5], said), config=config)
    low, high = model_of(folder).truth().box
    assert np.allclose(low, 0.05) and np.allclose(high, 0.95)
    write_mesh(tmp_path / "octahedron.off", TriangleMesh(OCTAHEDRON.vertices, OCTAHEDRON.faces[:7]))
    with pytest.raises(SignalError, match="has changed since the fit"):
        model_of(folder).truth()
    (tmp_path / "octahedron.off").unlink()
    with pytest.raises(NeuralFieldError):
        model_of(folder).truth()


@pytest.mark.parametrize("options", [{"name": "cubicle"}, {"name": "sphere", "margin": "wide"}, {"path": "no.obj"}])
def test_a_truth_that_is_not_to_be_had(shape_run: Path, options: dict) -> None:
    (shape_run / "config.yaml").write_text(yaml.safe_dump({"signal": options}))
    with pytest.raises(NeuralFieldError):
        model_of(shape_run).truth()


def test_the_axis_upwards_is_that_of_the_runs_pictures(shape_run: Path) -> None:
    assert model_of(shape_run).up == "y"
    for content, up in (("mesh: {up: z}", "z"), ("mesh: {up: 3}", "y"), ("mesh: 3", "y"), ("{", "y"), ("", "y")):
        (shape_run / "config.yaml").write_text(content)
        assert model_of(shape_run).up == up
    (shape_run / "config.yaml").unlink()
    assert model_of(shape_run).up == "y"


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [(2, [1, 2, 3], (2.0, (1.0, 2.0, 3.0))), (None, None, None), (0, [0, 0, 0], None), (-1, [0, 0, 0], None),
     (1, [0, 0], None), ("a", [0, 0, 0], None), (1, ["a", 0, 0], None), (1, [float("nan"), 0, 0], None), (1, 3, None)],
)  # fmt: skip
def test_what_a_field_says_of_its_place(make_run: Callable[..., Path], scale, offset, expected) -> None:
    said = {"type": "shape", "scale": scale, "offset": offset}
    run = open_run(find_runs([make_run("run", linear_field([[1, 0, 0]], [0], said))])[0])
    place = placement_of(run)
    assert (place.scale, place.offset) == (expected or (1.0, (0.0, 0.0, 0.0)))


def test_the_colours_of_errors_begin_light_and_grow_dark() -> None:
    colours = error_colours(np.array([0.0, 0.005, 0.01, 0.5]), 0.01).astype(int)
    assert colours[0].tolist() == [227, 230, 236] and (colours[2] == colours[3]).all()
    assert colours[0].sum() > colours[1].sum() > colours[2].sum()
