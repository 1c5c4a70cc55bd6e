"""Solids with a formula: volumes and areas in closed form, distances by minimisation, points by integral geometry."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

from neuralfield.errors import ConfigError
from neuralfield.signals.analytic import CSG, SOLIDS, Gyroid, ImplicitSolid, Sphere, Torus

IMPLICIT = [Sphere, Torus, Gyroid, CSG]


@pytest.fixture(scope="module")
def solids() -> dict[type, ImplicitSolid]:
    """One of each, with meshes coarse enough for tests."""
    made = {kind: kind() for kind in IMPLICIT}
    for solid in made.values():
        solid.resolution = solid.surface_resolution = 96
    return made


def volume_of_csg() -> float:
    """By a midpoint rule over an octant, from set operations written out again."""
    c = (np.arange(128) + 0.5) / 256
    x, y, z = np.meshgrid(c, c, c, indexing="ij")
    a, b, d = (np.maximum(v - 0.4, 0) for v in (x, y, z))
    box = a**2 + b**2 + d**2 < 0.1**2
    ball = x**2 + y**2 + z**2 < 0.68**2
    bars = (y**2 + z**2 < 0.0625) | (z**2 + x**2 < 0.0625) | (x**2 + y**2 < 0.0625)
    return float((box & ball & ~bars).mean())


VOLUMES = {
    Sphere: math.pi / 6,
    Torus: 2 * math.pi**2 * 0.35 * 0.15**2,
    CSG: volume_of_csg(),
}


@pytest.mark.parametrize("kind", VOLUMES)
def test_volume(kind: type[ImplicitSolid]) -> None:
    solid, n = kind(margin=0.1), 400_000
    share = solid.inside(np.random.default_rng(1).random((n, 3))).mean()
    expected = VOLUMES[kind] * 0.8**3
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_gyroid_by_a_scalar_formula() -> None:
    solid = Gyroid(margin=0.2)
    points = np.random.default_rng(2).random((3000, 3))
    said = solid.inside(points)
    assert 50 < said.sum() < 150
    for (x, y, z), inside in zip((points - 0.5) / 0.6, said, strict=True):
        x, y, z = (4 * math.pi * v for v in (x, y, z))
        g = math.sin(x) * math.cos(y) + math.sin(y) * math.cos(z) + math.sin(z) * math.cos(x)
        assert inside == (abs(g) < 0.5 and x * x + y * y + z * z < (2 * math.pi) ** 2)


@pytest.mark.parametrize("kind", IMPLICIT)
def test_box_is_that_of_the_surface(kind: type[ImplicitSolid], solids: dict) -> None:
    low, high = solids[kind].box
    found_low, found_high = solids[kind].mesh().box
    assert (high - low).max() == pytest.approx(0.9) and np.allclose(low + high, 1)
    assert (found_low >= low - 1e-6).all() and (found_high <= high + 1e-6).all()
    assert np.abs(np.concatenate([found_low - low, high - found_high])).max() < 1e-4


def crossings(solid: ImplicitSolid, lines: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    r"""Where random lines cross the surface, how often each does, and the factor from the mean number to the area.

    Lines that are uniform in direction and position cut a surface in points that are uniform on it, and those that hit a
    ball of area B cut it $2A / B$ times on average (Crofton's formula).
    """
    rng, reach = np.random.default_rng(seed), 0.87 * solid.side
    direction = rng.standard_normal((lines, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.cross(direction, rng.standard_normal((lines, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    start = 0.5 + reach * np.sqrt(rng.random((lines, 1))) * across
    t = np.arange(-reach, reach, 2e-3)
    found, counts = [], np.empty(lines)
    for k in range(0, lines, 500):
        points = start[k : k + 500, None] + t[:, None] * direction[k : k + 500, None]
        inside = solid.inside(points.reshape(-1, 3)).reshape(points.shape[:2])
        cut = inside[:, 1:] != inside[:, :-1]
        counts[k : k + 500] = cut.sum(axis=1)
        found.append(((points[:, 1:] + points[:, :-1]) / 2)[cut])
    return np.concatenate(found), counts, 2 * math.pi * reach**2


@pytest.mark.parametrize("kind", IMPLICIT)
def test_surface_points_and_area_agree_with_random_lines(kind: type[ImplicitSolid], solids: dict) -> None:
    solid = solids[kind]
    n = 40_000
    points = solid.surface(n, np.random.default_rng(4))
    assert points.shape == (n, 3)
    assert np.abs(solid.implicit((points - 0.5) / 0.9)).max() < 1e-6
    cut, counts, factor = crossings(solid, 4000, seed=5)
    error = factor * counts.std() / math.sqrt(len(counts))
    assert abs(factor * counts.mean() - solid.area) < 4 * error
    assert error < 0.04 * solid.area
    # The same share of both falls into each shell around the centre, and into each wedge around a diagonal. Points of
    # one line are not independent, which widens the distribution: counted as if there were half as many of them.
    diagonal = np.array([1.0, 2.0, 3.0]) / math.sqrt(14)
    for measure in (lambda p: np.linalg.norm(p - 0.5, axis=1), lambda p: (p - 0.5) @ diagonal):
        edges = np.unique(np.quantile(measure(points), np.linspace(0, 1, 13)).round(9))
        if len(edges) < 5:  # all points of a sphere are equally far
            continue
        edges[0], edges[-1] = -1, 1
        expected = np.histogram(measure(points), edges)[0] / n
        counted = np.histogram(measure(cut), edges)[0] / 2
        total = len(cut) / 2
        statistic = ((counted - total * expected) ** 2 / (total * expected * (1 + total / n))).sum()
        assert statistic < chi2.ppf(0.9999, len(expected) - 1)


def test_area_against_the_mesh(solids: dict) -> None:
    for kind, tolerance in {Sphere: 1e-3, Torus: 1e-3, Gyroid: 0.02, CSG: 0.01}.items():
        mesh = solids[kind].mesh()
        assert mesh.is_watertight
        assert mesh.areas.sum() == pytest.approx(solids[kind].area, rel=tolerance)


def nearest_zero(u: np.ndarray, allowed: list[Callable], start: np.ndarray) -> float:
    """Distance from u to the set where all of `allowed` are at least 0, near a first guess."""
    found = minimize(
        lambda v: ((v - u) ** 2).sum(),
        start,
        jac=lambda v: 2 * (v - u),
        constraints=[{"type": "ineq", "fun": f} for f in allowed],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    feasible = all(f(found.x) > -1e-9 for f in allowed)
    return math.sqrt(found.fun) if feasible else math.inf


def gyroid_parts() -> list[Callable]:
    def g(u: np.ndarray) -> float:
        (a, b, c), (d, e, f) = np.sin(4 * math.pi * u), np.cos(4 * math.pi * u)
        return a * e + b * f + c * d

    return [lambda u: (g(u) - 0.5) / 19, lambda u: (-g(u) - 0.5) / 19, lambda u: math.sqrt(u @ u) - 0.5]


def csg_parts() -> list[Callable]:
    def box(u: np.ndarray) -> float:
        q = np.abs(u) - 0.4
        return math.sqrt((np.maximum(q, 0) ** 2).sum()) + min(q.max(), 0) - 0.1

    bars = [lambda u, k=k: 0.25 - math.sqrt(u @ u - u[k] ** 2) for k in range(3)]
    return [box, lambda u: math.sqrt(u @ u) - 0.68, *bars]


@pytest.mark.parametrize(("kind", "parts"), [(Gyroid, gyroid_parts()), (CSG, csg_parts())])
def test_distance_to_solids_without_a_formula(kind: type[ImplicitSolid], parts: list[Callable], solids: dict) -> None:
    """To the nearest point that constrained minimisation finds, started on the mesh: as close as the class says."""
    solid = solids[kind]
    rng = np.random.default_rng(6)
    points = np.concatenate([rng.random((40, 3)), solid.surface(40, rng) + 0.01 * rng.standard_normal((40, 3))])
    said = solid.signed_distance(points)
    mesh, cell = solid.mesh(), 0.9 / 96
    starts = solid._tree.squared_distance(mesh.vertices, mesh.faces, points)[2]
    expected = np.empty(len(points))
    for k, (u, start) in enumerate(zip((points - 0.5) / 0.9, (starts - 0.5) / 0.9, strict=True)):
        if max(f(u) for f in parts) < 0:  # the nearest point outside of any part
            expected[k] = -0.9 * min(nearest_zero(u, [f], start) for f in parts)
        else:
            expected[k] = 0.9 * nearest_zero(u, [lambda v, f=f: -f(v) for f in parts], start)
    assert np.isfinite(expected).all() and 15 < (expected < 0).sum() < 60
    assert np.array_equal(said < 0, expected < 0)
    error = np.abs(said - expected)
    assert np.median(error) < 8e-5  # at 96 cells; the square of the spacing: 1e-5 at 256
    assert error.max() < cell
    if kind is CSG:
        assert error[expected < 0].max() < 1e-6  # a closed form


@pytest.mark.parametrize("kind", [Sphere, Torus])
def test_exact_distances_are_those_to_the_mesh(kind: type[ImplicitSolid], solids: dict) -> None:
    solid, points = solids[kind], np.random.default_rng(7).random((500, 3))
    assert np.abs(np.abs(solid.signed_distance(points)) - solid._distance(points)).max() < 2e-4
    assert np.array_equal(solid.signed_distance(points) < 0, solid.inside(points))


def test_sphere_and_torus_by_hand() -> None:
    points = np.array([[0.5, 0.5, 0.5], [1.0, 0.5, 0.5], [0.5, 0.95, 0.5]])
    assert Sphere().signed_distance(points) == pytest.approx([-0.45, 0.05, 0.0])
    assert Torus(margin=0).signed_distance(points) == pytest.approx([0.2, 0.0, -0.05])


@pytest.mark.parametrize("name", SOLIDS)
def test_every_solid_by_name(name: str) -> None:
    points = np.random.default_rng(8).random((2000, 3))
    solid, smaller = SOLIDS[name](), SOLIDS[name](margin=0.25)
    solid.surface_resolution = 32
    assert solid.name == name and solid.identity != smaller.identity
    assert solid.identity == SOLIDS[name](0.05).identity
    inside = solid.inside(points)
    assert inside.dtype == bool and 40 < inside.sum() < 1600
    assert np.array_equal(inside, smaller.inside(0.5 + (points - 0.5) * 0.5 / 0.9))
    assert not inside[(points < solid.box[0]).any(axis=1) | (points > solid.box[1]).any(axis=1)].any()
    assert solid.inside(np.empty((0, 3))).shape == (0,)
    first, again = (solid.surface(50, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("margin", [-0.1, 0.5, float("nan")])
def test_bad_margins(margin: object) -> None:
    for solid in SOLIDS.values():
        with pytest.raises(ConfigError, match=r"signal\.margin"):
            solid(margin)
