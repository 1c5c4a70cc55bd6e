"""The eikonal term: its value, its gradient, and what it makes of a fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.field import build
from neuralfield.fitting.eikonal import EikonalPoints, check, eikonal, gradient

CENTRE = torch.tensor([0.5, 0.4, 0.6])


def ball(x: Tensor) -> Tensor:
    return (x - CENTRE.to(x)).norm(dim=1, keepdim=True) - 0.3


def test_the_gradient_of_a_distance_has_length_one_and_the_term_vanishes() -> None:
    x = torch.rand(64, 3)
    assert torch.allclose(gradient(ball, x), torch.nn.functional.normalize(x - CENTRE), atol=1e-6)
    assert eikonal(ball, x).item() < 1e-10
    assert eikonal(lambda p: 3 * ball(p), x).item() == pytest.approx(4.0, rel=1e-5)
    assert eikonal(lambda p: 0 * ball(p), x).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "encoding",
    [
        {"name": "none"},
        {"name": "positional", "n_frequencies": 3},
        {"name": "fourier", "n_features": 8, "sigma": 1.0},
        {"name": "hashgrid", "n_levels": 2, "base_resolution": 4, "max_resolution": 8, "log2_hashmap_size": 10},
        {
            "name": "hashgrid",
            "n_levels": 2,
            "base_resolution": 4,
            "max_resolution": 8,
            "log2_hashmap_size": 10,
            "interpolation": "smoothstep",
        },
    ],
    ids=["none", "positional", "fourier", "linear grid", "smoothstep grid"],
)
def test_the_terms_gradient_reaches_every_weight_as_finite_differences_say(encoding: dict) -> None:
    torch.manual_seed(0)
    field = build(3, 1, encoding, {"width": 8, "depth": 1, "activation": "softplus"}).double()
    if encoding["name"] == "hashgrid":
        torch.nn.init.uniform_(field.encoding.params, -1, 1)
    x = torch.rand(16, 3, dtype=torch.float64)
    eikonal(field, x).backward()
    for name, parameter in field.named_parameters():
        if name == "network.layers.1.bias":  # an added constant has no gradient in x
            continue
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter += sign * 1e-6 * direction
                values.append(eikonal(field, x).item())
                parameter -= sign * 1e-6 * direction
        expected = (values[0] - values[1]) / 2e-6
        assert (parameter.grad * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_points_are_a_function_of_the_step() -> None:
    batch = torch.rand(32, 3)
    points = EikonalPoints(seed=3)
    assert torch.equal(points.at(5, batch), EikonalPoints(seed=3).at(5, batch))
    assert not torch.equal(points.at(5, batch)[4:], points.at(6, batch)[4:])
    assert points.at(5, batch).shape == (8, 3)
    assert points.at(5, batch[:1]).shape == (2, 3)


def test_only_distances_have_the_term(signal: nf.ImageSignal) -> None:
    check(0.0, signal)
    with pytest.raises(ConfigError, match="kind=sdf"):
        check(0.1, signal)
