"""What the numbers of a result mean: which loss, which parameterisation, which precision.

Each of these changes a kernel or a time axis by a factor, and papers and libraries differ in all of them. So they are part
of every result and of its repr.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.errors import ConfigError

LOSSES = {
    "sum": "1/2 sum (f - y)^2",
    "mean": "1/(2 n C) sum (f - y)^2",
    "mse": "1/(n C) sum (f - y)^2",
}
"""Squared losses by name. sum: Tancik et al. 2020, eq. 3; mean: neural-tangents; mse: torch.nn.functional.mse_loss."""

PARAMETERIZATIONS = {
    "ntk": "z = w_std/sqrt(fan_in) W a + b_std b, with W, b ~ N(0, 1)",
    "standard": "z = W a + b, with W ~ N(0, w_std^2/fan_in), b ~ N(0, b_std^2)",
}
"""Which numbers are the parameters: Jacot et al. 2018, section 2, or what torch.nn.Linear holds."""


def rate(loss: str, n: int, n_outputs: int) -> float:
    r"""The factor r of gradient flow $\dot f = -r K (f - y)$ for a loss of :data:`LOSSES` on n points with C outputs.

    1 for "sum", 1/(n C) for "mean", 2/(n C) for "mse".
    """
    choice("loss", loss, LOSSES)
    return 1.0 if loss == "sum" else (1.0 if loss == "mean" else 2.0) / (n * n_outputs)


def finite(name: str, values: Tensor) -> Tensor:
    """``values`` if all are finite; raises :class:`~neuralfield.errors.ConfigError` with how many are not, and the first."""
    good = torch.isfinite(values)
    if not bool(good.all()):
        bad = (~good).nonzero()
        raise ConfigError(
            f"{name} must be finite: {len(bad)} of {values.numel()} numbers are not, the first at index "
            f"{tuple(bad[0].tolist())} ({values[tuple(bad[0])].item()})"
        )
    return values


def coordinates(name: str, x: Tensor, in_dim: int | None = None) -> Tensor:
    """``x`` if it is a finite [n, D] tensor of real numbers (with D = ``in_dim``), else ConfigError."""
    if not isinstance(x, Tensor) or x.ndim != 2 or x.is_complex() or (in_dim is not None and x.shape[1] != in_dim):
        got = f"shape {tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ConfigError(f"{name} must be a real tensor of shape [n, {'D' if in_dim is None else in_dim}]; got {got}")
    return finite(name, x)
