r"""The Jacobian of a field taken apart along its layers.

A field is $\gamma$ followed by $z_l = W_l a_{l-1} + b_l,\ a_l = \phi(z_l)$ and $f = \psi(z_{L+1})$. The derivative of
$s \cdot f(x)$ to $W_l$ is the outer product of $a_{l-1}(x)$ and the signal $g_l(x) = \partial (s \cdot f) / \partial z_l$.
Everything finite-width, dense or matrix-free, is made of these two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.field import Field
from neuralfield.networks import ACTIVATIONS, MLP, OUTPUTS


@dataclass
class Tape:
    r"""What one pass over a block of n points leaves behind.

    - `features`: $\gamma(x)$.
    - `inputs`: $a_{l-1}$ of each affine layer, the features of skip connections included.
    - `slopes`: $\phi'(z_l)$ of each hidden layer.
    - `output_slope`: $\psi'(z_{L+1})$, or None for a linear output.
    - `output`: f.
    """

    features: Float[Tensor, "n features"]
    inputs: list[Tensor]
    slopes: list[Tensor]
    output_slope: Float[Tensor, "n channels"] | None
    output: Float[Tensor, "n channels"]


def unsupported(module: nn.Module) -> str | None:
    """None when the structured path takes this module, else the reason.

    It takes what computes encoding, then an :class:`~neuralfield.networks.MLP` of plain ``torch.nn.Linear``, each with
    weights of its own: a subclass that overrides the forward pass, a layer wrapped by a parametrization or an adapter, a
    parameter used twice and a parameter that no layer knows all have other derivatives.
    """
    if not isinstance(module, Field):
        return f"{type(module).__name__} is not a neuralfield.Field"
    if type(module).forward is not Field.forward:
        return f"{type(module).__name__} has a forward pass of its own"
    network = module.network
    if type(network) is not MLP:
        return f"its network is {type(network).__name__}, not neuralfield.networks.MLP"
    for index, layer in enumerate(network.layers):
        if type(layer) is not nn.Linear:
            return f"network.layers.{index} is {type(layer).__name__}, not torch.nn.Linear"
    names: dict[int, str] = {}
    known = {f"network.layers.{index}.{kind}" for index in range(network.depth + 1) for kind in ("weight", "bias")}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in names and parameter.requires_grad:
            return f"{names[id(parameter)]} and {name} are one parameter"
        names[id(parameter)] = name
        if parameter.requires_grad and name not in known and not name.startswith("encoding."):
            return f"{name} belongs to no layer of the network"
    return None


@torch.no_grad()
def forward(network: MLP, features: Float[Tensor, "n features"]) -> Tape:
    """The network's values and what its derivatives need, for features of n points."""
    activate = ACTIVATIONS[network.activation]
    inputs, slopes, hidden = [], [], features
    layers = network.linear_layers()
    for index, layer in enumerate(layers[:-1]):
        if index in network.skip:
            hidden = torch.cat([hidden, features], dim=-1)
        inputs.append(hidden)
        hidden, slope = value_and_slope(lambda z: activate(z, network.activation_scale), layer(hidden))
        slopes.append(slope)
    inputs.append(hidden)
    output, output_slope = layers[-1](hidden), None
    if network.output_activation != "none":
        output, output_slope = value_and_slope(OUTPUTS[network.output_activation], output)
    return Tape(features, inputs, slopes, output_slope, output)


@torch.no_grad()
def backward(network: MLP, tape: Tape, seed: Float[Tensor, "n channels"]) -> tuple[list[Tensor], Tensor]:
    r"""The signals $g_l = \partial (s \cdot f)/\partial z_l$ of every layer, and $\partial (s \cdot f)/\partial \gamma$.

    **Arguments**

    - `seed`: s, one row per point: a unit vector for one output, any numbers for a vector-Jacobian product.

    **Returns**

    the signals in the order of the layers, each [n, outputs of the layer], and the features' gradient, [n, features].
    """
    layers = network.linear_layers()
    signal = seed if tape.output_slope is None else seed * tape.output_slope
    signals, to_features = [signal], torch.zeros_like(tape.features)
    for index in range(len(layers) - 1, -1, -1):
        gradient = signal @ layers[index].weight
        if index in network.skip:
            to_features = to_features + gradient[:, network.width :]
            gradient = gradient[:, : network.width]
        if index == 0:
            return signals[::-1], to_features + gradient
        signal = gradient * tape.slopes[index - 1]
        signals.append(signal)
    raise AssertionError("unreachable: a network has at least one layer")


@torch.no_grad()
def unit_signals(
    network: MLP, tape: Tape, to_features: bool
) -> tuple[list[Float[Tensor, "n channels outputs"]], Float[Tensor, "n channels features"] | None]:
    r"""The signals of every output at once: :func:`backward` for all unit seeds, with products C times as large.

    **Arguments**

    - `to_features`: whether the derivative to the features is wanted; it costs as much as the first layer.

    **Returns**

    $\partial f_c / \partial z_l$ of each hidden layer l, [n, C, outputs of the layer], and $\partial f_c / \partial
    \gamma$, [n, C, features], or None. The last layer's is not among them: it is diag($\psi'$).
    """
    layers = network.linear_layers()
    n, channels = tape.output.shape
    gradient = layers[-1].weight.expand(n, -1, -1)
    if tape.output_slope is not None:
        gradient = gradient * tape.output_slope[:, :, None]
    skipped: list[Tensor] = []
    signals: list[Tensor] = []
    for index in range(network.depth - 1, -1, -1):
        signal = gradient * tape.slopes[index][:, None]
        signals.append(signal)
        if index == 0 and not to_features:
            return signals[::-1], None
        gradient = (signal.flatten(0, 1) @ layers[index].weight).view(n, channels, layers[index].in_features)
        if index in network.skip:
            skipped.append(gradient[:, :, network.width :])
            gradient = gradient[:, :, : network.width]
    return signals[::-1], sum(skipped, gradient) if to_features else None


def value_and_slope(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\phi(z)$ and $\phi'(z)$ of an elementwise function, by automatic differentiation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = function(z)
        (slope,) = torch.autograd.grad(value, z, torch.ones_like(value))
    return value.detach(), slope


def trainable(module: nn.Module) -> dict[str, Any]:
    """The parameters that training moves, by name; frozen ones have no part in a tangent kernel."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
