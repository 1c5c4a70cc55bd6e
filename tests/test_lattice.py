"""A lattice evaluated near a level set alone: what it finds is what the whole lattice has there, and it follows surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from neuralfield.errors import SignalError
from neuralfield.lattice import BRICK, Evaluate, Lattice, SparseLattice, axis_points

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


def axes(*cells: int) -> Axes:
    x, y, z = (axis_points(0, 1, n) for n in cells)
    return x, y, z


def table(values: np.ndarray) -> Evaluate:
    """The function with these values at the points of a lattice over the unit cube."""
    cells = np.array(values.shape) - 1
    return lambda points: torch.from_numpy(values[tuple(np.rint(points.numpy() * cells).astype(int).T)])


def smooth(shape: tuple[int, ...], sigma: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    values = ndimage.gaussian_filter(noise, sigma, mode="nearest")
    return (values / values.std()).astype(np.float32)


@pytest.mark.parametrize("points", [1, 50, 10**6])
def test_layers_are_the_values_at_the_points(points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralfield.lattice.POINTS", points)
    values = smooth((5, 4, 3), 1, 0)
    seen: list[int] = []
    lattice = Lattice(table(values), axes(4, 3, 2), seen.append)
    assert np.array_equal(lattice.layers(0, 5), values) and sum(seen) == 60
    assert np.array_equal(lattice.layers(2, 3), values[2:3])


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 100])
def test_slabs_share_a_layer_that_is_evaluated_once(layers: int) -> None:
    values = smooth((8, 3, 4), 1, 1)
    count = 0

    def evaluate(points: Tensor) -> Tensor:
        nonlocal count
        count += len(points)
        return table(values)(points)

    end = 0
    for first, slab in Lattice(evaluate, axes(7, 2, 3)).slabs(layers):
        assert first == end and 2 <= len(slab) <= layers + 1
        end = first + len(slab) - 1
        assert np.array_equal(slab, values[first : end + 1])
    assert end == 7 and count == values.size


@pytest.mark.parametrize("cells", [(64, 64, 64), (63, 40, 57), (9, 70, 8), (1, 30, 2)], ids=str)
def test_where_a_sparse_lattice_was_evaluated_it_is_the_whole_one(cells: tuple[int, int, int]) -> None:
    values = smooth(tuple(n + 1 for n in cells), 4, 2)
    lattice = SparseLattice(table(values), axes(*cells), 0.3, 10**6)
    sparse = lattice.layers(0, cells[0] + 1)
    left_out = np.abs(sparse) > 1e30
    assert np.array_equal(sparse[~left_out], values[~left_out])
    assert np.array_equal(sparse > 0.3, values > 0.3)
    for start, stop in ((0, 1), (cells[0], cells[0] + 1), (cells[0] // 3, cells[0])):
        assert np.array_equal(lattice.layers(start, stop), sparse[start:stop])


def test_far_from_the_level_nothing_is_evaluated() -> None:
    grid = np.stack(np.meshgrid(*axes(96, 96, 96), indexing="ij"), -1)
    values = (0.3 - np.linalg.norm(grid - 0.5, axis=-1)).astype(np.float32)
    count: list[int] = []
    lattice = SparseLattice(table(values), axes(96, 96, 96), 0.0, 10**6, count.append)
    assert np.array_equal(lattice.layers(0, 97) > 0, values > 0)
    assert sum(count) < values.size / 2
    assert lattice.held == 4 * sum(count)


@pytest.mark.parametrize("safety", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(6))
def test_surfaces_are_found_whole_or_not_at_all(seed: int, safety: float) -> None:
    """Noise as fine as the lattice: the coarse points say next to nothing about it.

    Points on one side that touch across a cell (26 neighbours) belong together; so do those of the other side. Where the
    two sides differ between the whole and the sparse lattice, whole such pieces have changed sides.
    """
    values = np.full((41, 41, 41), -1, np.float32)
    values[smooth(values.shape, 1.0, seed) > 3.2] = 1  # small bodies, most of which no coarse point sees
    values[4:6, 3:38, 21] = 1  # a thin rod, between coarse points, that a coarse point touches nowhere
    values[4:9, 8, 21:25] = 1  # but this hook does
    sparse = SparseLattice(table(values), axes(40, 40, 40), 0.0, 10**6, safety=safety).layers(0, 41)
    bodies, n = ndimage.label(values > 0, np.ones((3, 3, 3)))
    found = [bool((sparse[bodies == i] > 0).all()) for i in range(1, n + 1)]
    missed = [bool((sparse[bodies == i] < 0).all()) for i in range(1, n + 1)]
    assert all(a != b for a, b in zip(found, missed, strict=True))
    assert found[bodies[4, 3, 21] - 1] and not (sparse > 0)[values < 0].any()
    assert any(found) and any(missed)


def test_without_safety_a_restless_field_far_from_the_level_is_left_alone() -> None:
    grid = np.stack(np.meshgrid(*axes(96, 96, 96), indexing="ij"), -1)
    ball = 0.3 - np.linalg.norm(grid - 0.5, axis=-1)
    values = (np.sign(ball) * (8 + np.clip(4 * smooth(ball.shape, 3, 0), -7, 7))).astype(np.float32)
    counts: list[int] = []
    for safety in (1.5, 0.0):
        count: list[int] = []
        lattice = SparseLattice(table(values), axes(96, 96, 96), 0.0, 10**6, count.append, safety=safety)
        assert np.array_equal(lattice.layers(0, 97) > 0, values > 0)
        counts.append(sum(count))
    assert counts[1] < counts[0] / 2


def test_a_sheet_that_no_coarse_point_sees_is_found_where_values_lead_to_it() -> None:
    """A plate two cells thick half way between coarse points, as a distance: all coarse points lie outside."""
    x = np.abs(np.arange(65) - 36) - 1.0
    values = np.broadcast_to((-x / 64).astype(np.float32)[:, None, None], (65, 65, 65)).copy()
    assert (values[::BRICK] < 0).all() and (values > 0).any()
    sparse = SparseLattice(table(values), axes(64, 64, 64), 0.0, 10**6).layers(0, 65)
    assert np.array_equal(sparse > 0, values > 0)


def test_too_many_bricks_are_refused_before_they_are_evaluated() -> None:
    values = np.random.default_rng(0).normal(size=(33, 33, 33)).astype(np.float32)
    count: list[int] = []
    lattice = SparseLattice(table(values), axes(32, 32, 32), 0.0, 50, count.append)
    assert not lattice.complete and not count


def test_infinities_are_large_numbers_and_other_faults_are_named() -> None:
    values = smooth((9, 9, 9), 1, 3)
    values[2, 3, 4], values[5, 5, 5] = np.inf, -np.inf
    for kind in (
        lambda: Lattice(table(values), axes(8, 8, 8)),
        lambda: SparseLattice(table(values), axes(8, 8, 8), 0, 99),
    ):
        got = kind().layers(0, 9)
        assert np.isfinite(got).all() and got[2, 3, 4] > 1e38 and got[5, 5, 5] < -1e38
    values[4, 0, 8] = np.nan
    for kind in (
        lambda: Lattice(table(values), axes(8, 8, 8)),
        lambda: SparseLattice(table(values), axes(8, 8, 8), 0, 99),
    ):
        with pytest.raises(SignalError, match=r"value at \(0.5, 0, 1\) is not a number"):
            kind().layers(0, 9)
    with pytest.raises(SignalError, match=r"27 points gave values of shape \[27, 2\]"):
        Lattice(lambda points: torch.zeros(len(points), 2), axes(2, 2, 2)).layers(0, 3)
