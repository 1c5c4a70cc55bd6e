"""Where kernels start: covariances of features, and the tangent kernels of encodings' own parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuralfield import encodings
from neuralfield.encodings import Bounded, Encoding, Fourier, HashGrid, Identity, Positional
from neuralfield.errors import ConfigError
from neuralfield.ntk.covariance import Covariance


class Warped(Encoding):
    """Someone else's encoding, with parameters of its own."""

    def __init__(self, in_dim: int) -> None:
        super().__init__(in_dim)
        self.weight = torch.nn.Parameter(torch.linspace(-1, 2, 5 * in_dim).reshape(in_dim, 5))
        self.shift = torch.nn.Parameter(torch.linspace(0, 1, 5))

    @property
    def out_dim(self) -> int:
        return 10

    def encode(self, x: Tensor) -> Tensor:
        z = x @ self.weight + self.shift
        return torch.cat([z**2, torch.sin(z)], dim=1)


def filled(**options: object) -> HashGrid:
    """A grid whose table is not almost zero."""
    grid = HashGrid(2, n_levels=3, base_resolution=3, max_resolution=12, log2_hashmap_size=6, seed=0, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        grid.params.mul_(1e4)
    return grid


ENCODINGS = {
    "none": lambda: None,
    "centered": lambda: Identity(2, centered=True),
    "fourier": lambda: Fourier(2, 16, sigma=2.0),
    "decayed": lambda: Fourier(2, 16, sigma=2.0, decay=1.0, normalize=True),
    "trainable": lambda: Fourier(2, 16, sigma=2.0, trainable=True, amplitudes=[0.1 * j for j in range(16)]),
    "positional": lambda: Positional(2, 4),
    "with_input": lambda: Positional(2, 4, include_input=True),
    "grid": filled,
    "zero_outside": lambda: filled(outside="zero"),
    "wrapped": lambda: filled(outside="wrap", interpolation="smoothstep"),
    "bounded": lambda: Bounded(Fourier(2, 16, sigma=2.0, trainable=True), low=-1, high=[2.0, 1.5]),
    "bounded_grid": lambda: Bounded(filled(), low=-0.5, high=1.25),
    "twice_bounded": lambda: Bounded(Bounded(Fourier(2, 16, trainable=True), 0.1, 0.9), low=-1, high=[2.0, 1.5]),
    "own": lambda: Warped(2),
}
TRAINED = ("trainable", "grid", "zero_outside", "wrapped", "bounded", "bounded_grid", "twice_bounded", "own")


def points(n: int = 12, seed: int = 0) -> Tensor:
    """Some beyond the unit cube, two the same, one at the origin."""
    x = 1.3 * torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.1
    x[1], x[2] = x[0], 0
    return x


def whole(block: object, n: int, m: int) -> Tensor:
    return block(slice(0, n), slice(0, m))  # type: ignore[operator]


@pytest.mark.parametrize("name", ENCODINGS)
def test_covariance_is_the_features_mean_product(name: str) -> None:
    encoding = ENCODINGS[name]()
    x, y = points(), points(9, seed=1)
    y[:3] = x[:3]
    inputs = Covariance(encoding, train_encoding=False).inputs(x, y)
    one, two = (t if encoding is None else encoding.double()(t).detach() for t in (x, y))
    count = one.shape[1]
    norms = torch.outer(one.norm(dim=1), two.norm(dim=1)) / count
    q = [(inputs.rows.expand(12) * count).sqrt(), (inputs.columns.expand(9) * count).sqrt()]
    torch.testing.assert_close(q[0], one.norm(dim=1), rtol=1e-13, atol=0)
    torch.testing.assert_close(q[1], two.norm(dim=1), rtol=1e-13, atol=0)
    u = whole(inputs.distance, 12, 9)
    torch.testing.assert_close(norms * (1 - u), one @ two.T / count, rtol=1e-12, atol=1e-14 * float(norms.max()))
    zero = norms == 0
    assert bool((u[zero] == 1).all())
    assert bool((u[:2, :2][~zero[:2, :2]] == 0).all())  # the same point twice: exactly
    assert inputs.tangent is None and inputs.shape == (12, 9) and inputs.n_features == count


@pytest.mark.parametrize("name", TRAINED)
def test_tangent_part_is_the_product_of_jacobians(name: str) -> None:
    """T0 in closed form against automatic differentiation of every feature to every parameter."""
    encoding = ENCODINGS[name]()
    x, y = points(), points(9, seed=1)
    inputs = Covariance(encoding).inputs(x, y)
    encoding = encoding.double()
    parameters = list(encoding.parameters())

    def jacobian(t: Tensor) -> Tensor:
        rows = []
        for feature in encoding(t).flatten():
            grads = torch.autograd.grad(feature, parameters, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
        return torch.stack(rows).reshape(len(t), -1)

    expected = jacobian(x) @ jacobian(y).T / encoding.out_dim
    assert float(expected.abs().max()) > 0.01
    torch.testing.assert_close(
        whole(inputs.tangent, 12, 9), expected, rtol=1e-12, atol=1e-13 * float(expected.abs().max())
    )
    assert Covariance(encoding, train_encoding=False).inputs(x, y).tangent is None
    for p in parameters:
        p.requires_grad_(False)
    assert Covariance(encoding).inputs(x, y).tangent is None


def test_neighbours_of_many_features_keep_relative_precision() -> None:
    """u of 1e-12 and less comes from differences, not from 1 - cos: against the sum of squared sines."""
    encoding = Fourier(2, 64, sigma=1.0)
    x = torch.full((1, 2), 0.375, dtype=torch.float64)
    steps = torch.logspace(-9, -1, 30, dtype=torch.float64)[:, None] * torch.tensor([1.0, -0.5], dtype=torch.float64)
    y = x + steps
    covariance = Covariance(encoding)
    u = whole(covariance.inputs(x, y).distance, 1, 30)[0]
    exact = covariance.of_offsets(y - x)[1]
    torch.testing.assert_close(u, exact, rtol=1e-6, atol=1e-30)
    torch.testing.assert_close(u[steps[:, 0] > 1e-4], exact[steps[:, 0] > 1e-4], rtol=1e-9, atol=0)
    assert float(exact[0]) < 1e-15


@pytest.mark.parametrize("name", ["fourier", "decayed", "positional"])
@pytest.mark.parametrize("bounded", [False, True])
def test_lines(name: str, bounded: bool) -> None:
    """gamma . gamma' is the sum over lines of a^2 cos 2 pi b dv, and of_offsets is the same in q and u."""
    encoding = ENCODINGS[name]()
    encoding = Bounded(encoding, low=-1, high=[2.0, 1.5]) if bounded else encoding
    covariance = Covariance(encoding)
    assert covariance.stationary
    frequencies, power = covariance.lines()
    x, y = points(), points(seed=1)
    gamma = encoding.double()
    expected = (gamma(x) * gamma(y)).sum(1)
    torch.testing.assert_close(torch.cos(2 * math.pi * (x - y) @ frequencies.T) @ power, expected, rtol=0, atol=1e-11)
    q, u = covariance.of_offsets(x - y)
    torch.testing.assert_close(q * (1 - u) * encoding.out_dim, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["none", "centered", "trainable", "with_input", "grid"])
def test_what_is_not_stationary(name: str) -> None:
    assert not Covariance(ENCODINGS[name]()).stationary


def test_trainable_frequencies_left_out_are_stationary() -> None:
    assert Covariance(ENCODINGS["trainable"](), train_encoding=False).stationary


def test_expected_frequencies_are_the_mean_over_draws() -> None:
    """Of S0 and of T0, anisotropic sigma, inside a box; within the standard error of 150 seeds."""
    x, y = points(), points(9, seed=1)
    options = {"n_features": 32, "sigma": [0.5, 1.5], "trainable": True, "amplitudes": [1.0 + j / 8 for j in range(32)]}
    make = lambda seed: Bounded(Fourier(2, seed=seed, **options), low=0, high=2)  # noqa: E731
    starts, tangents = [], []
    for seed in range(150):
        inputs = Covariance(make(seed)).inputs(x, y)
        starts.append(inputs.rows * (1 - whole(inputs.distance, 12, 9)))
        tangents.append(whole(inputs.tangent, 12, 9))
    expected = Covariance(make(0), frequencies="expected").inputs(x, y)
    for draws, mean in (
        (torch.stack(starts), expected.rows * (1 - whole(expected.distance, 12, 9))),
        (torch.stack(tangents), whole(expected.tangent, 12, 9)),
    ):
        error = draws.std(0) / math.sqrt(150) + 1e-12
        assert float(((draws.mean(0) - mean) / error).abs().max()) < 4.5
        assert float((mean.max() - mean.min()) / error.max()) > 10  # the test resolves the kernel's shape


def test_expected_table_is_the_mean_over_draws() -> None:
    x, y = points(), points(9, seed=1)
    grid = filled(outside="zero")
    draws = []
    for seed in range(250):
        grid.reset_parameters(seed)
        features = Covariance(grid).features
        draws.append(features(x) @ features(y).T / grid.out_dim)
    inputs = Covariance(grid, frequencies="expected").inputs(x, y)
    mean = torch.outer(inputs.rows.sqrt(), inputs.columns.sqrt()) * (1 - whole(inputs.distance, 12, 9))
    found = torch.stack(draws).detach()
    error = found.std(0) / math.sqrt(250) + 1e-20
    assert float(((found.mean(0) - mean) / error).abs().max()) < 4.5
    assert float(mean.max() / error.max()) > 10
    inside = torch.tensor([[0.3, 0.7], [0.3, 0.7], [0.3, 0.7001], [2.0, 0.5]], dtype=torch.float64)
    u = whole(Covariance(grid, frequencies="expected").inputs(inside, None).distance, 4, 4)
    assert float(u[0, 1]) == 0 and 0 < float(u[0, 2]) < 1e-5 and float(u[0, 3]) == 1


@pytest.mark.parametrize("name", ["none", "fourier", "trainable", "with_input", "wrapped", "bounded_grid"])
def test_derivatives_in_coordinates(name: str) -> None:
    covariance = Covariance(ENCODINGS[name]())
    x = (0.1 + 0.8 * torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).requires_grad_()

    y = x.detach().flip(0) * 0.9

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        inputs = covariance.inputs(x, y)
        parts = [whole(inputs.distance, 3, 3), inputs.rows.expand(3) + 0 * x.sum()]
        return (*parts, whole(inputs.tangent, 3, 3)) if inputs.tangent is not None else tuple(parts)

    assert torch.autograd.gradcheck(outputs, (x,), eps=1e-7, atol=1e-5)


def test_derivatives_in_the_encoding() -> None:
    """Asked for, frequencies receive gradients; not asked for, none is recorded."""
    encoding = Fourier(2, 4, sigma=1.0, trainable=True).double()
    x = points(4)
    assert not whole(Covariance(encoding).inputs(x, None).distance, 4, 4).requires_grad
    u = whole(Covariance(encoding, differentiate_encoding=True).inputs(x, None).distance, 4, 4)
    (found,) = torch.autograd.grad(u.sum(), encoding.frequencies)
    step = torch.zeros_like(encoding.frequencies)
    step[0, 1] = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            encoding.frequencies.add_(step, alpha=sign)
            values.append(float(whole(Covariance(encoding).inputs(x, None).distance, 4, 4).sum()))
            encoding.frequencies.sub_(step, alpha=sign)
    assert float(found[0, 1]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="did you mean 'expected'"):
        Covariance(Fourier(2), frequencies="expcted")
    with pytest.raises(ConfigError, match="averages over a random encoding"):
        Covariance(Positional(2), frequencies="expected")
    with pytest.raises(ConfigError, match="decay"):
        Covariance(Fourier(2, decay=1.0), frequencies="expected")
    with pytest.raises(ConfigError, match="outside \\[0, 1\\]"):
        Covariance(filled(outside="error")).inputs(points(), None)
    with pytest.raises(ConfigError, match="have lines"):
        Covariance(encodings.Identity(2)).lines()
