"""What figures 1 and 2 of Jacot et al. 2018 say, tested on the numbers of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from neuralfield.reproduce.report import Claim

FIGURE_1, FIGURE_2 = "Jacot et al. 2018, section 6.1, figure 1", "Jacot et al. 2018, section 6.2, figure 2"


def of_kernels(kernels: dict[str, Any]) -> list[Claim]:
    """Spread against width, mean against the limit, growth during training; adds what it measures to ``kernels``."""
    limit = np.array(kernels["limit"])
    narrow, wide = (np.array(rows) for rows in kernels["initial"])
    few, many = kernels["widths"]
    spreads = [float(np.sqrt((rows.var(axis=0, ddof=1) / limit**2).mean())) for rows in (narrow, wide)]
    ratio, expected = spreads[0] / spreads[1], math.sqrt(many / few)
    # Two sample variances of Gaussians with m - 1 degrees of freedom: their quotient has an F distribution.
    slack = math.sqrt(stats.f.ppf(0.995, len(narrow) - 1, len(wide) - 1))
    claims = [
        Claim(
            "the spread of the kernel over initialisations shrinks as 1/sqrt(width)",
            f"{100 * spreads[0]:.1f} % at width {few:,}, {100 * spreads[1]:.2f} % at {many:,}: ratio {ratio:.2f}, expected "
            f"{expected:.2f} (99 % interval for {len(wide)} networks: {expected / slack:.2f} to {expected * slack:.2f})",
            bool(expected / slack < ratio < expected * slack),
            FIGURE_1,
        )
    ]
    deviations, worst = [], []
    for rows in (narrow, wide):
        error = rows.mean(axis=0) - limit
        deviations.append(float(np.abs(error / limit).max()))
        worst.append(float(np.abs(error / (rows.std(axis=0, ddof=1) / math.sqrt(len(rows)))).max()))
    bound = float(stats.t.ppf(0.9995, len(narrow) - 1))
    claims.append(
        Claim(
            "the mean over initialisations is the limiting kernel, at both widths",
            f"largest deviation on the circle {100 * deviations[0]:.1f} % and {100 * deviations[1]:.2f} %, that is "
            f"{worst[0]:.1f} and {worst[1]:.1f} standard errors (99.9 % of Student's t: {bound:.1f})",
            max(worst) < bound,
            FIGURE_1,
        )
    )
    growth = [_growth(initial, after) for initial, after in zip(kernels["initial"], kernels["trained"], strict=True)]
    sure = growth[0].mean() - 2 * growth[0].std(ddof=1) / math.sqrt(len(growth[0])) if len(growth[0]) > 1 else -math.inf
    claims.append(
        Claim(
            "training inflates the kernel, and less so when wider",
            f"mean over the circle {100 * growth[0].mean():+.1f} % at width {few:,} ({len(growth[0])} networks), "
            f"{100 * growth[1].mean():+.2f} % at {many:,} ({len(growth[1])})",
            bool(sure > 0 and abs(growth[1].mean()) < 0.5 * growth[0].mean()),
            FIGURE_1,
        )
    )
    kernels |= {"relative_spread": spreads, "deviation_of_mean": deviations, "growth": [g.tolist() for g in growth]}
    return claims


def of_functions(functions: dict[str, Any]) -> list[Claim]:
    """Networks against the limiting Gaussian, and against kernel regression from their own start."""
    mean, covariance = np.array(functions["mean"]), np.array(functions["covariance"])
    trained, regression = np.array(functions["trained"]), np.array(functions["regression"])
    few, many = functions["widths"]
    scale = np.sqrt(covariance.diagonal())
    seen = scale > 0.02 * scale.max()  # between the training points, where networks can differ at all
    surprise = ((trained - mean)[..., seen] / scale[seen]) ** 2
    correlation = covariance[np.ix_(seen, seen)] / np.outer(scale[seen], scale[seen])
    # Var of the mean of z_i^2 over angles and networks, for z with these correlations.
    error = math.sqrt(2 * float((correlation**2).mean()) / trained.shape[1])
    found = [float(s.mean()) for s in surprise]
    inside = [float((s < stats.norm.ppf(0.9) ** 2).mean()) for s in surprise]
    off = [float(np.sqrt(((t - r) ** 2).mean())) for t, r in zip(trained, regression, strict=True)]
    power = math.log(off[0] / off[1]) / math.log(many / few)
    functions |= {"percentiles": {str(p): (mean + stats.norm.ppf(p / 100) * scale).tolist() for p in (10, 50, 90)}}
    functions |= {"mean_squared_z": found, "fraction_inside": inside, "rms_from_regression": off, "power": power}
    return [
        Claim(
            "wide trained networks are distributed as the limiting Gaussian process",
            f"mean of z² at width {many:,}: {found[1]:.2f}, expected 1 ± {error:.2f}; {100 * inside[1]:.0f} % between the "
            f"10th and 90th percentile (width {few:,}: {found[0]:.2f}, {100 * inside[0]:.0f} %)",
            abs(found[1] - 1) < 3 * error,
            FIGURE_2,
        ),
        Claim(
            "each trained network tends to kernel regression from its own start, as 1/sqrt(width)",
            f"rms distance {off[0]:.3f} at width {few:,}, {off[1]:.4f} at {many:,}: power {-power:.2f} of the width, "
            f"expected -0.5 (accepted: -0.3 to -0.8)",
            0.3 < power < 0.8,
            FIGURE_2,
        ),
    ]


def _growth(initial: list[list[float]], after: list[list[float]]) -> np.ndarray:
    """Relative growth of the kernel's mean over the circle, network by network."""
    first = np.array(initial[: len(after)]).mean(axis=1)
    return np.array(after).mean(axis=1) / first - 1
