"""The variances that a field's MLP is initialised with, as deviations of the infinitely wide one."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from neuralfield.errors import ConfigError
from neuralfield.networks import MLP
from neuralfield.ntk.structure import unsupported


def initial_deviations(field: nn.Module) -> dict[str, Any]:
    r"""Arguments of :class:`~neuralfield.ntk.kernels.MLPKernel` for a field's network.

    With n inputs and m outputs of a layer, weights of variance $\sigma^2$ have $w^2 = n\sigma^2$: he 2; xavier $2n/(n+m)$;
    pytorch 1/3, and biases 1/(3n); siren 1/(3n) in the first layer, else $2/\omega_0^2$, and biases 1/(3n). The last layer's
    are multiplied by `output_scale`. (A uniform variable on $\pm a$ has variance $a^2/3$.)

    Raises :class:`~neuralfield.errors.ConfigError` for a network of another class.
    """
    if (reason := unsupported(field)) is not None:
        raise ConfigError(
            f"MLPKernel.of takes a Field with an MLP: {reason}; describe it by MLPKernel(depth, ...) instead"
        )
    network = field.network
    assert isinstance(network, MLP)
    rule = network.initialization
    if rule == "auto":
        rule = "siren" if network.activation == "sine" else "he"
    w_std, b_std = [], []
    for index, layer in enumerate(network.linear_layers()):
        m, n = layer.weight.shape
        scale = network.output_scale if index == network.depth else 1.0
        if rule == "he":
            w = math.sqrt(2)
        elif rule == "xavier":
            w = math.sqrt(2 * n / (n + m))
        elif rule == "pytorch":
            w = math.sqrt(1 / 3)
        else:
            w = math.sqrt(1 / (3 * n)) if index == 0 else math.sqrt(2) / network.activation_scale
        w_std.append(scale * w)
        b_std.append(scale * math.sqrt(1 / (3 * n)) if rule in ("pytorch", "siren") else 0.0)
    return {
        "depth": network.depth,
        "activation": network.activation,
        "w_std": w_std,
        "b_std": b_std if network.config["bias"] else None,
        "width": network.width,
        "activation_scale": network.activation_scale,
        "output_activation": network.output_activation,
        "skip": list(network.skip),
    }
