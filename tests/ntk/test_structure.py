"""A field's Jacobian along its layers, against reverse-mode autograd in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.field import Field
from neuralfield.networks import ACTIVATIONS, MLP, OUTPUTS
from neuralfield.ntk import structure

CASES: list[dict[str, Any]] = [
    *({"activation": name} for name in ACTIVATIONS),
    *({"activation": "tanh", "output_activation": name} for name in OUTPUTS),
    {"depth": 0},
    {"depth": 0, "output_activation": "sigmoid"},
    {"depth": 4, "skip": [1, 2, 3], "activation": "silu"},
    {"depth": 3, "skip": 2, "bias": False, "activation": "gelu", "output_activation": "exp"},
]
each_case = pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))


def network(**options: Any) -> MLP:
    torch.manual_seed(0)
    return MLP(3, 2, **{"width": 5, "depth": 2, "output_scale": 1.0, "initialization": "pytorch", **options}).double()


def traced(module: MLP, features: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The output with every layer's inputs and pre-activations, by hooks on the layers themselves."""
    inputs, outputs = [], []

    def keep(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        inputs.append(given[0])
        outputs.append(result)

    handles = [layer.register_forward_hook(keep) for layer in module.linear_layers()]
    result = module(features)
    for handle in handles:
        handle.remove()
    return result, inputs, outputs


@each_case
def test_forward_and_backward(options: dict[str, Any]) -> None:
    module = network(**options)
    features = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(6, 2, dtype=torch.float64)
    output, inputs, preactivations = traced(module, features)
    gradients = torch.autograd.grad(output, [*preactivations, features], seed)

    tape = structure.forward(module, features.detach())
    assert torch.allclose(tape.output, output.detach(), rtol=1e-13, atol=1e-14)
    for mine, theirs in zip(tape.inputs, inputs, strict=True):
        assert torch.allclose(mine, theirs.detach(), rtol=1e-13, atol=1e-14)
    signals, to_features = structure.backward(module, tape, seed)
    for mine, theirs in zip([*signals, to_features], gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-13)


@each_case
def test_all_unit_signals_at_once(options: dict[str, Any]) -> None:
    module = network(**options)
    tape = structure.forward(module, torch.randn(6, 3, dtype=torch.float64))
    signals, to_features = structure.unit_signals(module, tape, to_features=True)
    assert len(signals) == module.depth and to_features is not None
    for c in range(2):
        seed = torch.zeros(6, 2, dtype=torch.float64)
        seed[:, c] = 1
        wanted, wanted_features = structure.backward(module, tape, seed)
        for mine, theirs in zip(signals, wanted[:-1], strict=True):
            assert torch.allclose(mine[:, c], theirs, rtol=1e-12, atol=1e-13)
        assert torch.allclose(to_features[:, c], wanted_features, rtol=1e-12, atol=1e-13)
        last = torch.zeros_like(wanted[-1])
        last[:, c] = 1 if tape.output_slope is None else tape.output_slope[:, c]
        assert torch.equal(wanted[-1], last)
    fewer, none = structure.unit_signals(module, tape, to_features=False)
    assert none is None and all(torch.equal(a, b) for a, b in zip(fewer, signals, strict=True))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_by_central_differences(name: str) -> None:
    function = lambda z: ACTIVATIONS[name](z, 1.3)  # noqa: E731
    z = torch.linspace(-3, 3, 41, dtype=torch.float64) + 0.01  # off the kinks
    value, slope = structure.value_and_slope(function, z)
    assert torch.equal(value, function(z))
    assert torch.allclose(slope, (function(z + 1e-6) - function(z - 1e-6)) / 2e-6, atol=1e-8)


def test_supported() -> None:
    field = Field(encodings.HashGrid(2, n_levels=2, log2_hashmap_size=4), MLP(4, 1))
    assert structure.unsupported(field) is None
    assert structure.unsupported(nn.Linear(2, 1)) == "Linear is not a neuralfield.Field"
    field.network.requires_grad_(False)
    assert structure.unsupported(field) is None
    assert list(structure.trainable(field)) == ["encoding.params"]
    field.register_parameter("gain", nn.Parameter(torch.ones(())))
    assert structure.unsupported(field) == "gain belongs to no layer of the network"
    field.gain.requires_grad_(False)
    assert structure.unsupported(field) is None
