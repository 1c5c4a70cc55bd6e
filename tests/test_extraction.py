"""Marching cubes in slabs: closed whatever the function, equal to one call on the whole, exact where it can be."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from torch import Tensor

import neuralfield as nf
from neuralfield import extraction
from neuralfield.encodings import Identity
from neuralfield.errors import ConfigError, SignalError
from neuralfield.extraction import NoSurfaceError, extract, of_field
from neuralfield.lattice import Evaluate, Lattice, SparseLattice
from neuralfield.networks import MLP
from neuralfield.signals.mesh import TriangleMesh


def sphere(radius: float = 0.3, centre: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> Evaluate:
    return lambda points: radius - (points - torch.tensor(centre)).norm(dim=1)


def gyroid(points: Tensor) -> Tensor:
    """Two periods of it, not touching the faces of the cube."""
    angle = 4 * math.pi * (points + 0.0137)  # no value is exactly the level
    s, c = torch.sin(angle), torch.cos(angle)
    inner = 0.4512 - (points - 0.5).abs().amax(1)
    return torch.minimum((s * c.roll(-1, 1)).sum(1) / 8, inner)


def table(values: np.ndarray) -> Evaluate:
    cells = np.array(values.shape) - 1
    return lambda points: torch.from_numpy(values[tuple(np.rint(points.numpy() * cells).astype(int).T)])


def noise(cells: int, seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(size=(cells + 1,) * 3).astype(np.float32)
    if kind == "tiny":  # products of neighbouring values vanish in float32
        return (1e-30 * rng.normal(size=(cells + 1,) * 3)).astype(np.float32)
    return rng.integers(0 if kind == "signs" else -1, 2, size=(cells + 1,) * 3).astype(np.float32) * 2 - (
        kind == "signs"
    )


def directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def assert_closed(mesh: TriangleMesh) -> None:
    """Every edge belongs to two triangles that run along it in opposite directions; no vertex is spare."""
    edges = directed_edges(mesh.faces)
    forward, backward = np.sort(edges @ [2**32, 1]), np.sort(edges @ [1, 2**32])
    assert (np.diff(forward) > 0).all() and np.array_equal(forward, backward)
    assert np.array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices)))
    assert (mesh.vertices >= 0).all() and (mesh.vertices <= 1).all()


def turned(faces: np.ndarray) -> np.ndarray:
    """Triangles in order, each from its lowest vertex."""
    faces = np.take_along_axis(faces, (faces.argmin(1)[:, None] + np.arange(3)) % 3, axis=1)
    return faces[np.lexsort(faces.T)]


def canonical(mesh: TriangleMesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the order of their positions, and triangles."""
    order = np.lexsort(mesh.vertices.T)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return mesh.vertices[order], turned(rank[mesh.faces])


# The table


def test_how_a_face_of_a_cell_is_cut_depends_on_its_four_signs_alone() -> None:
    """All 254 cells with a surface: what guarantees that cells, and so slabs, fit together."""
    seen: dict[tuple, frozenset] = {}
    for signs in itertools.product((-1.0, 1.0), repeat=8):
        cell = np.array(signs, np.float32).reshape(2, 2, 2)
        if abs(cell.sum()) == 8:
            continue
        vertices, faces, _, _ = marching_cubes(cell, 0.0, method="lorensen")
        twice = np.rint(2 * vertices).astype(int)
        assert np.array_equal(twice, 2 * vertices) and ((twice % 2).sum(1) == 1).all()
        assert len(np.unique(twice, axis=0)) == len(twice)
        edges = set(map(tuple, directed_edges(faces).tolist()))
        border = [(twice[a], twice[b]) for a, b in edges if (b, a) not in edges]
        for axis, side in itertools.product(range(3), (0, 1)):
            lines = [e for e in border if e[0][axis] == e[1][axis] == 2 * side]
            lines = [e[::-1] for e in lines] if side else lines  # seen from the cell beyond
            trace = frozenset(tuple(tuple(np.delete(end, axis).tolist()) for end in e) for e in lines)
            key = (axis, *np.take(cell, side, axis).ravel())
            assert seen.setdefault(key, trace) == trace
    assert len(seen) == 3 * 16


@pytest.mark.parametrize("kind", ["normal", "tiny", "signs", "ties"])
@pytest.mark.parametrize(("cells", "skip_empty"), [(1, False), (2, False), (5, False), (12, False), (33, True)])
def test_any_function_gives_a_closed_surface(cells: int, kind: str, skip_empty: bool) -> None:
    """Also where it reaches the cube's faces, edges and corners, and where values equal the level."""
    for seed in range(1 if skip_empty else 4):
        values = noise(cells, seed, kind)
        if kind == "ties" and cells < 5:
            values[0, 0, 0] = 2  # or there may be no inside, or no area
        mesh = extract(table(values), cells, skip_empty=skip_empty)
        assert_closed(mesh)
        if kind in ("normal", "signs"):  # ties make parts that touch
            assert mesh.is_watertight and mesh.volume > 0


