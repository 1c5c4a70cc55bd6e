"""The hash grid as a module: what it interpolates, its gradients, points outside the cube, options and memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import Level
from neuralfield.errors import ConfigError

# One dense level and two hashed ones.
SMALL = {"n_levels": 3, "log2_hashmap_size": 5, "base_resolution": 4, "per_level_scale": 2.0}


def grid(in_dim: int, seed: int = 0, **options: object) -> HashGrid:
    """A small grid whose table is standard normal, so that a wrong row is seen."""
    module = HashGrid(in_dim, engine="reference", **{**SMALL, **options})
    with torch.no_grad():
        module.params.normal_(generator=torch.Generator().manual_seed(seed))
    return module


def generic_points(module: HashGrid, n: int, seed: int = 0) -> torch.Tensor:
    """Float64 points that keep away from the faces of every level's cells, where the linear gradient jumps."""
    candidates = torch.rand(20 * n, module.in_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scales = torch.tensor([level.scale for level in module.layout.levels], dtype=torch.float64)
    fraction = (candidates[:, :, None] * scales + 0.5) % 1
    return candidates[((fraction > 0.02) & (fraction < 0.98)).flatten(1).all(1)][:n]


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
@pytest.mark.parametrize("in_dim", [1, 2, 3, 4, 5])
def test_constant_table_gives_a_constant_feature(in_dim: int, interpolation: str) -> None:
    """The weights of a point sum to one."""
    module = grid(in_dim, interpolation=interpolation)
    with torch.no_grad():
        for index, table in enumerate(module.level_tables()):
            table[:] = torch.tensor([1.0 + index, -2.0 - index])
    expected = torch.tensor([1.0, -2.0, 2.0, -3.0, 3.0, -4.0]).expand(200, 6)
    torch.testing.assert_close(module(torch.rand(200, in_dim)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_dim", [1, 2, 3, 4])
def test_linear_interpolation_is_exact_for_affine_functions(in_dim: int) -> None:
    """Vertex k of a dense level lies at x = (k - 1/2) / scale; a table affine in k makes a feature affine in x."""
    module = grid(in_dim, n_levels=1, n_features_per_level=1, log2_hashmap_size=19, base_resolution=5)
    (level,) = module.layout.levels
    slope = torch.arange(1.0, in_dim + 1)
    row = np.arange(level.resolution**in_dim)
    vertices = np.stack([row // level.resolution**axis % level.resolution for axis in range(in_dim)], 1)
    places = (torch.from_numpy(vertices) - 0.5) / level.scale
    with torch.no_grad():
        module.params.zero_()
        module.params[: len(row)] = places.float() @ slope + 0.25
    # The last vertex is at 1 - 1 / (2 scale): beyond it a dense level wraps around.
    x = torch.rand(300, in_dim) * (1 - 0.5 / level.scale)
    torch.testing.assert_close(module(x)[:, 0], x @ slope + 0.25, rtol=1e-5, atol=1e-5)


def test_collisions_add_up() -> None:
    """Vertices that share a row share its feature, and their gradients to that row are added."""
    module = grid(2, n_levels=1, n_features_per_level=1, log2_hashmap_size=3, base_resolution=40)
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(1))
    module(x).sum().backward()
    assert module.layout.levels[0].hashed
    assert module.params.grad.shape == (8,)
    assert module.params.grad.sum().item() == pytest.approx(500, rel=1e-5)  # every point hands out a weight of one
    assert (module.params.grad > 20).all()  # 8 rows share it about evenly


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("in_dim", [1, 2, 3])
def test_input_gradient_of_each_level(in_dim: int, interpolation: str) -> None:
    """Against central differences, one level at a time: kaolin-wisp hands every level the gradient of level 0."""
    module = grid(in_dim, interpolation=interpolation).double()
    x = generic_points(module, 30)
    step = 1e-6
    for level in range(3):
        features = slice(2 * level, 2 * level + 2)
        along = torch.tensor([0.7, -1.3], dtype=torch.float64)

        def value(points: torch.Tensor, features: slice = features, along: torch.Tensor = along) -> torch.Tensor:
            return module(points)[:, features] @ along

        leaf = x.clone().requires_grad_(True)
        (got,) = torch.autograd.grad(value(leaf).sum(), leaf)
        shifts = step * torch.eye(in_dim, dtype=torch.float64)
        expected = torch.stack([(value(x + s) - value(x - s)) / (2 * step) for s in shifts], dim=1).detach()
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        assert got.abs().mean() > 0.1


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
def test_second_backward(interpolation: str) -> None:
    """The gradient of |df/dx|^2 (an eikonal loss) to table and points, against a loop of finite differences."""
    module = grid(2, interpolation=interpolation, n_levels=2, log2_hashmap_size=4).double()
    x = generic_points(module, 6)

    def penalty(points: torch.Tensor) -> torch.Tensor:
        points = points.requires_grad_(True)
        (slope,) = torch.autograd.grad(module(points).square().sum(), points, create_graph=True)
        return slope.square().sum()

    leaf = x.clone().requires_grad_(True)
    if interpolation == "nearest":
        assert penalty(leaf).item() == 0.0  # no gradient to x, and so no second one
        return
    to_x, to_params = torch.autograd.grad(penalty(leaf), (leaf, module.params))
    step = 1e-6
    differences = torch.zeros_like(module.params)
    for k in range(module.params.numel()):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                module.params[k] += sign * step
            ends.append(penalty(x.clone()).item())
            with torch.no_grad():
                module.params[k] -= sign * step
        differences[k] = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(to_params, differences.detach(), rtol=1e-5, atol=1e-3)
    shift = step * torch.eye(2, dtype=torch.float64)[0]
    along_x = (penalty(x + shift).item() - penalty(x - shift).item()) / (2 * step)
    assert to_x[:, 0].sum().item() == pytest.approx(along_x, rel=1e-5)


def test_linear_interpolation_has_no_curvature_inside_a_cell_but_jumps_at_its_faces() -> None:
    module = grid(1, n_levels=1, n_features_per_level=1).double()
    scale = module.layout.levels[0].scale
    x = torch.tensor([[0.3 / scale], [0.4 / scale], [0.6 / scale]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    assert slope[0] == slope[1]
    assert (slope[2] - slope[1]).abs() > 0.1
    (curvature,) = torch.autograd.grad(slope.sum(), x, allow_unused=True, materialize_grads=True)
    assert (curvature == 0).all()


# Points outside the cube


def test_clamp_takes_the_nearest_point_of_the_cube() -> None:
    module = grid(2, outside="clamp")
    x = torch.tensor([[-0.5, 0.3], [1.7, -3.0], [0.4, 1.0001]])
    assert torch.equal(module(x), module(torch.tensor([[0.0, 0.3], [1.0, 0.0], [0.4, 1.0]])))


def test_error_names_the_range_and_the_cures() -> None:
    module = grid(2, outside="error")
    assert torch.isfinite(module(torch.tensor([[0.0, 1.0]]))).all()
    with pytest.raises(ConfigError, match=r"from -0\.25 to 1\.5, outside \[0, 1\].*Bounded.*clamp.*wrap.*zero"):
        module(torch.tensor([[-0.25, 0.5], [0.5, 1.5]]))
    with pytest.raises(ConfigError, match="outside"):
        module(torch.tensor([[float("nan"), 0.5]]))
    assert module(torch.empty(0, 2)).shape == (0, 6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(-5, 5), st.integers(-5, 5))
def test_wrap_is_periodic(column: int, row: int, across: int, down: int) -> None:
    module = grid(2, outside="wrap")
    x = torch.tensor([[column / 256, row / 256]])
    assert torch.equal(module(x), module(x + torch.tensor([across, down])))


def test_wrap_keeps_the_gradient() -> None:
    module = grid(2, outside="wrap").double()
    inside = generic_points(module, 10).requires_grad_(True)
    outside = (inside.detach() - 3).requires_grad_(True)
    for x in (inside, outside):
        module(x).sum().backward()
    torch.testing.assert_close(outside.grad, inside.grad)


def test_zero_is_zero_outside_and_unchanged_inside() -> None:
    module, plain = grid(2, outside="zero"), grid(2)
    x = torch.tensor([[0.0, 1.0], [0.3, 0.6], [-0.01, 0.5], [0.5, 1.01]], requires_grad=True)
    features = module(x)
    assert torch.equal(features[:2], plain(x[:2]))
    assert (features[2:] == 0).all()
    features.sum().backward()
    assert (x.grad[2:] == 0).all()
    assert (x.grad[1] != 0).all()


@pytest.mark.parametrize(
    ("outside", "where", "inside"),
    [
        ("clamp", [[0.0, 0.5], [1.0, 1.0], [0.25, 0.75]], None),
        ("wrap", [[0.75, 0.5], [0.5, 0.0], [0.25, 0.75]], None),
        ("zero", [[0.0, 0.5], [1.0, 1.0], [0.25, 0.75]], [[False], [False], [True]]),
    ],
)
def test_place_is_where_the_levels_look(outside: str, where: list, inside: list | None) -> None:
    x = torch.tensor([[-0.25, 0.5], [1.5, 1.0], [0.25, 0.75]], requires_grad=True)
    placed, counts = grid(2, outside=outside).place(x)
    assert placed.tolist() == where and (counts if counts is None else counts.tolist()) == inside
    (slope,) = torch.autograd.grad(placed.sum(), x)
    outer = 1.0 if outside == "wrap" else 0.0
    assert slope.tolist() == [[outer, 1.0], [outer, 1.0], [1.0, 1.0]]


def test_place_refuses_where_outside_is_an_error() -> None:
    module = grid(2, outside="error")
    placed, counts = module.place(torch.tensor([[0.0, 1.0]]))
    assert placed.tolist() == [[0.0, 1.0]] and counts is None
    with pytest.raises(ConfigError, match=r"from -0\.5 to 1, outside"):
        module.place(torch.tensor([[-0.5, 1.0]]))


@pytest.mark.parametrize("outside", ["clamp", "wrap", "zero"])
def test_not_a_number_stays_one_and_touches_nothing_else(outside: str) -> None:
    """A NaN has no cell; its row must still lie in the table, and the points beside it are right."""
    module = grid(3, outside=outside)
    x = torch.rand(4, 3)
    expected = module(x[:3])
    x[3, 1] = float("nan")
    features = module(x)
    assert torch.equal(features[:3], expected)
    assert features[3].isnan().all()
    features[:3].sum().backward()


# Options


def test_resolution_or_growth_but_not_both() -> None:
    with pytest.raises(ConfigError, match=r"max_resolution or per_level_scale, not both \(got 512 and 1\.5\)"):
        HashGrid(2, max_resolution=512, per_level_scale=1.5)
    by_default, stated = HashGrid(2, log2_hashmap_size=8), HashGrid(2, log2_hashmap_size=8, max_resolution=2048)
    assert by_default.layout == stated.layout
    assert by_default.layout.levels[-1].resolution == 2048


@pytest.mark.parametrize(
    "options",
    [
        {"base_resolution": 0},
        {"base_resolution": -4},
        {"base_resolution": 0, "per_level_scale": 2.0},
        {"n_levels": 0},
        {"max_resolution": 8},
        {"max_resolution": float("nan")},
        {"per_level_scale": float("inf")},
        {"interpolation": "cubic"},
        {"outside": "mirror"},
        {"engine": "warp"},
        {"in_dim": 8},
        {"seed": -1},
        {"n_features_per_level": 0},
        {"log2_hashmap_size": 40},
        {"max_resolution": 1e12},
    ],
    ids=str,
)
def test_bad_options(options: dict) -> None:
    with pytest.raises(ConfigError):
        HashGrid(**{"in_dim": 2, "log2_hashmap_size": 4, **options})


def test_initial_values_are_small_uniform_and_seeded() -> None:
    module = HashGrid(2, seed=3)
    values = module.params.detach()
    assert values.abs().max() <= 1e-4
    assert values.std().item() == pytest.approx(1e-4 / 3**0.5, rel=0.01)
    assert values.mean().item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(HashGrid(2, seed=3).params, module.params)
    assert not torch.equal(HashGrid(2, seed=4).params, module.params)
    before = torch.get_rng_state()
    HashGrid(2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    first = HashGrid(2, log2_hashmap_size=6).params
    torch.manual_seed(0)
    assert torch.equal(HashGrid(2, log2_hashmap_size=6).params, first)


def test_parameters_are_one_flat_vector_level_after_level() -> None:
    module = grid(2)
    assert [name for name, _ in module.named_parameters()] == ["params"] == list(module.state_dict())
    tables = module.level_tables()
    assert [len(table) for table in tables] == [level.entries for level in module.layout.levels]
    assert torch.equal(torch.cat([table.flatten() for table in tables]), module.params)
    assert all(isinstance(level, Level) for level in module.layout.levels)


def test_meta_device_allocates_nothing() -> None:
    with torch.device("meta"):
        module = HashGrid(7, n_levels=64, n_features_per_level=64, log2_hashmap_size=30, per_level_scale=1.2)
    assert module.params.is_meta
    assert module.params.numel() * 4 > 2**42  # four terabytes, if it were real


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_forward_keeps_only_points_and_parameters(interpolation: str) -> None:
    """Recorded operation by operation, 16 levels of 8 corners would keep some hundred numbers per point alive."""
    module = HashGrid(3, log2_hashmap_size=10, interpolation=interpolation, engine="reference")
    x = torch.rand(1000, 3, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = module(x)
    clamped = x.numel() * 4  # besides x itself, the points after clamping
    assert sum(kept.values()) <= module.params.numel() * 4 + x.numel() * 4 + clamped
    features.sum().backward()
    assert x.grad is not None and module.params.grad is not None
