"""How far weights and kernels move: against hand-made numbers, and against the theory of the lazy limit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import neuralfield as nf
from neuralfield import encodings, networks
from neuralfield.errors import ConfigError
from neuralfield.ntk.jacobian import jvp
from neuralfield.ntk.linearize import linearize
from neuralfield.ntk.movement import (
    LazinessProbe,
    Movement,
    groups_of,
    kernel_alignment,
    kernel_movement,
    prediction_gap,
    weight_movement,
)
from tests.ntk.test_jacobian import explicit, field_of, grid, points


def test_weight_movement_of_known_numbers() -> None:
    before = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}  # norm 5
    now = {"a": torch.tensor([3.0, 0.3]), "b": torch.tensor([[4.4]])}  # moved 0.5
    assert weight_movement(now, before) == pytest.approx(0.1, rel=1e-6)
    assert weight_movement(before, before) == 0
    zero = {"a": torch.zeros(2)}
    assert weight_movement(zero, zero) == 0 and weight_movement({"a": torch.ones(2)}, zero) == math.inf
    with pytest.raises(ConfigError, match="only one of them has b"):
        weight_movement(now, zero)


def test_kernel_movement_of_known_numbers() -> None:
    before, now = torch.diag(torch.tensor([3.0, 4.0])), torch.tensor([[3.0, 0.0], [1.0, 4.0]])
    assert kernel_movement(now, before) == pytest.approx(1 / 5)
    assert kernel_alignment(now, before) == pytest.approx(25 / (math.sqrt(26) * 5))
    assert kernel_movement(3 * before, before) == pytest.approx(2)
    assert kernel_alignment(3 * before, before) == pytest.approx(1, abs=1e-15)
    with pytest.raises(ConfigError, match=r"\(2, 2\) and \(3, 3\)"):
        kernel_movement(now, torch.eye(3))
    with pytest.raises(ConfigError, match="zero everywhere"):
        kernel_alignment(now, torch.zeros(2, 2))


def test_groups_are_layers_or_beginnings_of_names() -> None:
    parameters = dict(field_of(grid(2)).named_parameters())
    assert list(groups_of(parameters)) == ["encoding", *(f"network.layers.{index}" for index in range(4))]
    assert groups_of(parameters)["network.layers.1"] == ["network.layers.1.weight", "network.layers.1.bias"]
    assert len(groups_of(parameters, ["network", "network.layers.1"])["network"]) == 8
    with pytest.raises(ConfigError, match=r"'encoder'.*did you mean 'encoding'"):
        groups_of(parameters, ["encoder"])


@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_a_probe_against_explicit_jacobians(outputs: str) -> None:
    field = field_of(grid(2), activation="tanh")
    x, start = points(field), copy.deepcopy(field)
    probe = LazinessProbe(field, x, outputs=outputs)
    still = probe.measure()
    assert (still.weights, still.gap, still.kernel) == (0, 0, 0) and still.alignment == pytest.approx(1, abs=1e-14)
    with torch.no_grad():
        for index, parameter in enumerate(field.parameters()):
            parameter.mul_(1.1) if index % 2 else parameter.add_(0.05)
    found = probe()
    names = [name for name, _ in field.named_parameters()]
    step = {name: field.get_parameter(name).detach() - start.get_parameter(name).detach() for name in names}
    size = lambda values: math.sqrt(sum(float(v.detach().double().square().sum()) for v in values))  # noqa: E731
    assert found.weights == pytest.approx(size(step.values()) / size(start.parameters()), rel=1e-12)
    layer = ["network.layers.2.weight", "network.layers.2.bias"]
    expected = size([step[n] for n in layer]) / size([start.get_parameter(n) for n in layer])
    assert found.groups["network.layers.2"] == pytest.approx(expected, rel=1e-12)
    learned = (field(x) - start(x)).detach()
    assert found.gap == pytest.approx(float((learned - jvp(start, x, step)).norm() / learned.norm()), rel=1e-10)
    kernels = []
    for module in (field, start):
        J = torch.cat([part.flatten(2) for part in explicit(module, x).values()], dim=2)
        full = torch.einsum("ncp,mdp->ncmd", J, J)
        kernels.append(full.diagonal(dim1=1, dim2=3).mean(2) if outputs == "trace" else full)
    assert found.kernel == pytest.approx(float((kernels[0] - kernels[1]).norm() / kernels[1].norm()), rel=1e-10)
    cosine = float((kernels[0] * kernels[1]).sum() / kernels[0].norm() / kernels[1].norm())
    assert found.alignment == pytest.approx(cosine, rel=1e-12)


def test_a_linear_model_has_no_gap_and_a_still_kernel() -> None:
    field = nf.Field(encodings.Fourier(2, 8, 1.0), networks.MLP(16, 2, depth=0)).double()
    probe = LazinessProbe(field, points(field))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += torch.randn_like(parameter)
    found = probe.measure()
    assert found.weights > 0.1 and found.gap < 1e-13 and found.kernel == pytest.approx(0, abs=1e-13)


def test_prediction_gap_of_two_models_trained_alike() -> None:
    field = field_of(grid(2), activation="tanh")
    x, start = points(field), copy.deepcopy(field)
    model = linearize(field)
    assert prediction_gap(field, model, x) == 0
    for module in (field, model):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (module(x) - 1).square().sum().backward()
            optimizer.step()
    with torch.no_grad():
        expected = float((field(x) - model(x)).norm() / (field(x) - start(x)).norm())
    assert 0 < expected < 1 and prediction_gap(field, model, x) == pytest.approx(expected, rel=1e-12)


def test_wider_is_lazier() -> None:
    """Weights and kernel of a network in the NTK's scaling move less with width (Jacot et al. 2018, theorem 2)."""
    x = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
    y = torch.sin(5 * x)
    found: list[Movement] = []
    for width in (32, 512):
        torch.manual_seed(0)
        encoding = encodings.Positional(1, 2)
        field = nf.Field(
            encoding, networks.MLP(4, 1, width=width, depth=1, activation="tanh", output_scale=1.0)
        ).double()
        probe = LazinessProbe(field, x)
        # The function moves by rate times kernel, which grows with the width in torch's parameterisation.
        optimizer = torch.optim.SGD(field.parameters(), lr=1.0 / width)
        for _ in range(60):
            optimizer.zero_grad()
            (0.5 * (field(x) - y).square().sum()).backward()
            optimizer.step()
        assert float((field(x) - y).detach().square().mean()) < 0.3 * float(y.square().mean())
        found.append(probe.measure())
    narrow, wide = found
    assert wide.weights < 0.5 * narrow.weights and wide.gap < 0.5 * narrow.gap
    assert narrow.kernel is not None and wide.kernel is not None and wide.kernel < 0.5 * narrow.kernel