def test_a_function_that_is_not_reproducible_gives_a_closed_surface() -> None:
    """As a network's values are not: their last bits depend on the batch."""
    rng = np.random.default_rng(0)

    def evaluate(points: Tensor) -> Tensor:
        return sphere()(points) + torch.from_numpy(rng.normal(0, 0.02, len(points)).astype(np.float32))

    for skip_empty in (False, True):
        assert_closed(extract(evaluate, 40, skip_empty=skip_empty, memory=2**23))


# Slabs


@pytest.mark.parametrize("evaluate", [sphere(0.31, (0.5237, 0.4771, 0.5013)), gyroid], ids=["sphere", "gyroid"])
def test_equals_one_call_of_scikit_image(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 32
    axis = torch.linspace(0, 1, cells + 1)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    values = evaluate(points.reshape(-1, 3)).reshape((cells + 1,) * 3).numpy()
    vertices, faces, _, _ = marching_cubes(values, 0.0, method="lorensen", gradient_direction="ascent")
    monkeypatch.setattr(extraction, "_SLAB_BYTES", 6 * 35 * 35 * extraction._BYTES_PER_POINT)
    ours = extract(evaluate, cells)
    assert_closed(ours)
    distance, number = cKDTree(ours.vertices).query(vertices / cells)
    assert distance.max() < 1e-6 and np.array_equal(np.sort(number), np.arange(len(ours.vertices)))
    assert np.array_equal(turned(number[faces]), turned(ours.faces))


@pytest.mark.parametrize("layers", [1, 2, 5, 14])
@pytest.mark.parametrize("kind", ["normal", "signs"])
@pytest.mark.parametrize("skip_empty", [False, True])
def test_slabs_do_not_show(layers: int, kind: str, skip_empty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 33 if skip_empty else 15
    evaluate = table(noise(cells, 7, kind))
    whole = canonical(extract(evaluate, cells))
    plane = (cells + 3) ** 2 * extraction._BYTES_PER_POINT
    monkeypatch.setattr(extraction, "_SLAB_BYTES", plane * (layers + 1))
    slabs = canonical(extract(evaluate, cells, skip_empty=skip_empty))
    assert np.array_equal(whole[0], slabs[0]) and np.array_equal(whole[1], slabs[1])


# Positions


def test_the_surface_of_a_sphere() -> None:
    """Second order in the side of a cell; on an edge no further from the surface than linear interpolation is."""
    errors = []
    for cells in (16, 32, 64):
        mesh = extract(sphere(0.4), cells)
        assert_closed(mesh)
        assert mesh.is_watertight
        distance = np.linalg.norm(mesh.vertices - 0.5, axis=1) - 0.4
        # f'' = 1 / r at most, |grad f| along an edge that is crossed is where the bound is not sharp
        assert np.abs(distance).max() < 1 / cells**2 / 8 / 0.35
        outward = (mesh.corners.mean(1) - 0.5) / np.linalg.norm(mesh.corners.mean(1) - 0.5, axis=1, keepdims=True)
        assert ((mesh.normals * outward).sum(1) > 0.9)[mesh.areas > 1e-3 / cells**2].all()
        errors.append((4 / 3 * math.pi * 0.4**3 - mesh.volume, 4 * math.pi * 0.4**2 - mesh.areas.sum()))
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 4, atol=0.3)


@pytest.mark.parametrize("inside_is", ["above", "below"])
@pytest.mark.parametrize("skip_empty", [False, True])
def test_a_plane_is_exact_and_the_cube_closes_the_solid(inside_is: str, skip_empty: bool) -> None:
    normal = np.array([0.6, 0.0, 0.8])
    mesh = extract(
        lambda p: 5 * (p @ torch.tensor(normal).float()) + 1, 24, level=4.5, inside_is=inside_is, skip_empty=skip_empty
    )
    assert_closed(mesh)
    on_plane = np.abs(mesh.vertices @ normal - 0.7) < 1e-6
    on_cube = ((mesh.vertices == 0) | (mesh.vertices == 1)).any(axis=1)
    assert (on_plane | on_cube).all() and on_plane.sum() > 300 and on_cube.sum() > 300
    # Below 0.6 x + 0.8 z = 0.7 lie a unit of y times the area under z = (0.7 - 0.6 x) / 0.8, from 0.875 to 0.125.
    below = 0.5
    assert mesh.volume == pytest.approx(below if inside_is == "below" else 1 - below, abs=1e-6)
    assert mesh.areas.sum() == pytest.approx(2 * 0.5 + 1 + 0.875 + 0.125 + 1.25, abs=1e-5) or inside_is == "above"


def test_all_inside_is_the_cube() -> None:
    mesh = extract(lambda p: torch.ones(len(p)), 6)
    assert_closed(mesh)
    assert mesh.volume == pytest.approx(1, abs=1e-12) and mesh.areas.sum() == pytest.approx(6, abs=1e-12)
    assert len(mesh.vertices) == 7**3 - 5**3 and len(mesh.faces) == 6 * 36 * 2


def test_a_vertex_lies_where_the_interpolated_value_is_the_level() -> None:
    values = noise(9, 1, "normal")
    mesh = extract(table(values), 9, level=0.2)
    inner = ((mesh.vertices > 0) & (mesh.vertices < 1)).all(axis=1)
    got = ndimage.map_coordinates(values.astype(np.float64), 9 * mesh.vertices[inner].T, order=1)
    np.testing.assert_allclose(got, np.float32(0.2), atol=1e-12)
    assert inner.sum() > 800


def test_a_value_equal_to_the_level_is_outside() -> None:
    values = np.zeros((4, 4, 4), np.float32)
    for inside_is in ("above", "below"):
        with pytest.raises(
            NoSurfaceError, match=f"no surface at the level 0: no value of the lattice lies {inside_is} it"
        ):
            extract(table(values), 3, inside_is=inside_is)
    values[1, 1, 1] = 1
    assert extract(table(values), 3).volume == pytest.approx(8 / 6 / 27, rel=1e-9)  # an octahedron of radius one cell


def test_a_part_of_the_cube() -> None:
    box = ((0.25, 0.5, 0.1), (0.75, 0.75, 0.6))
    seen: list[Tensor] = []

    def evaluate(points: Tensor) -> Tensor:
        seen.append(points)
        return sphere(0.4)(points)

    mesh = extract(evaluate, 20, box=box)
    points = torch.cat(seen)
    assert len(points) == 21 * 11 * 21
    assert points.amin(0).tolist() == pytest.approx(box[0]) and points.amax(0).tolist() == pytest.approx(box[1])
    assert_closed(mesh)
    assert (mesh.vertices.min(0) == box[0]).all() and (mesh.vertices.max(0)[:2] == box[1][:2]).all()
    rng = np.random.default_rng(0)
    inside = np.linalg.norm(rng.uniform(*box, (10**6, 3)) - 0.5, axis=1) < 0.4
    assert mesh.volume == pytest.approx(0.5 * 0.25 * 0.5 * inside.mean(), rel=5e-3)


def test_infinite_values_are_far_from_the_level() -> None:
    mesh = extract(lambda p: torch.where(sphere()(p) > 0, 1.0, -math.inf), 16)
    assert_closed(mesh)
    assert np.isfinite(mesh.vertices).all()


# Leaving out what is empty


@pytest.mark.parametrize("evaluate", [sphere(0.3, (0.4037, 0.5071, 0.6013)), gyroid], ids=["sphere", "gyroid"])
def test_skipping_gives_the_same_surface(evaluate: Evaluate) -> None:
    counts = [0, 0]

    def counted(which: int) -> Evaluate:
        def count(points: Tensor) -> Tensor:
            counts[which] += len(points)
            return evaluate(points)

        return count

    whole, sparse = (extract(counted(i), 100, skip_empty=bool(i)) for i in (0, 1))
    distance, number = cKDTree(whole.vertices).query(sparse.vertices)
    assert distance.max() < 1e-6  # the batch decides the last bits
    assert np.array_equal(np.sort(number), np.arange(len(whole.vertices)))
    assert np.array_equal(turned(number[sparse.faces]), turned(whole.faces))
    assert counts[0] == 101**3
    if evaluate is not gyroid:
        assert counts[1] < counts[0] / 2


def test_without_room_for_what_is_near_everything_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(evaluate: Evaluate, axes: tuple, level: float, capacity: int, *report: Callable[[int], None]) -> Lattice:
        return SparseLattice(evaluate, axes, level, min(capacity, 100), *report)

    monkeypatch.setattr(extraction, "SparseLattice", small)
    counts: list[int] = []

    def evaluate(points: Tensor) -> Tensor:
        counts.append(len(points))
        return sphere(0.2)(points)

    seen: list[float] = []
    mesh = extract(evaluate, 100, skip_empty=True, on_progress=seen.append)
    assert_closed(mesh)
    assert seen == sorted(set(seen)) and seen[-1] == 1
    assert sum(counts) == 101**3 + 14**3  # the coarse lattice was in vain
    assert len(mesh.faces) == len(extract(evaluate, 100).faces)


# Fields


def test_the_surface_of_a_field() -> None:
    """A field that is linear: its surface is a plane, given by its weights."""
    field = nf.Field(Identity(3), MLP(3, 2, depth=0)).train()
    with torch.no_grad():
        field.network.layers[0].weight.copy_(torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0]]))
        field.network.layers[0].bias.copy_(torch.tensor([-0.25, -1.3]))
    mesh = extract(of_field(field), 16)
    assert mesh.volume == pytest.approx(0.75, abs=1e-6)
    other = extract(of_field(field, channel=1), 16, inside_is="below")
    inner = ((other.vertices > 0) & (other.vertices < 1)).all(axis=1)
    np.testing.assert_allclose(other.vertices[inner] @ [1, 2, 0], 1.3, atol=1e-6)
    assert field.training


