"""The plain-torch grid against the scalar oracle, point by point, row by row."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuralfield.encodings.hashgrid import reference
from neuralfield.encodings.hashgrid.layout import make_layout
from tests.encodings.hashgrid import scalar_oracle

INTERPOLATIONS = ("linear", "smoothstep", "nearest")
# dimensions, levels, log2 of the table, base resolution, growth: dense, hashed and mixed pyramids
GRIDS = [
    (1, 4, 5, 3, 2.0),
    (1, 3, 3, 9, 1.6),
    (2, 3, 12, 3, 1.7),
    (2, 3, 4, 5, 2.0),
    (2, 4, 6, 4, 1.5),
    (3, 2, 12, 2, 2.0),
    (3, 3, 6, 3, 1.5),
    (4, 2, 12, 2, 1.8),
    (4, 2, 5, 3, 2.0),
]


def special_points(dim: int, scales: list[float]) -> np.ndarray:
    """Corners of the cube, cell faces of every level (and the floats beside them), points outside, random ones."""
    rng = np.random.default_rng(dim)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=dim)), np.float32)
    faces = np.array([(cell - 0.5) / scale for scale in scales if scale > 0 for cell in range(1, 5)], np.float32)
    faces = np.concatenate([faces, np.nextafter(faces, np.float32(-1)), np.nextafter(faces, np.float32(2))])
    on_faces = rng.choice(faces, (24, dim)).astype(np.float32)
    one_face = rng.random((24, dim)).astype(np.float32)
    one_face[np.arange(24), rng.integers(dim, size=24)] = rng.choice(faces, 24)
    outside = rng.uniform(-2, 3, (12, dim)).astype(np.float32)
    return np.concatenate([corners, on_faces, one_face, outside, rng.random((24, dim)).astype(np.float32)])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_rows_and_weights_of_every_corner(grid: tuple, interpolation: str) -> None:
    dim, n_levels, table, base, growth = grid
    layout = make_layout(dim, n_levels, 2, table, base, growth)
    pyramid = scalar_oracle.levels(dim, n_levels, table, base, growth)
    points = special_points(dim, [level.scale for level in layout.levels])
    for level, truth in zip(layout.levels, pyramid, strict=True):
        assert level.scale == truth.scale
        rows, weights = zip(*reference.corners(torch.from_numpy(points), level, interpolation), strict=True)
        expected = [scalar_oracle.touched(x, truth, interpolation) for x in points]
        assert torch.stack(rows, 1).tolist() == [[r for r, _ in corners] for corners in expected]
        np.testing.assert_allclose(
            torch.stack(weights, 1).numpy(), [[w for _, w in corners] for corners in expected], rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_features(grid: tuple, interpolation: str) -> None:
    dim, n_levels, table, base, growth = grid
    layout = make_layout(dim, n_levels, 3, table, base, growth)
    points = special_points(dim, [level.scale for level in layout.levels])
    params = np.random.default_rng(1).standard_normal(layout.n_parameters).astype(np.float32)
    got = reference.forward(torch.from_numpy(points), torch.from_numpy(params), layout, interpolation)
    pyramid = scalar_oracle.levels(dim, n_levels, table, base, growth)
    expected = [scalar_oracle.encode(x, params, pyramid, 3, interpolation) for x in points]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dim=st.integers(1, 4), interpolation=st.sampled_from(INTERPOLATIONS))
def test_random_grids_and_points(data: st.DataObject, dim: int, interpolation: str) -> None:
    table, base = data.draw(st.integers(3, 10)), data.draw(st.integers(1, 7))
    growth, n_levels = data.draw(st.sampled_from([1.0, 1.25, 1.5, 2.0, 3.0])), data.draw(st.integers(1, 3))
    coordinate = st.floats(0, 1, width=32) | st.floats(-4, 4, width=32)
    x = np.array(data.draw(st.lists(coordinate, min_size=dim, max_size=dim)), np.float32)
    layout = make_layout(dim, n_levels, 1, table, base, growth)
    pyramid = scalar_oracle.levels(dim, n_levels, table, base, growth)
    assume([level.scale for level in layout.levels] == [level.scale for level in pyramid])
    params = np.random.default_rng(dim).standard_normal(layout.n_parameters).astype(np.float32)
    got = reference.forward(torch.from_numpy(x[None]), torch.from_numpy(params), layout, interpolation)
    expected = scalar_oracle.encode(x, params, pyramid, 1, interpolation)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-5, atol=2e-6)


def test_position_is_rounded_once() -> None:
    """The fused multiply-add of the specification; with the product rounded first, many positions are an ulp off."""
    level = make_layout(1, 2, 1, 19, 3, 1.7).levels[1]
    truth = scalar_oracle.levels(1, 2, 19, 3, 1.7)[1]
    x = np.random.default_rng(0).random(1000).astype(np.float32)
    once = np.array([float(scalar_oracle.position(float(v), truth)) for v in x])
    assert np.mean(once != x * np.float32(level.scale) + np.float32(0.5)) > 0.01
    cell, fraction = reference.positions(torch.from_numpy(x[:, None]), level)
    assert np.array_equal(cell[:, 0].numpy(), np.floor(once))
    assert np.array_equal(fraction[:, 0].numpy(), once - np.floor(once))


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_backward_is_the_gradient_of_the_forward(dim: int, interpolation: str) -> None:
    """The formulas written out for speed against what autograd derives from the forward pass."""
    layout = make_layout(dim, 4, 2, 5, 3, 1.6)
    generator = torch.Generator().manual_seed(dim)
    x = torch.rand(50, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    params = torch.randn(layout.n_parameters, generator=generator, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(50, layout.out_dim, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(reference.forward(x, params, layout, interpolation), (x, params), grad)
    got = reference.backward(grad, x, params, layout, interpolation, True, True)
    for ours, truth in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)


def test_backward_gives_only_what_is_needed() -> None:
    layout = make_layout(2, 2, 2, 5, 3, 1.6)
    x, params, grad = torch.rand(5, 2), torch.rand(layout.n_parameters), torch.rand(5, layout.out_dim)
    assert reference.backward(grad, x, params, layout, "linear", False, False) == (None, None)
    only_x = reference.backward(grad, x, params, layout, "linear", True, False)
    only_params = reference.backward(grad, x, params, layout, "linear", False, True)
    assert only_x[0].shape == (5, 2) and only_x[1] is None
    assert only_params[0] is None and only_params[1].shape == params.shape
