"""Which parameters carry which part of an infinite-width kernel: one matrix for each tensor of weights and biases.

The tangent kernel is a sum over parameters, and each layer's own contribution enters the recursion at its place (the terms
in S and 1 of :class:`~neuralfield.ntk.recursion.Affine`). Leaving out all but one gives that one's part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from neuralfield.ntk.covariance import Inputs
from neuralfield.ntk.kernels import MLPKernel, Prepared
from neuralfield.ntk.memory import require_dense
from neuralfield.ntk.recursion import Network


def kernel_parts(
    kernel: MLPKernel, x1: Shaped[Tensor, "n dim"], x2: Shaped[Tensor, "m dim"] | None = None
) -> dict[str, Float[Tensor, "n m"]]:
    """The parts of ``kernel.ntk(x1, x2)``, which add up to it, under the names that the parameters have in a field.

    ``network.layers.0.weight``, ``network.layers.0.bias``, ..., and ``encoding`` for an encoding's own parameters. The same
    names as those of :func:`~neuralfield.ntk.empirical.empirical_parts`, whose numbers tend to these with the width.
    """
    x1 = x1 if x1.is_floating_point() else x1.float()
    count = 2 * (kernel.depth + 1) + 1
    require_dense(
        count * len(x1), len(x1 if x2 is None else x2), x1.dtype, "fewer points, a patch of the image", x1.device
    )
    whole = kernel.prepare(x1, x2)
    found = {}
    for name, network, inputs in _variants(whole.network, whole.inputs):
        prepared = Prepared(network, inputs, whole.dtype, whole.device, symmetric=x2 is None)
        found[name] = prepared.dense("ntk")[1]
    return {name: part for name, part in found.items() if part is not None}


def parts_at_distance(kernel: MLPKernel, in_dim: int, u: Float[Tensor, "*pairs"]) -> dict[str, Float[Tensor, "*pairs"]]:
    r"""The parts of a stationary kernel for pairs of points, by $u = 1 - \gamma\cdot\gamma'/|\gamma|^2$ of their features.

    Raises :class:`~neuralfield.errors.ConfigError` where the kernel is not stationary.
    """
    q, _ = kernel.covariance.of_offsets(u.new_zeros(1, in_dim))
    flat = u.flatten()
    inputs = Inputs(
        q, q, lambda rows, columns: flat[rows, None], None, (len(flat), 1), kernel.covariance.n_features(in_dim)
    )
    found = {}
    for name, network, _ in _variants(kernel.network(inputs.n_features), inputs):
        prepared = Prepared(network, inputs, u.dtype, u.device)
        found[name] = torch.cat([_ntk(prepared, part) for part in flat.split(2**14)]).reshape(u.shape)
    return found


def _ntk(prepared: Prepared, u: Tensor) -> Tensor:
    found = prepared.at(u.clone(), "ntk")[1]  # which works in place
    assert found is not None
    return found


def _variants(network: Network, inputs: Inputs) -> Iterator[tuple[str, Network, Inputs]]:
    """The network with all gains zero but one, by the name of the tensor that the one belongs to."""
    zero = torch.zeros((), dtype=torch.float64)
    silent = [replace(layer, gain=zero, bias_gain=zero) for layer in network.layers]
    if inputs.tangent is not None:
        yield "encoding", replace(network, layers=silent), inputs
    distances: dict[tuple[int, ...], Tensor] = {}

    def distance(rows: slice, columns: slice) -> Tensor:
        """Worked out once for all variants, which overwrite what they are given."""
        key = (rows.start, rows.stop, columns.start, columns.stop)
        if key not in distances:
            distances[key] = inputs.distance(rows, columns)
        return distances[key].clone()

    fixed = replace(inputs, tangent=None, distance=distance)
    for index, layer in enumerate(network.layers):
        kept = {"weight": replace(silent[index], gain=layer.gain)}
        if float(layer.bias_gain) != 0:
            kept["bias"] = replace(silent[index], bias_gain=layer.bias_gain)
        for tensor, alone in kept.items():
            layers = [*silent[:index], alone, *silent[index + 1 :]]
            yield f"network.layers.{index}.{tensor}", replace(network, layers=layers), fixed
