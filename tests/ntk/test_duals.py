"""Duals of activations: against plain quadrature, 60-digit numbers near the diagonal, and each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk import activations
from neuralfield.ntk.duals import Dual, Erf, PiecewiseLinear
from neuralfield.ntk.quadrature import Quadrature

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "kernels_near_diagonal.json").read_text())

SMOOTH = {
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "gaussian": lambda z: torch.exp(-z * z),
    "gelu": F.gelu,
    "exp": torch.exp,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
}
KINKED = {
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "abs": torch.abs,
    "elu": F.elu,
    "identity": lambda z: z,
}
PAIRS = [(1.0, 1.0), (0.7, 1.3), (0.2, 0.25), (0.5, 2.0), (0.0, 1.0)]
ANGLES = (1e-3, 0.1, 0.5, 1.5, 2.5, 3.1)


def slope_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def slope(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        return torch.autograd.grad(function(z).sum(), z)[0]

    return slope


def by_hermite(f: Callable[[Tensor], Tensor], r: float, s: float, theta: float) -> float:
    """E f(x) f(y) by a product rule of 200 x 200 points."""
    x, w = np.polynomial.hermite_e.hermegauss(200)
    x, w = torch.tensor(x), torch.tensor(w / w.sum())
    a, b = x[:, None], math.cos(theta) * x[:, None] + math.sin(theta) * x[None]
    return float((w[:, None] * w * f(r * a) * f(s * b)).sum())


def by_sectors(f: Callable[[Tensor], Tensor], r: float, s: float, theta: float) -> float:
    """The same by trapezoids in polar coordinates, between the half-lines on which x or y changes sign."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    total = 0.0
    cuts = sorted({c % (2 * math.pi) for c in (math.pi / 2, -math.pi / 2, theta + math.pi / 2, theta - math.pi / 2)})
    radius, mass = torch.tensor(5 * (nodes + 1)), torch.tensor(5 * weights)
    mass = mass * radius * torch.exp(-(radius**2) / 2) / (2 * math.pi)
    for low, high in zip(cuts, [*cuts[1:], cuts[0] + 2 * math.pi], strict=True):
        omega = torch.tensor(low + (high - low) * (nodes + 1) / 2)[:, None]
        arc = torch.tensor((high - low) / 2 * weights)[:, None]
        total += float((arc * mass * f(r * radius * omega.cos()) * f(s * radius * (omega - theta).cos())).sum())
    return total


