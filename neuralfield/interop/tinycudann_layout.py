r"""tiny-cuda-nn's networks, and where each number of a parameter vector belongs: sizes, padding, order.

    NetworkWithInputEncoding.params = [network][encoding]
    network  = W_1 [width x p(in)], W_2 ... W_L [width x width], W_{L+1} [p(out) x width], each row by row
    encoding = the grid's table exactly as :class:`~neuralfield.encodings.HashGrid` holds it, or nothing

with $p(n) = 16 \lceil n / 16 \rceil$, because its matrix products work in blocks of 16. Without hidden layers there is the
one matrix [p(out) x p(in)]. Padded rows of the last matrix make outputs that are cut off. What the padded columns of
$W_1$ see depends on the encoding before them:

- a grid pads its features with **zeros**: those columns have no effect and are dropped;
- Frequency and Identity pad with **ones**, and a network of its own is one behind Identity: such columns $c > n$ add
  $b = \sum_{c > n} W_{1, \cdot c}$ to the first layer. This sum becomes its bias here, the only one there is.

In the other direction the bias is the first padded column and all other padding is zero: another vector than the one
that was read, perhaps, but the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield.checks import choice, integer
from neuralfield.encodings import HashGrid
from neuralfield.errors import ConfigError, nearest
from neuralfield.field import Field
from neuralfield.networks import MLP

BLOCK = 16
"""Widths of inputs and outputs are rounded up to a multiple of this."""

NETWORKS = ("FullyFusedMLP", "CutlassMLP", "MegakernelMLP", "MLP")
"""The last two are older names of the first two."""

_KEYS = ("otype", "activation", "output_activation", "n_neurons", "n_hidden_layers")
_HIDDEN = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "SiLU": "silu", "Tanh": "tanh", "Sine": "sine"}
_OUTPUT = {"None": "none", "ReLU": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exponential": "exp"}
_ACTIVATIONS = (*{**_HIDDEN, **_OUTPUT}, "Softplus", "Squareplus")
_SOFTPLUS = "; Softplus there is log(1 + exp(10 x)) / 10, here log(1 + exp(x))"
_FUSED_WIDTHS = (16, 32, 64, 128)

# A weight or bias of ours, and what it is to become.
_Copies = list[tuple[Tensor, Tensor]]


def network_from_config(config: Any, in_dim: int, out_dim: int | None, ones: bool) -> MLP:
    """The MLP of a tiny-cuda-nn network configuration, behind inputs that are padded with ones or with zeros.

    Weights are drawn with the variance of tiny-cuda-nn's (Xavier). Where ones pad, biases exist; all but the first
    layer's stay zero and are frozen, so that training remains among the functions that tiny-cuda-nn can represent (a
    field that is read from a file has them free again).
    """
    known(config, _KEYS, "a network")
    otype = word("otype", config.get("otype", "MLP"), NETWORKS)
    if out_dim is None:
        raise ConfigError("a network needs n_output_dims, the number of its outputs")
    width = integer("n_neurons", config.get("n_neurons", 128), 1)
    depth = integer("n_hidden_layers", config.get("n_hidden_layers", 5), 0)
    hidden = word("activation", config.get("activation", "ReLU"), _ACTIVATIONS)
    output = word("output_activation", config.get("output_activation", "None"), _ACTIVATIONS)
    if depth == 0:
        hidden = "ReLU"  # there is no layer that it would act on
    for key, value, offered in (("activation", hidden, _HIDDEN), ("output_activation", output, _OUTPUT)):
        if value not in offered:
            reason = _SOFTPLUS if value == "Softplus" else ""
            raise ConfigError(f"{key} {value} is not offered (offered: {', '.join(offered)}){reason}")
    if otype in ("FullyFusedMLP", "MegakernelMLP") and not _fusible(width, depth, hidden):
        widths = ", ".join(map(str, _FUSED_WIDTHS))
        raise ConfigError(
            f"tiny-cuda-nn's FullyFusedMLP has {widths} neurons, at least one hidden layer and neither Sine nor SiLU in it; "
            f"use CutlassMLP for n_neurons={width}, n_hidden_layers={depth}, activation={hidden}"
        )
    network = MLP(
        in_dim,
        out_dim,
        width=width,
        depth=depth,
        activation=_HIDDEN[hidden],
        activation_scale=1.0 if hidden == "Sine" else None,
        output_activation=_OUTPUT[output],
        bias=ones and padded(in_dim) != in_dim,
        initialization="xavier",
        output_scale=1.0,
    )
    for layer in network.linear_layers()[1:]:
        if layer.bias is not None:
            layer.bias.requires_grad_(False)
    return network


def network_to_config(network: MLP) -> dict[str, Any]:
    """The inverse: FullyFusedMLP where it can have the width and activation, else CutlassMLP (the same parameters)."""
    if network.skip:
        raise ConfigError("tiny-cuda-nn's networks cannot concatenate their input again (skip)")
    if network.activation == "sine" and network.activation_scale != 1 and network.depth:
        raise ConfigError(
            f"tiny-cuda-nn's Sine is sin(x), this network's sin({network.activation_scale:g} x); use activation_scale=1 "
            f"(multiply the weights of the hidden layers by {network.activation_scale:g})"
        )
    hidden = _inverse("activation", network.activation, _HIDDEN) if network.depth else "None"
    return {
        "otype": "FullyFusedMLP" if _fusible(network.width, network.depth, hidden) else "CutlassMLP",
        "activation": hidden,
        "output_activation": _inverse("output_activation", network.output_activation, _OUTPUT),
        "n_neurons": network.width,
        "n_hidden_layers": network.depth,
    }


def known(config: Any, keys: Iterable[str], what: str) -> None:
    """Refuse keys that are not among those known."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{what} is given as a dictionary, got {config!r}")
    keys = list(keys)
    for key in config:
        if key not in keys:
            raise ConfigError(f"{what} has no key '{key}' (known: {', '.join(keys)}){nearest(str(key), keys)}")


