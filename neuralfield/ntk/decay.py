"""How fast eigenvalues fall: a power law with its range and error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PowerLaw:
    r"""$\lambda_i \propto i^{-p}$ fitted by least squares of $\log \lambda_i$ on $\log i$.

    - `exponent`: p.
    - `standard_error`: of p, by the scatter around the line; it does not know whether the law is one.
    - `first`, `last`: the modes that were fitted, counted from 1.
    """

    exponent: float
    standard_error: float
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.exponent:.3g} ± {self.standard_error:.1g} (modes {self.first} to {self.last})"


def power_law(eigenvalues: Float[Tensor, " k"], first: int, last: int) -> PowerLaw:
    """Fit the eigenvalues `first` to `last`, counted from 1, at least three and all positive."""
    x = torch.arange(first, last + 1, dtype=torch.float64).log()
    y = eigenvalues[first - 1 : last].to("cpu", torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / (x * x).sum())
    scatter = float((y - slope * x).square().sum()) / (len(x) - 2)
    return PowerLaw(-slope, math.sqrt(scatter / float((x * x).sum())), first, last)
