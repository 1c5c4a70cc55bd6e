"""Activations by name: which have a dual in closed form, and which go by quadrature."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.errors import ConfigError
from neuralfield.ntk.duals import GELU, Dual, Erf, Exp, Gaussian, PiecewiseLinear, Sine
from neuralfield.ntk.quadrature import Quadrature

CLOSED: dict[str, Callable[[], Dual]] = {
    "relu": lambda: PiecewiseLinear(0.0, 1.0),
    "abs": lambda: PiecewiseLinear(-1.0, 1.0),
    "identity": lambda: PiecewiseLinear(1.0, 1.0),
    "linear": lambda: PiecewiseLinear(1.0, 1.0),
    "erf": Erf,
    "sin": Sine,
    "sine": Sine,
    "cos": lambda: Sine(even=True),
    "gaussian": Gaussian,
    "gelu": GELU,
    "exp": Exp,
}
QUADRATURE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_made: dict[str, Quadrature] = {}  # their tables are worth keeping


def dual(activation: str | Callable[[Tensor], Tensor], negative_slope: float = 0.01) -> Dual:
    """The dual of an activation by name, or of a function.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name, naming the nearest.
    """
    if callable(activation):
        return Quadrature(activation, name_of(activation))
    if not isinstance(activation, str):
        raise ConfigError(f"activation must be a name or an elementwise function, got {type(activation).__name__}")
    choice("activation", activation, [*CLOSED, "leaky_relu", *QUADRATURE])
    if activation == "leaky_relu":
        return PiecewiseLinear(negative_slope, 1.0)
    if activation in CLOSED:
        return CLOSED[activation]()
    if activation not in _made:
        _made[activation] = Quadrature(QUADRATURE[activation], activation)
    return _made[activation]


def name_of(function: Callable) -> str:
    """How a message or a repr calls a function."""
    return str(getattr(function, "__name__", type(function).__name__))