def word(name: str, value: Any, words: Iterable[str]) -> str:
    """The one of `words` that equals `value` but for case, as tiny-cuda-nn compares them."""
    words = list(words)
    return {w.lower(): w for w in words}.get(str(value).lower()) or choice(name, value, words)


def padded(width: int) -> int:
    """The next multiple of 16."""
    return -(-width // BLOCK) * BLOCK


def pads_with_ones(module: nn.Module) -> bool:
    """Whether the inputs of a network that follows this encoding (or that is this network) are padded with ones."""
    return not isinstance(module, HashGrid)


def shapes(network: MLP) -> list[tuple[int, int]]:
    """Rows and columns of each matrix, padding included."""
    weights = [layer.weight for layer in network.linear_layers()]
    return [
        (
            padded(weight.shape[0]) if weight is weights[-1] else weight.shape[0],
            padded(weight.shape[1]) if weight is weights[0] else weight.shape[1],
        )
        for weight in weights
    ]


def n_params(module: nn.Module) -> int:
    """Length of tiny-cuda-nn's parameter vector for an encoding, network or field."""
    if isinstance(module, Field):
        return n_params(module.network) + n_params(module.encoding)
    if isinstance(module, MLP):
        return sum(rows * columns for rows, columns in shapes(module))
    return module.layout.n_parameters if isinstance(module, HashGrid) else 0


def read(module: nn.Module, params: Shaped[Tensor, "*shape"]) -> None:
    """Copy a vector into a module, all of it or, on an error, nothing.

    Raises :class:`~neuralfield.errors.ConfigError` for a tensor that is not a flat vector of real numbers, for another
    length, and for padded columns that act as a bias on a network that has none.
    """
    if params.ndim != 1 or not params.is_floating_point():
        raise ConfigError(
            f"tiny-cuda-nn's parameters are one flat vector of floating-point numbers; got {params.dtype} of shape "
            f"{tuple(params.shape)}; pass module.params"
        )
    expected = n_params(module)
    if params.numel() != expected:
        raise ConfigError(
            f"this {type(module).__name__} takes {expected:,} parameters, but the vector has {params.numel():,}: "
            f"{_cause(module, params.numel())}"
        )
    with torch.no_grad():
        for target, values in _copies(module, params.detach()):
            target.copy_(values)


@torch.no_grad()
def write(module: nn.Module) -> Float[Tensor, " n"]:
    """The vector of a module in float32, on the module's device.

    Raises :class:`~neuralfield.errors.ConfigError` for biases that tiny-cuda-nn has no place for.
    """
    return torch.cat(_blocks(module) or [torch.empty(0)])


def _fusible(width: int, depth: int, hidden: str) -> bool:
    return width in _FUSED_WIDTHS and depth >= 1 and hidden not in ("Sine", "SiLU")


def _inverse(name: str, value: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if ours == value:
            return theirs
    reason = _SOFTPLUS if value == "softplus" else ""
    raise ConfigError(f"tiny-cuda-nn has no {name} '{value}' (it has {', '.join(names.values())}){reason}")


def _copies(module: nn.Module, vector: Float[Tensor, " n"]) -> _Copies:
    if isinstance(module, Field):
        count = n_params(module.network)
        ones = pads_with_ones(module.encoding)
        return _network_copies(module.network, vector[:count], ones) + _copies(module.encoding, vector[count:])
    if isinstance(module, MLP):
        return _network_copies(module, vector, ones=True)
    return [(module.params, vector)] if isinstance(module, HashGrid) else []


def _network_copies(network: nn.Module, vector: Float[Tensor, " n"], ones: bool) -> _Copies:
    assert isinstance(network, MLP)
    copies: _Copies = []
    start = 0
    for layer, (rows, columns) in zip(network.linear_layers(), shapes(network), strict=True):
        matrix = vector[start : start + rows * columns].view(rows, columns)
        start += rows * columns
        m, n = layer.weight.shape
        copies.append((layer.weight, matrix[:m, :n]))
        # Only the first matrix has padded columns: the sum over none of them is zero.
        bias = matrix[:m, n:].double().sum(dim=1) * ones
        if layer.bias is not None:
            copies.append((layer.bias, bias))
        elif bias.any():
            raise ConfigError(
                f"tiny-cuda-nn pads the {n} inputs of this network to {columns} with ones, so that the last {columns - n} "
                f"columns of its first matrix act as a bias, and this network has none; build it by from_config or with "
                f"bias=True (a network behind a grid is padded with zeros: load it as the Field that holds both)"
            )
    return copies


def _blocks(module: nn.Module) -> list[Float[Tensor, " n"]]:
    if isinstance(module, Field):
        return _network_blocks(module.network, pads_with_ones(module.encoding)) + _blocks(module.encoding)
    if isinstance(module, MLP):
        return _network_blocks(module, ones=True)
    return [module.params.detach().float()] if isinstance(module, HashGrid) else []


def _network_blocks(network: nn.Module, ones: bool) -> list[Float[Tensor, " n"]]:
    assert isinstance(network, MLP)
    blocks = []
    for index, (layer, (rows, columns)) in enumerate(zip(network.linear_layers(), shapes(network), strict=True)):
        m, n = layer.weight.shape
        matrix = layer.weight.new_zeros(rows, columns, dtype=torch.float32)
        matrix[:m, :n] = layer.weight
        if layer.bias is not None and layer.bias.any():
            if not ones or columns == n:
                where = "in the first layer only, where ones pad its inputs to a multiple of 16"
                raise ConfigError(
                    f"layer {index + 1} of the network has a bias, which tiny-cuda-nn can have {where}; "
                    f"train with bias=False, or set these biases to zero"
                )
            matrix[:m, n] = layer.bias
        blocks.append(matrix.flatten())
    return blocks


def _cause(module: nn.Module, given: int) -> str:
    """Why a vector may have another length, in words for a person."""
    if isinstance(module, Field):
        if given and given == n_params(module.network):
            return "it holds the network alone; load it into field.network, or pass the params of both"
        if given == n_params(module.encoding):
            return "it holds the encoding alone; load it into field.encoding, or pass the params of both"
    network = module.network if isinstance(module, Field) else module
    if isinstance(network, MLP):
        weights = sum(layer.weight.numel() for layer in network.linear_layers())
        if given == n_params(module) - n_params(network) + weights:
            return f"its matrices are not padded to multiples of {BLOCK}, as tiny-cuda-nn's are"
    grid = "n_levels, n_features_per_level, log2_hashmap_size, base_resolution or per_level_scale"
    other = "n_neurons, n_hidden_layers, or the numbers of inputs and outputs"
    if isinstance(module, Field):
        return f"another configuration: {grid} of the grid, or {other} of the network"
    if isinstance(module, MLP):
        return f"another configuration: {other}; or it is followed by an encoding's, which belongs into a Field"
    if isinstance(module, HashGrid):
        return f"another configuration: {grid}; or a network's matrices come first, which belong into a Field"
    return f"a {type(module).__name__} has no parameters"
