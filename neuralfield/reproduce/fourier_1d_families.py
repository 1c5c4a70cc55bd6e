r"""Does the shape of the frequencies' distribution matter, or its width alone? Tancik et al. 2020, figure 4.

Sixteen frequencies from each of four families, scaled so that their root mean square is exactly a given one; 1/f^alpha
signals; points between the training points are the test. Answered twice: in closed form, as the mean squared error of
infinitely wide networks over initialisations (bias and variance) after a fixed training time, and by training with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.encodings import Fourier
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.posterior import ensemble
from neuralfield.reproduce.progress import track

FAMILIES = ("Gaussian", "uniform", "log-uniform", "Laplace")
FEATURES, WIDTH, DEPTH = 16, 256, 3
TIME = 3.0
"""Training time of the closed form, gradient flow on 1/2 sum: modes with eigenvalues above 1/3 are learned."""


def families(
    stds: Sequence[float],
    alphas: Sequence[float],
    points: int,
    signals: int,
    draws: int,
    fit_stds: Sequence[float],
    fit_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Test errors by family, standard deviation, and exponent of the signals.

    **Returns** ``closed_form``, [family][std][alpha], means of log10 of the test MSE over draws and signals, and ``fitted``,
    the same for the networks trained with Adam, with their standard deviations ``fit_stds``.
    """
    for std in (*stds, *fit_stds):
        number("stds", std, 0, above=True)
    if not set(fit_stds) <= set(stds) or len(stds) < 3:
        raise ConfigError(f"stds must be at least three and contain all of fit_stds={list(fit_stds)}, got {list(stds)}")
    points, draws = integer("points", points, 8), integer("draws", draws, 1)
    y = torch.cat([power_law(float(a), points, integer("signals", signals, 1), seed) for a in alphas], dim=1)
    cells = [(f, s, d) for f in range(len(FAMILIES)) for s in range(len(stds)) for d in range(draws)]
    closed = torch.zeros(len(FAMILIES), len(stds), len(alphas), dtype=torch.float64)
    for f, s, d in track(cells, "distributions of frequencies"):
        mse = closed_form(encoding(FAMILIES[f], float(stds[s]), seed + d), y)
        closed[f, s] += mse.log10().reshape(len(alphas), -1).mean(dim=1) / draws
    fitted = torch.zeros(len(FAMILIES), len(fit_stds), len(alphas), dtype=torch.float64)
    if integer("fit_steps", fit_steps, 0):
        for f, s, _ in track([(f, s, 0) for f in range(len(FAMILIES)) for s in range(len(fit_stds))], "networks"):
            mse = fitted_mse(encoding(FAMILIES[f], float(fit_stds[s]), seed), y, fit_steps, seed)
            fitted[f, s] = mse.log10().reshape(len(alphas), -1).mean(dim=1)
    return {
        "families": list(FAMILIES),
        "stds": list(stds),
        "alphas": list(alphas),
        "closed_form": closed.tolist(),
        "fit_stds": list(fit_stds) if fit_steps else [],
        "fitted": fitted.tolist() if fit_steps else [],
    }


def encoding(family: str, std: float, seed: int, dtype: torch.dtype = torch.float64) -> Fourier:
    """Sixteen frequencies of a family whose root mean square is ``std`` cycles per unit, exactly; unit norm."""
    generator = torch.Generator().manual_seed(1000 * seed + FAMILIES.index(family))
    u = torch.rand(FEATURES, generator=generator, dtype=torch.float64)
    if family == "Gaussian":
        b = torch.randn(FEATURES, generator=generator, dtype=torch.float64)
    elif family == "uniform":
        b = 2 * u - 1
    elif family == "log-uniform":
        b = 100**u  # over two decades
    else:
        b = -torch.log1p(-u)  # the sign of a frequency has no influence
    result = Fourier(1, FEATURES, normalize=True).to(dtype)
    result.frequencies.copy_(b[None] * (std / b.square().mean().sqrt()))
    return result


def power_law(alpha: float, points: int, count: int, seed: int) -> Float[Tensor, "grid count"]:
    """Signals of frequencies 1 to points/2 - 1 with amplitudes k^-alpha, from -0.5 to 0.5, on a grid of 2 points."""
    generator = torch.Generator().manual_seed(seed + 17)
    coefficients = torch.zeros(count, points + 1, dtype=torch.complex128)
    k = torch.arange(1, points // 2, dtype=torch.float64)
    coefficients[:, 1 : points // 2] = (
        torch.randn(count, len(k), generator=generator, dtype=torch.complex128) * k**-alpha
    )
    values = torch.fft.irfft(coefficients, 2 * points)
    low, high = values.min(dim=1, keepdim=True).values, values.max(dim=1, keepdim=True).values
    return ((values - low) / (high - low) - 0.5).T.contiguous()


def closed_form(features: Fourier, y: Float[Tensor, "grid count"], time: float = TIME) -> Float[Tensor, " count"]:
    """Mean squared test error of infinitely wide networks, expected over initialisations; even points train.

    The kernel is stationary, so that one row over all offsets of the grid holds every entry.
    """
    grid = len(y)
    kernel = MLPKernel(DEPTH, "relu", 1.0, 0.0, "standard", WIDTH, features)
    offsets = torch.arange(grid, dtype=torch.float64)[:, None] / grid
    ntk, nngp = kernel.of_offsets(offsets), kernel.of_offsets(offsets, "nngp")
    even, odd = torch.arange(0, grid, 2), torch.arange(1, grid, 2)
    inner, cross = (even[:, None] - even).abs(), (odd[:, None] - even).abs()
    dynamics = Dynamics(ntk[inner], ntk[cross], parameterization="standard")
    found = ensemble(
        dynamics, nngp[inner], nngp[cross], nngp[:1].expand(len(odd)), y[even], time, covariance="diagonal"
    )
    return (found.mean - y[odd]).square().mean(dim=0) + found.variance.mean()


def fitted_mse(features: Fourier, y: Float[Tensor, "grid count"], steps: int, seed: int) -> Float[Tensor, " count"]:
    """Mean squared test error of one network with an output for each signal, after Adam at 2e-3; even points train."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(features.out_dim, y.shape[1], WIDTH, DEPTH, initialization="xavier", output_scale=1.0)
    field = Field(features.float(), network)
    grid = len(y)
    x, values = torch.arange(grid)[:, None] / grid, y.float()
    optimizer = torch.optim.Adam(field.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (field(x[::2]) - values[::2]).square().mean(dim=0).sum().mul(0.5).backward()
        optimizer.step()
    with torch.no_grad():
        return (field(x[1::2]) - values[1::2]).double().square().mean(dim=0)


def rms(features: Fourier) -> float:
    """Root mean square of the frequencies, cycles per unit."""
    return math.sqrt(float(features.frequencies.square().mean()))