def averages(dual: Dual, r: float, s: float, theta: float) -> tuple[float, float]:
    """S hat and S dot of one pair; for equal norms by the path that takes one norm for all."""
    u = torch.tensor([[2 * math.sin(theta / 2) ** 2]], dtype=torch.float64)
    shape = () if r == s else (1, 1)
    a, b = torch.full(shape, r, dtype=torch.float64), torch.full(shape, s, dtype=torch.float64)
    lost, slope = dual.drop(u, a, b)
    return float(dual.parallel(a, b) - lost), float(slope)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_against_quadrature(name: str) -> None:
    """Every dual and its slope to 1e-10 (closed forms: 1e-12), for equal and unequal norms and all angles."""
    function = SMOOTH.get(name) or KINKED[name]
    reference = by_hermite if name in SMOOTH else by_sectors
    dual = activations.dual(name)
    tolerance = 1e-10 if isinstance(dual, Quadrature) else 1e-12
    for r, s in PAIRS:
        if r == 0 and name in KINKED:  # the slope at a kink is a convention, tested below
            continue
        for theta in ANGLES:
            value, slope = averages(dual, r, s, theta)
            scale = max(1.0, abs(value), abs(slope))
            assert value == pytest.approx(reference(function, r, s, theta), abs=tolerance * scale)
            assert slope == pytest.approx(reference(slope_of(function), r, s, theta), abs=tolerance * scale)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_moments_are_the_dual_at_angle_zero(name: str) -> None:
    dual = activations.dual(name)
    r = torch.tensor([0.3, 1.0, 1.8], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for value in r:
        lost, slope = dual.drop(zero, value, value)
        assert float(lost) == 0
        assert float(dual.second_moment(value)) == pytest.approx(float(dual.parallel(value, value)), rel=1e-13)
        assert float(slope) == pytest.approx(float(dual.slope_moment(value)), rel=1e-10)


def test_tanh_at_large_norm() -> None:
    """Where tanh is nearly a sign: its poles lie close to the real line, and Hermite rules fail."""
    dual = activations.dual("tanh")
    for theta in (0.3, 2.0):
        value, slope = averages(dual, 6.0, 6.0, theta)
        assert value == pytest.approx(by_sectors(torch.tanh, 6.0, 6.0, theta), abs=1e-10)
        assert slope == pytest.approx(by_sectors(slope_of(torch.tanh), 6.0, 6.0, theta), abs=1e-10)


@pytest.mark.parametrize("name", ORACLE["duals"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_small_angles_keep_relative_precision(name: str, dtype: torch.dtype) -> None:
    """The next u and the slope against 60 digits, u from 1e-14 to 2, relative."""
    dual = activations.dual(name)
    eps = torch.finfo(dtype).eps
    for r, u, expected, slope in ORACLE["duals"][name]:
        if dtype == torch.float32:
            if u > 1:  # rounding u itself moves an angle near pi
                continue
            relative = 60 * eps
        else:
            relative = 1e-13
        deviation = torch.tensor(r, dtype=torch.float64)
        lost, found = dual.drop(torch.tensor([[u]], dtype=dtype), deviation, deviation)
        assert float(lost / dual.second_moment(deviation)) == pytest.approx(expected, rel=relative)
        assert float(found) == pytest.approx(slope, rel=relative, abs=relative * 0.1)


def test_quadrature_agrees_with_closed_forms_on_blocks() -> None:
    """Interpolation in both norms and the angle, also for tiny angles (relative)."""
    generator = torch.Generator().manual_seed(0)
    r = 2.5 * torch.rand(40, 1, dtype=torch.float64, generator=generator)
    s = 2.5 * torch.rand(1, 30, dtype=torch.float64, generator=generator)
    u = 2 * torch.rand(40, 30, dtype=torch.float64, generator=generator)
    u[:, 0] = torch.logspace(-14, -1, 40, dtype=torch.float64)
    for function, closed in ((torch.erf, Erf()), (F.relu, PiecewiseLinear(0.0, 1.0))):
        found, expected = Quadrature(function, "f").drop(u, r, s), closed.drop(u, r, s)
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-10)
        # relative to the drop itself, down to r r' u of 1e-14
        assert float((found[0] - expected[0]).div(r * s * u).abs().max()) < 1e-10


def test_a_kink_at_zero_takes_the_mean_slope() -> None:
    """Zero pre-activations: both slopes count half, (a + b)^2 / 4 for a pair."""
    dual = PiecewiseLinear(0.2, 1.0)
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(dual.slope_moment(zero)) == pytest.approx(0.36, rel=1e-14)
    assert float(dual.step(torch.ones(1, 1, dtype=torch.float64))[1]) * dual.gain == pytest.approx(0.36, rel=1e-14)


@pytest.mark.parametrize("name", ["relu", "erf", "sin", "cos", "gaussian", "gelu", "exp", "tanh", "elu"])
def test_derivatives(name: str) -> None:
    dual = activations.dual(name)
    generator = torch.Generator().manual_seed(1)
    r = (0.4 + torch.rand(3, 1, dtype=torch.float64, generator=generator)).requires_grad_()
    s = (0.4 + torch.rand(1, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    u = (0.05 + 1.8 * torch.rand(3, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    prepared = dual.prepared(0.3, 1.5)

    def outputs(u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        return (*prepared.drop(u, r, s), prepared.parallel(r, s), prepared.second_moment(r), prepared.slope_moment(s))

    assert torch.autograd.gradcheck(outputs, (u, r, s))
    assert torch.autograd.gradgradcheck(outputs, (u, r, s), atol=1e-4)


@pytest.mark.parametrize("name", ["relu", "erf", "sin", "gelu", "tanh"])
def test_derivatives_are_finite_at_the_ends(name: str) -> None:
    """u = 0 and 2, where the angle has infinite slope."""
    u = torch.tensor([[0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    one = torch.tensor(1.0, dtype=torch.float64)
    (lost, slope) = activations.dual(name).drop(u, one, one)
    (first,) = torch.autograd.grad((lost + slope).sum(), u, create_graph=True)
    assert bool(torch.isfinite(first).all())
    assert bool(torch.isfinite(torch.autograd.grad(first.sum(), u)[0]).all())


def test_what_cannot_be_resolved_is_refused() -> None:
    one = torch.tensor(1.0, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"hardtanh.*standard deviation 1.*kinks"):
        activations.dual(F.hardtanh).drop(torch.ones(1, 1, dtype=torch.float64), one, one)
    with pytest.raises(ConfigError, match="of the same shape"):
        activations.dual(torch.sum)
    with pytest.raises(ConfigError, match="did you mean 'relu'"):
        activations.dual("rellu")
