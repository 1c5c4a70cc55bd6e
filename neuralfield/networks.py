"""The network behind the encoding: a multilayer perceptron, its activations and its initialisations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield.checks import choice, flag, integer, number
from neuralfield.errors import ConfigError
from neuralfield.registry import Configurable, Registry

registry: Registry[nn.Module] = Registry("network")
register = registry.register


def _sine(x: Tensor, scale: float) -> Tensor:
    return torch.sin(scale * x)


def _gaussian(x: Tensor, scale: float) -> Tensor:
    return torch.exp(-((scale * x) ** 2))


# Each takes (x, activation_scale); only the last two use the scale.
ACTIVATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "relu": lambda x, _: F.relu(x),
    "leaky_relu": lambda x, _: F.leaky_relu(x, 0.01),
    "gelu": lambda x, _: F.gelu(x),
    "silu": lambda x, _: F.silu(x),
    "elu": lambda x, _: F.elu(x),
    "softplus": lambda x, _: F.softplus(x),
    "tanh": lambda x, _: torch.tanh(x),
    "sine": _sine,
    "gaussian": _gaussian,
}
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "softplus": F.softplus,
    "exp": torch.exp,
}
INITIALIZATIONS = ("auto", "he", "xavier", "pytorch", "siren")
_DEFAULT_SCALE = {"sine": 30.0, "gaussian": 10.0}


@register("mlp")
class MLP(Configurable, nn.Module):
    r"""$z_1 = W_1 a_0 + b_1,\; a_l = \phi(z_l),\; \dots,\; y = \psi(W_{L+1} a_L + b_{L+1})$ with L = `depth` hidden layers.

    Initialisation (n: inputs of the layer, m: its outputs), biases zero unless said otherwise:

    | name      | weights |
    |-----------|---------|
    | `he`      | $\mathcal{N}(0, 2/n)$ (He et al. 2015, eq. 10) |
    | `xavier`  | $\mathcal{N}(0, 2/(n+m))$ (Glorot & Bengio 2010, eq. 16) |
    | `pytorch` | $U(\pm 1/\sqrt n)$, biases too: what ``torch.nn.Linear`` does |
    | `siren`   | first layer $U(\pm 1/n)$, others $U(\pm \sqrt{6/n}/\omega_0)$, biases $U(\pm 1/\sqrt n)$ |
    | `auto`    | `siren` for sine, else `he` |

    (SIREN: Sitzmann et al. 2020, section 3.2 and theorem 1.8.)

    The last layer is then multiplied by `output_scale`. At high bandwidth the initial function is noise that training
    pixels do not remove between them, and costs more decibels there than the choice of sigma does. Hence the small
    default.

    **Arguments**

    - `in_dim`, `out_dim`: features in, channels out.
    - `width`: neurons of each hidden layer.
    - `depth`: number of hidden layers; 0 is an affine map.
    - `activation`: relu, leaky_relu, gelu, silu, elu, softplus, tanh, sine ($\sin \omega_0 x$), gaussian ($e^{-(s x)^2}$).
    - `activation_scale`: $\omega_0$ of sine (default 30) or s of gaussian (default 10).
    - `output_activation`: none, sigmoid, tanh, relu, softplus, exp.
    - `skip`: hidden layers (1 to depth - 1) after which the input features are concatenated again, as NeRF and DeepSDF
      do; a number or a list.
    - `bias`: biases in all layers, or in none.
    - `initialization`: one of the table.
    - `output_scale`: factor on the last layer's initial weights and bias; 0 starts from the zero function.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        width: int = 64,
        depth: int = 2,
        activation: str = "relu",
        activation_scale: float | None = None,
        output_activation: str = "none",
        skip: int | Sequence[int] | None = None,
        bias: bool = True,
        initialization: str = "auto",
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_dim = integer("in_dim", in_dim, 1)
        self.out_dim = integer("out_dim", out_dim, 1)
        self.width = integer("network.width", width, 1, 65536)
        self.depth = integer("network.depth", depth, 0, 256)
        self.activation = choice("network.activation", activation, ACTIVATIONS)
        self.output_activation = choice("network.output_activation", output_activation, OUTPUTS)
        if activation_scale is None:
            activation_scale = _DEFAULT_SCALE.get(activation, 1.0)
        elif activation not in _DEFAULT_SCALE:
            raise ConfigError(f"activation_scale belongs to sine and gaussian; {activation} has none")
        self.activation_scale = number("network.activation_scale", activation_scale, 0, above=True)
        self.skip = _skips(skip, self.depth)
        self.initialization = choice("network.initialization", initialization, INITIALIZATIONS)
        self.output_scale = number("network.output_scale", output_scale, 0)
        inputs = [self.in_dim] + [self.width + self.in_dim * (layer in self.skip) for layer in range(1, self.depth + 1)]
        outputs = [self.width] * self.depth + [self.out_dim]
        flag("network.bias", bias)
        # skip_init leaves the memory undefined: reset_parameters below draws every weight exactly once.
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, n, m, bias=bias, device=torch.get_default_device())
            for n, m in zip(inputs, outputs, strict=True)
        )
        self.reset_parameters()

    def linear_layers(self) -> list[nn.Linear]:
        """The affine maps in order."""
        return list(self.layers)  # type: ignore[arg-type]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global generator, by `initialization`."""
        if self.layers[0].weight.is_meta:
            return  # there is nothing to draw, and on the meta device torch imports its compiler to do it
        rule = self.initialization
        if rule == "auto":
            rule = "siren" if self.activation == "sine" else "he"
        for index, layer in enumerate(self.linear_layers()):
            fan_out, fan_in = layer.weight.shape
            if rule == "he":
                layer.weight.normal_(0, math.sqrt(2 / fan_in))
            elif rule == "xavier":
                layer.weight.normal_(0, math.sqrt(2 / (fan_in + fan_out)))
            elif rule == "pytorch":
                layer.weight.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
            else:
                bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / self.activation_scale
                layer.weight.uniform_(-bound, bound)
            if layer.bias is not None:
                bound = 1 / math.sqrt(fan_in) if rule in ("pytorch", "siren") else 0.0
                layer.bias.uniform_(-bound, bound)
        for parameter in self.layers[-1].parameters():
            parameter.mul_(self.output_scale)

    def forward(self, features: Shaped[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        """Values of features with any leading dimensions."""
        activate = ACTIVATIONS[self.activation]
        hidden = features
        for index, layer in enumerate(self.layers[:-1]):
            if index in self.skip:
                hidden = torch.cat([hidden, features], dim=-1)
            hidden = activate(layer(hidden), self.activation_scale)
        return OUTPUTS[self.output_activation](self.layers[-1](hidden))

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.items())


def _skips(skip: int | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    values = [] if skip is None else list(skip) if isinstance(skip, Sequence) else [skip]
    return tuple(sorted({integer("network.skip", value, 1, max(depth - 1, 0)) for value in values}))


def build(name: str, in_dim: int, out_dim: int, **options: object) -> nn.Module:
    """The network registered as ``name``: ``build("mlp", in_dim=32, out_dim=3, width=256)``."""
    return registry.build(name, in_dim=in_dim, out_dim=out_dim, **options)