def test_only_a_field_of_three_coordinates_has_a_surface() -> None:
    with pytest.raises(ConfigError, match="3 coordinates has a surface in space; this one has 2"):
        of_field(nf.build(2, 1, "none"))
    with pytest.raises(ConfigError, match="channel must be between 0 and 0, got 1"):
        of_field(nf.build(3, 1, "none"), 1)


# Progress, memory, faults


@pytest.mark.parametrize("skip_empty", [False, True])
def test_progress_increases_to_one(skip_empty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralfield.lattice.POINTS", 4096)
    monkeypatch.setattr(extraction, "_SLAB_BYTES", 10**6)
    seen: list[float] = []
    extract(sphere(), 64, skip_empty=skip_empty, on_progress=seen.append)
    assert len(seen) > 15 and seen[-1] == 1 and seen == sorted(set(seen)) and seen[0] < 0.1
    assert max(np.diff(seen)) < 0.3


@pytest.mark.parametrize("skip_empty", [False, True])
def test_the_lattice_is_never_held_as_a_whole(skip_empty: bool) -> None:
    budget = 24 * 2**20
    tracemalloc.start()
    mesh = extract(sphere(0.2), 220, skip_empty=skip_empty, memory=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own = mesh.corners.nbytes * 5  # what a mesh computes of itself
    assert peak < budget + own < 221**3 * 4 * 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution must be between 1 and 2048"),
        ({"resolution": 4096}, "between 1 and 2048"),
        ({"level": math.nan}, "level must be a finite number"),
        ({"inside_is": "inside"}, "inside_is must be one of above, below"),
        ({"box": ((0, 0, 0), (1, 1))}, "lower and an upper corner of three numbers"),
        ({"box": ((0, 0, 0), (1, 0, 1))}, "lower and an upper corner"),
        ({"box": ((0, 0, 0), (1, 1, 1.5))}, "two corners of three numbers in"),
        ({"box": ((0, 0, 0),)}, "two corners"),
        ({"memory": 10**5, "resolution": 64}, "does not hold a few layers of 65 x 65 points; give at least"),
    ],
    ids=str,
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(sphere(), **{"resolution": 8, **options})


def test_a_surface_too_large_for_the_memory_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralfield.lattice.POINTS", 4096)
    calls: list[int] = []
    inner = table(noise(48, 0, "normal"))

    def evaluate(points: Tensor) -> Tensor:
        calls.append(len(points))
        return inner(points)

    with pytest.raises(
        ConfigError, match=r"the surface has over .* triangles in the first \d+% of the box.*lower resol"
    ):
        extract(evaluate, 48, memory=6 * 2**20)
    assert sum(calls) < 0.9 * 49**3


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda p: torch.full((len(p),), math.nan), r"value at \(0, 0, 0\) is not a number"),
        (lambda p: torch.zeros(3), "points gave values of shape"),
        (lambda p: torch.zeros(len(p), 2), "not one for each"),
    ],
)
def test_functions_that_give_no_numbers(evaluate: Callable[[Tensor], Tensor], message: str) -> None:
    for skip_empty in (False, True):
        with pytest.raises(SignalError, match=message):
            extract(evaluate, 8, skip_empty=skip_empty)


def test_a_single_column_of_values_serves_as_well() -> None:
    mesh = extract(lambda p: sphere()(p)[:, None], 8)
    assert len(mesh.faces) == len(extract(sphere(), 8).faces)
