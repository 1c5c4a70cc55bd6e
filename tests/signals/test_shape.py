"""Shapes as signals: what is sampled, what is true there, where it lies, and what is said of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralfield import signals
from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals.analytic import SOLIDS
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.shape import ShapeSignal, load_shape
from neuralfield.signals.solid import FunctionSolid
from tests.signals.meshes import box, inverted, joined, sheet, sphere

SMALL = {"points": 6000, "test_points": 2000}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEURALFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "labels"


def everything(signal: ShapeSignal) -> tuple[np.ndarray, np.ndarray]:
    index = torch.arange(signal.n_samples)
    return signal.coordinates(index).numpy(), signal.values(index).numpy()[:, 0]


def write_obj(path: Path, mesh: TriangleMesh) -> Path:
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["occupancy", "sdf"])
@pytest.mark.parametrize("name", ["sphere", "torus", "menger"])
def test_labels_are_the_truth_at_the_points(name: str, kind: str) -> None:
    signal = load_shape(name=name, kind=kind, **SMALL)
    points, values = everything(signal)
    assert points.shape == (10_000, 3) and points.dtype == values.dtype == np.float32
    solid = SOLIDS[name]()
    truth = solid.inside(points.astype(np.float64)) if kind == "occupancy" else solid.signed_distance(points)
    assert np.array_equal(values, truth.astype(np.float32))
    assert np.array_equal(signal.inside(points), solid.inside(points))
    assert np.array_equal(signal.signed_distance(points), solid.signed_distance(points))


@pytest.mark.parametrize(("kind", "loss"), [("occupancy", "bce"), ("sdf", "mape")])
def test_what_the_fit_is_told(kind: str, loss: str) -> None:
    signal = signals.load({"type": "shape", "name": "sphere", "kind": kind, **SMALL})
    assert isinstance(signal, ShapeSignal)
    assert (signal.type, signal.in_dim, signal.out_dim, signal.kind) == ("shape", 3, 1, kind)
    assert (signal.default_loss, signal.logits, signal.quality.key) == (loss, kind == "occupancy", "iou")
    _, values = everything(signal)
    truth = torch.from_numpy(values)[:, None]
    perfect = truth - 0.5 if kind == "occupancy" else truth
    assert signal.quality.measure(perfect, truth) == 1
    assert signal.quality.measure(-perfect, truth) == 0


def test_train_and_test_sets() -> None:
    signal = load_shape(name="torus", **SMALL)
    assert (signal.split.n_train, signal.split.n_heldout, signal.n_samples) == (6000, 4000, 10_000)
    position = torch.tensor([0, 5, 1999])
    assert signal.split.train(position).tolist() == [0, 5, 1999]
    assert signal.split.heldout(position).tolist() == [6000, 6005, 7999]
    judged = signal.judged_on()
    assert list(judged) == ["iou_uniform", "iou_surface"]  # what decides is the last
    uniform, surface = judged.values()
    assert uniform.n == surface.n == 2000
    assert uniform.index(position).tolist() == [6000, 6005, 7999]
    assert surface.index(position).tolist() == [8000, 8005, 9999]
    every = torch.arange(2000)
    away = [np.abs(signal.signed_distance(signal.coordinates(s.index(every)).numpy())) for s in (uniform, surface)]
    assert np.median(away[0]) > 0.03 and 0.005 < np.median(away[1]) < 0.008  # 0.6745 * 0.009 for a normal distribution
    low, high = signal.solid.box
    inside_box = signal.coordinates(uniform.index(every)).numpy()
    assert (inside_box >= low - 1e-3).all() and (inside_box <= high + 1e-3).all()


def test_a_mesh_is_placed_repaired_and_kept(tmp_path: Path, cache: Path) -> None:
    ball = sphere(n=1500, radius=3.0, centre=(10.0, -20.0, 30.0))
    path = write_obj(tmp_path / "ball.obj", inverted(ball))
    signal = load_shape(path, **SMALL)
    assert (signal.name, signal.source) == ("ball", str(path))
    assert len(signal.notes) == 1 and "flipped 2,996 triangles" in signal.notes[0]
    assert signal.warnings() == [f"ball: {signal.notes[0]}"]
    points, values = everything(signal)
    world = signal.placement.to_world(points.astype(np.float64))
    assert signal.placement.scale == pytest.approx(6 / 0.9, rel=1e-3)
    radius = np.linalg.norm(world - [10, -20, 30], axis=1)
    clear = np.abs(radius - 3) > 0.02  # the mesh lies within the ball
    assert clear.mean() > 0.5 and np.array_equal(values[clear] == 1, radius[clear] < 3)
    truth = signal.truth_mesh()
    assert truth.volume == pytest.approx(4 / 3 * math.pi * 0.45**3, rel=0.01)
    assert np.allclose(truth.box, signal.solid.box)
    assert signal.size == "2,996 triangles, 6,000 points"
    assert signal.title == "ball, 2,996 triangles, 6,000 points, 4,000 samples held out"
    assert len(list(cache.iterdir())) == 1


def test_distances_scale_with_the_cube_not_with_the_units() -> None:
    near, far = (
        ShapeSignal.from_mesh(box((0, 0, 0), (side, side / 2, side / 2)), kind="sdf", **SMALL)
        for side in (0.001, 4000.0)
    )
    (points, values), (other_points, other_values) = everything(near), everything(far)
    assert np.allclose(points, other_points, atol=1e-6) and np.allclose(values, other_values, atol=1e-5)
    low, high = near.solid.box
    beyond = np.maximum(low - points, points - high)
    expected = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)
    assert np.abs(values - expected).max() < 1e-6


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_margins(margin: float) -> None:
    for signal in (
        ShapeSignal.from_mesh(box((0, 0, 0), (2, 1, 1)), margin=margin, **SMALL),
        load_shape(name="torus", margin=margin, **SMALL),
    ):
        low, high = signal.solid.box
        assert (high - low).max() == pytest.approx(1 - 2 * margin) and np.allclose(low + high, 1)
        points, _ = everything(signal)
        assert points.min() >= 0 and points.max() <= 1


def test_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionSolid, "resolution", 64)
    told: list[float] = []
    signal = ShapeSignal.from_function(
        lambda p: ((p - 7) ** 2).sum(axis=1) < 4, [5, 5, 5], [9, 9, 9], name="mine", on_progress=told.append, **SMALL
    )
    points, values = everything(signal)
    assert np.array_equal(values == 1, ((signal.placement.to_world(points.astype(np.float64)) - 7) ** 2).sum(1) < 4)
    assert (signal.name, signal.source, signal.describe()["faces"]) == ("mine", "function", None)
    assert signal.truth_mesh().volume == pytest.approx(4 / 3 * math.pi * 0.45**3, rel=5e-3)
    assert told == sorted(told) and told[-1] == 1 and len(told) > 3


def test_truncation() -> None:
    plain, cut = (load_shape(name="sphere", kind="sdf", truncation=t, **SMALL) for t in (None, 0.05))
    (points, values), (same, truncated) = everything(plain), everything(cut)
    assert np.array_equal(points, same) and np.array_equal(truncated, np.clip(values, -0.05, 0.05))
    assert plain.fingerprint() != cut.fingerprint()
    assert np.abs(cut.signed_distance(points)).max() > 0.3


def test_made_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = load_shape(name="torus", **SMALL)
    (path,) = cache.iterdir()
    told: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(SOLIDS["torus"], "inside", None)  # not to be asked again
        again = load_shape(name="torus", on_progress=told.append, **SMALL)
    assert again.fingerprint() == first.fingerprint() and told == [1.0]
    for left, right in zip(everything(first), everything(again), strict=True):
        assert np.array_equal(left, right)
    load_shape(name="torus", kind="sdf", **SMALL)
    load_shape(name="torus", **{**SMALL, "points": 5999})
    load_shape(name="torus", margin=0.06, **SMALL)
    load_shape(name="torus", seed=1, **SMALL)
    load_shape(name="torus", uniform=0.5, **SMALL)
    load_shape(name="torus", widths=0.01, **SMALL)
    load_shape(name="torus", **{**SMALL, "test_points": 10})
    assert len(list(cache.iterdir())) == 8 and path.exists()
    load_shape(name="sphere", cache=False, **SMALL)
    assert len(list(cache.iterdir())) == 8


def test_fingerprints() -> None:
    first = load_shape(name="sphere", **SMALL)
    assert first.fingerprint() == load_shape(name="sphere", cache=False, **SMALL).fingerprint()
    mesh = box()
    renamed = [ShapeSignal.from_mesh(mesh, name=name, **SMALL) for name in ("a", "b")]
    assert renamed[0].fingerprint() == renamed[1].fingerprint()
    others = [load_shape(name="sphere", kind="sdf", **SMALL), load_shape(name="sphere", seed=1, **SMALL), *renamed]
    assert first.fingerprint() not in {other.fingerprint() for other in others}
    assert len(first.fingerprint()) == 64


def test_describe_is_json() -> None:
    signal = ShapeSignal.from_mesh(box((0, 0, 0), (2, 1, 1)), name="brick", seed=4, kind="sdf", truncation=0.1, **SMALL)
    said = json.loads(json.dumps(signal.describe(), allow_nan=False))
    low, high = said.pop("box")
    assert low == pytest.approx([0.05, 0.275, 0.275]) and high == pytest.approx([0.95, 0.725, 0.725])
    assert said.pop("offset") == pytest.approx([1 - 2 / 1.8, 0.5 - 2 / 1.8, 0.5 - 2 / 1.8])
    assert said.pop("scale") == pytest.approx(2 / 0.9)
    assert said.pop("surface_area") == pytest.approx(10 * 0.45**2)
    assert said == {
        "type": "shape",
        "kind": "sdf",
        "name": "brick",
        "source": "mesh",
        "faces": 12,
        "notes": [],
        "n_train": 6000,
        "n_heldout": 4000,
        "uniform": 0.4,
        "widths": [0.002, 0.005, 0.02],
        "truncation": 0.1,
        "seed": 4,
    }
    assert json.dumps(load_shape(name="menger", **SMALL).describe(), allow_nan=False)
    assert repr(signal) == "ShapeSignal('brick', sdf, 12 triangles, 6,000 points)"


def test_lattice_is_the_density_at_the_surface() -> None:
    """Counted in a shell so thin that the density does not change across it."""
    signal = load_shape(name="sphere", points=200_000, test_points=10)
    points = signal.coordinates(torch.arange(200_000)).numpy()
    half = 2e-4
    within = (np.abs(np.linalg.norm(points - 0.5, axis=1) - 0.45) < half).sum()
    density = within / (4 * math.pi * 0.45**2 * 2 * half)
    assert signal.lattice == pytest.approx((density / 8) ** (1 / 3), rel=0.03)
    side = 1 / round(signal.lattice)
    low = np.abs(np.arange(round(signal.lattice)) * side + side / 2 - 0.5) - side / 2  # a cell's nearest to the centre
    nearest, farthest = np.maximum(low, 0) ** 2, (low + side) ** 2
    crossed = [
        (part[:, None, None] + part[:, None] + part < 0.45**2) for part in (nearest, farthest)
    ]  # begins inside, ends inside
    assert signal.details == pytest.approx((crossed[0] & ~crossed[1]).sum(), rel=0.02)
    assert load_shape(name="sphere", points=1, test_points=10).details == 1


def test_open_and_several_bodies(tmp_path: Path) -> None:
    two = ShapeSignal.from_mesh(joined(box(), box((2, 0, 0), (3, 1, 1))), **SMALL)
    assert "2 separate bodies" in two.notes[0]
    ball = sphere(n=1500)
    cap = np.flatnonzero(ball.corners.mean(axis=1)[:, 2] < 0.99)
    holed = ShapeSignal.from_mesh(TriangleMesh(ball.vertices, ball.faces[cap]), **SMALL)
    assert "open edges: inside is decided by the winding number" in holed.notes[0]
    _, values = everything(holed)
    assert 0.2 < values.mean() < 0.6


def test_a_sheet_has_no_inside() -> None:
    with pytest.raises(SignalError, match=r"none of 10,000 points lies inside .*open edges.*signal\.kind=sdf"):
        ShapeSignal.from_mesh(sheet(), **SMALL)
    signal = ShapeSignal.from_mesh(sheet(), kind="sdf", **SMALL)
    assert "distances have no sign" in signal.warnings()[-1]
    assert (everything(signal)[1] >= 0).all()


def test_indices_in_any_order_on_their_device() -> None:
    signal = load_shape(name="sphere", **SMALL)
    points, values = everything(signal)
    index = torch.tensor([9999, 0, 17, 17])
    assert np.array_equal(signal.coordinates(index).numpy(), points[index])
    assert np.array_equal(signal.values(index).numpy()[:, 0], values[index])
    assert signal.values(torch.empty(0, dtype=torch.int64)).shape == (0, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "giroid"}, r"no solid 'giroid'; did you mean 'gyroid'\?.*signal\.path=mesh\.obj"),
        ({"name": "bunny.obj"}, r"no solid 'bunny.obj'.*signal\.path="),
        ({"kind": "occupance"}, r"signal\.kind must be one of occupancy, sdf.*did you mean 'occupancy'"),
        ({"points": 0}, r"signal\.points"),
        ({"points": "many"}, r"signal\.points must be a whole number"),
        ({"uniform": -0.1}, r"signal\.uniform"),
        ({"widths": [0.0]}, r"signal\.widths"),
        ({"test_points": 0}, r"signal\.test_points"),
        ({"margin": 0.5}, r"signal\.margin"),
        ({"margin": "wide"}, r"signal\.margin must be a number"),
        ({"truncation": 0.1}, r"signal\.truncation=0\.1 cuts distances.*signal\.kind=sdf"),
        ({"truncation": 0, "kind": "sdf"}, r"signal\.truncation"),
        ({"holdout": "every_other"}, r"signal\.holdout=every_other .* signal\.holdout=none"),
        ({"cache": "yes"}, r"signal\.cache must be true or false"),
        ({"seed": -1}, r"signal\.seed"),
        ({"side": 3}, "no option 'side'"),
    ],
)
def test_bad_options(options: dict, text: str, tmp_path: Path) -> None:
    path = write_obj(tmp_path / "box.obj", box())
    ways = [options] if "name" in options else [options, {"path": str(path), **options}]
    for way in ways:
        with pytest.raises(ConfigError, match=text) as caught:
            signals.load({"type": "shape", **way})
        assert "\n" not in str(caught.value)


def test_bad_files_come_before_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"missing\.obj"):
        load_shape(tmp_path / "missing.obj", name="nor this")
    with pytest.raises(ConfigError, match=r"signal\.kind"):  # a wrong option is said before a large file is read
        load_shape(tmp_path / "missing.obj", kind="x")
