"""Where training and test points lie: shares, widths, mirrors, order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from neuralfield.errors import ConfigError
from neuralfield.signals import shape_points
from neuralfield.signals.analytic import Sphere, Torus
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.sampling import StratifiedBatches
from neuralfield.signals.shape_points import (
    ShapePoints,
    along_curve,
    mirrored,
    morton_code,
    surface_test,
    uniform_test,
)
from neuralfield.signals.solid import MeshSolid


def wall(side: float) -> MeshSolid:
    """A square of that side in the plane z = 0.3, so that z - 0.3 is the noise alone."""
    corners = 0.5 + side * np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    corners[:, 2] = 0.3
    return MeshSolid(TriangleMesh(corners, np.array([[0, 1, 2], [0, 2, 3]])))


@given(n=st.integers(1, 10**6), uniform=st.floats(0, 1), widths=st.lists(st.floats(1e-4, 1), min_size=1, max_size=5))
def test_counts(n: int, uniform: float, widths: list[float]) -> None:
    options = ShapePoints(n, uniform, widths)
    first, *near = options.counts
    assert first + sum(near) == n and abs(first - uniform * n) <= 0.5
    assert len(near) == len(widths) and max(near) - min(near) <= 1
    assert options.widths == tuple(widths)


def test_each_share_has_its_distribution() -> None:
    solid, widths = wall(0.5), (0.004, 0.04)
    options = ShapePoints(60_000, uniform=0.25, widths=widths, seed=3)
    points = options.draw(solid)
    assert points.dtype == np.float32 and points.shape == (60_000, 3)
    assert points.min() >= 0 and points.max() <= 1
    away = points[:, 2].astype(np.float64) - 0.3

    def expected(z: np.ndarray) -> np.ndarray:
        """The distribution of z: uniform, and normal with standard deviations in units of the longest side, 0.5."""
        return 0.25 * (z + 0.3) + sum(0.375 * norm.cdf(z, scale=0.5 * width) for width in widths)

    assert kstest(away, expected).pvalue > 1e-3
    assert kstest(away, lambda z: 0.25 * (z + 0.3) + 0.75 * norm.cdf(z, scale=0.002)).pvalue < 1e-9


def test_uniform_alone_and_near_alone() -> None:
    points = ShapePoints(20_000, uniform=1, widths=(), seed=1).draw(Sphere())
    for axis in range(3):
        assert kstest(points[:, axis], "uniform").pvalue > 1e-3
    near = ShapePoints(20_000, uniform=0, widths=0.01).draw(Sphere())
    away = Sphere().signed_distance(near)
    assert abs(away.std() - 0.009) < 2e-4 and np.abs(away).max() < 0.06


def test_blocks_are_independent_and_the_seed_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ShapePoints(5000, seed=1).draw(Torus())
    assert np.array_equal(first, ShapePoints(5000, seed=1).draw(Torus()))
    assert not np.isin(first.ravel(), ShapePoints(5000, seed=2).draw(Torus()).ravel()).mean() > 0.01
    monkeypatch.setattr(shape_points, "_BLOCK", 700)
    told: list[float] = []
    pieces = ShapePoints(5000, seed=1).draw(Torus(), told.append)
    assert told == sorted(told) and told[-1] == 1 and len(told) == 3 + 3 * 2
    assert len(np.unique(pieces, axis=0)) == 5000  # blocks with equal generators would repeat points
    assert kstest(np.linalg.norm(pieces - 0.5, axis=1), np.linalg.norm(first - 0.5, axis=1)).pvalue > 1e-3


@given(st.lists(st.floats(-3, 4), min_size=3, max_size=3))
def test_mirrors(point: list[float]) -> None:
    given_point = np.array([point])
    found = mirrored(given_point)[0]
    for value, image in zip(point, found, strict=True):
        while not 0 <= value <= 1:  # one mirror after the other
            value = -value if value < 0 else 2 - value
        assert image == pytest.approx(value, abs=1e-12)
        assert 0 <= image <= 1
    inside = np.clip(given_point, 0, 1)
    assert np.array_equal(mirrored(inside), inside)


def test_mirrors_keep_the_density_at_the_sides_of_the_cube() -> None:
    """A wall in the side of the cube: half of the noise would leave it, and the other half is there twice."""
    corners = np.array([[0.25, 0.25, 0], [0.75, 0.25, 0], [0.75, 0.75, 0], [0.25, 0.75, 0]])
    solid = MeshSolid(TriangleMesh(corners, np.array([[0, 1, 2], [0, 2, 3]])))
    z = ShapePoints(20_000, uniform=0, widths=(0.1,)).draw(solid)[:, 2]
    assert kstest(z, lambda v: 2 * norm.cdf(v, scale=0.05) - 1).pvalue > 1e-3


def test_test_sets_follow_the_protocol() -> None:
    torus = Torus()
    points = uniform_test(torus, 30_000)
    low, high = torus.box
    edge = 1e-3 * 0.9
    assert (points >= low - edge - 1e-6).all() and (points <= high + edge + 1e-6).all()
    for axis in range(3):
        spread = (points[:, axis].astype(np.float64) - low[axis] + edge) / (high[axis] - low[axis] + 2 * edge)
        assert kstest(spread, "uniform").pvalue > 1e-3
    near = surface_test(wall(0.6), 30_000)
    assert kstest(near[:, 2].astype(np.float64) - 0.3, norm(scale=0.006).cdf).pvalue > 1e-3
    for make in (uniform_test, surface_test):
        assert make(torus, 1000).dtype == np.float32 and len(make(torus)) == 2**18
        assert np.array_equal(make(torus, 1000), make(torus, 1000))
        assert not np.array_equal(make(torus, 1000), make(torus, 1000, seed=1))
    assert uniform_test(Sphere(margin=0), 1000).min() >= 0  # the widened box ends at the cube


def test_training_and_test_points_are_different() -> None:
    pool = ShapePoints(3000, uniform=0.5, widths=(0.01,)).draw(Sphere())
    tests = np.concatenate([uniform_test(Sphere(), 3000), surface_test(Sphere(), 3000)])
    assert len(np.unique(np.concatenate([pool, tests]), axis=0)) == 9000


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), min_size=1, max_size=8))
def test_morton_code_bit_by_bit(points: list[tuple[float, float, float]]) -> None:
    array = np.array(points, np.float32)
    for code, point in zip(morton_code(array), array, strict=True):
        expected = 0
        for axis in range(3):
            cell = min(int(float(point[axis]) * 2**21), 2**21 - 1)
            for bit in range(21):
                expected |= (cell >> bit & 1) << (3 * bit + axis)
        assert int(code) == expected


def test_the_order_is_that_of_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(5).random((4000, 3))
    order = along_curve(points)
    codes = morton_code(points)
    assert np.array_equal(np.sort(order), np.arange(4000)) and (np.diff(codes[order].astype(object)) >= 0).all()
    monkeypatch.setattr(shape_points, "_BLOCK", 333)
    assert np.array_equal(along_curve(points), order)
    same = np.full((5, 3), 0.3)
    assert along_curve(same).tolist() == [0, 1, 2, 3, 4]


def test_stratified_batches_are_spread_over_space() -> None:
    """The number of points of a batch in each eighth of the cube varies far less than in a random batch."""
    points = ShapePoints(2**14, uniform=1, widths=()).draw(Sphere())
    batches = StratifiedBatches(len(points), 512)
    counts = []
    for step in range(batches.batches_per_epoch):
        octant = (points[batches.batch(step).numpy()] > 0.5) @ np.array([1, 2, 4])
        counts.append(np.bincount(octant, minlength=8))
    deviation = np.std(counts, axis=0).mean()
    assert deviation < 0.25 * math.sqrt(512 / 8)
    shuffled = torch.randperm(len(points), generator=torch.Generator().manual_seed(0)).numpy()
    octant = (points[shuffled].reshape(-1, 512, 3) > 0.5) @ np.array([1, 2, 4])
    assert np.std([np.bincount(row, minlength=8) for row in octant], axis=0).mean() > 0.5 * math.sqrt(512 / 8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n": 0}, r"signal\.points must be at least|between"),
        ({"n": 2**31}, r"signal\.points must be between"),
        ({"uniform": 1.5}, r"signal\.uniform"),
        ({"widths": (0.0,)}, r"signal\.widths"),
        ({"widths": (2,)}, r"signal\.widths"),
        ({"widths": "0.1"}, r"signal\.widths must be numbers such as"),
        ({"widths": None}, r"signal\.widths must be numbers such as"),
        ({"widths": ["a"]}, r"signal\.widths must be a number"),
        ({"widths": ()}, r"signal\.uniform=1"),
        ({"seed": -1}, r"signal\.seed"),
    ],
)
def test_bad_options(options: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ShapePoints(**options)