def test_the_repr_reads_as_a_sentence() -> None:
    text = repr(Movement(0.0123, {"encoding": math.inf, "network.layers.0": 0.5}, 0.25, 0.1, 0.98765))
    assert text.splitlines() == [
        "Movement: weights 1.23 %, gap to the linearisation 25 %, kernel 10 % (alignment 0.9877)",
        "  encoding          inf %",
        "  network.layers.0  50 %",
    ]
    assert repr(Movement(0.5)) == "Movement: weights 50 %, gap to the linearisation 0 %"


def test_without_kernels_and_bad_input() -> None:
    field = field_of(grid(2))
    found = LazinessProbe(field, points(field), kernel=False, groups=["network"]).measure()
    assert found.kernel is None and found.alignment is None and list(found.groups) == ["network"]
    with pytest.raises(ConfigError, match="outputs must be one of trace, full"):
        LazinessProbe(field, points(field), outputs="mean")
    with pytest.raises(ConfigError, match="Dropout in training mode"):
        LazinessProbe(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), torch.zeros(1, 2))
    probe = LazinessProbe(field, points(field), kernel=False)
    with torch.no_grad():
        field.network.layers[0].weight.fill_(torch.nan)  # type: ignore[union-attr,index]
    with pytest.raises(ConfigError, match="the field's values must be finite"):
        probe.measure()
