r"""The tangent kernel of wide networks, and training as kernel regression: Jacot et al. 2018, figures 1 and 2.

Networks of three hidden ReLU layers ("depth L = 4" there) in the NTK parameterisation with $\sigma_w = 1$,
$\beta = 0.1$ on points of the unit circle $x(\gamma) = (\cos\gamma, \sin\gamma)$. Figure 1: $\Theta(x(0), x(\gamma))$ at
initialisation and after 200 steps on $f^*(x) = x_1 x_2$. Figure 2: networks trained on
four points against the Gaussian process that they tend to,

$$\bar f = \Theta_{st} \Theta_{tt}^{-1} y, \qquad
\operatorname{cov} = \Sigma_{ss} - A\Sigma_{ts} - \Sigma_{st}A^\top + A\Sigma_{tt}A^\top,
\quad A = \Theta_{st}\Theta_{tt}^{-1}.$$
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.empirical import empirical_ntk, ntk_scales
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.posterior import ensemble
from neuralfield.reproduce import convergence_checks as checks
from neuralfield.reproduce.convergence_figure import draw
from neuralfield.reproduce.descent import descend
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Reproduction
from neuralfield.reproduce.wide import wide_field

DEPTH, W_STD, B_STD = 3, 1.0, 0.1
FOUR_POINTS = (-2.5, -0.9, 0.6, 2.2)
"""Angles of the points that figure 2 trains on, in radians."""


def reproduce(
    seed: int,
    widths: Sequence[int],
    initializations: int,
    trained: Sequence[int],
    steps: int,
    lr: float,
    n_train: int,
    angles: int,
    function_widths: Sequence[int],
    function_initializations: int,
    function_steps: int,
) -> Reproduction:
    """Both figures with their claims; the options are explained in ``configs/reproduce/ntk_convergence.yaml``.

    Raises :class:`~neuralfield.errors.ConfigError` for options out of range.
    """
    for name, two in (("widths", widths), ("trained", trained), ("function_widths", function_widths)):
        if len(two) != 2 or (name != "trained" and two[0] >= two[1]):
            raise ConfigError(
                f"{name} must be two numbers{'' if name == 'trained' else ', the smaller first'}, got {two}"
            )
    integer("initializations", initializations, 3)
    integer("function_initializations", function_initializations, 3)
    for count in trained:
        integer("trained", count, 1, initializations)
    number("lr", lr, 0, above=True)
    gamma = torch.linspace(-math.pi, math.pi, integer("angles", angles, 9), dtype=torch.float64)
    kernels = _kernels(widths, initializations, trained, steps, lr, n_train, gamma, seed)
    functions = _functions(function_widths, function_initializations, function_steps, lr, gamma, seed)
    claims = [*checks.of_kernels(kernels), *checks.of_functions(functions)]
    numbers = {"kernels": kernels, "functions": functions, "angles": gamma.tolist()}
    few = f", {trained[1]} of {initializations} at width {widths[1]:,}" if trained[1] < initializations else ""
    title = "Wide networks share one tangent kernel that training leaves alone: training is kernel regression"
    subtitle = (
        f"Unit circle, 3 hidden ReLU layers, β = {B_STD}, {initializations} initialisations of each width; kernels again "
        f"after {steps} steps of gradient descent (lr {lr:g}) on x₁x₂{few}"
    )
    return Reproduction("ntk_convergence", title, claims, numbers, draw(title, subtitle, numbers))


def circle(gamma: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Points of the unit circle."""
    return torch.stack([gamma.cos(), gamma.sin()], dim=1)


def limit() -> MLPKernel:
    """The kernels of infinitely wide networks of this kind."""
    return MLPKernel(DEPTH, "relu", W_STD, B_STD, "ntk")


def target(x: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
    """f*(x) = x1 x2."""
    return x[:, :1] * x[:, 1:]


def _network(width: int, seed: int) -> Field:
    return wide_field(2, 1, integer("width", width, 2, 65536), DEPTH, W_STD, B_STD, seed=seed)


def _kernels(
    widths: Sequence[int],
    initializations: int,
    trained: Sequence[int],
    steps: int,
    lr: float,
    n_train: int,
    gamma: Tensor,
    seed: int,
) -> dict[str, Any]:
    """Rows of the kernel at x(0), per width: at initialisation and after training."""
    x = torch.randn(integer("n_train", n_train, 1), 2, generator=torch.Generator().manual_seed(seed))
    row, origin = circle(gamma).float(), torch.tensor([[1.0, 0.0]])
    limit_row = limit().ntk(origin.double(), circle(gamma))[0]
    found: dict[str, Any] = {"limit": limit_row.tolist(), "widths": list(widths), "initial": [], "trained": []}
    for index, (width, count) in enumerate(zip(widths, trained, strict=True)):
        rows: dict[str, list[list[float]]] = {"initial": [], "trained": []}
        for i in track(range(initializations), f"networks of width {width:,}"):
            field = _network(width, seed + 1000 * index + i)  # equal seeds would share their first weights
            rows["initial"].append(_row(field, origin, row))
            if i < count:
                for _ in track(descend(field, x, target(x), lr, steps, W_STD, B_STD), "steps", steps):
                    pass
                rows["trained"].append(_row(field, origin, row))
        for name in rows:
            found[name].append(rows[name])
    return found


def _functions(
    widths: Sequence[int], initializations: int, steps: int, lr: float, gamma: Tensor, seed: int
) -> dict[str, Any]:
    """Networks trained on four points, what kernel regression from their own start gives, and its distribution."""
    x_train, x_test = circle(torch.tensor(FOUR_POINTS, dtype=torch.float64)), circle(gamma)
    y = target(x_train)
    kernel = limit()
    dynamics = Dynamics(
        kernel.ntk(x_train),
        kernel.ntk(x_test, x_train),
        method="gd",
        learning_rate=lr,
        loss="mean",
        parameterization="ntk",
    )
    prior = kernel.nngp(x_train), kernel.nngp(x_test, x_train), kernel.nngp(x_test)
    theory, gain = ensemble(dynamics, *prior, y[:, 0], steps), dynamics.smoother(steps)
    assert theory.covariance is not None
    found: dict[str, Any] = {"widths": list(widths), "train_angles": list(FOUR_POINTS), "target": y[:, 0].tolist()}
    found |= {"mean": theory.mean.tolist(), "covariance": theory.covariance.tolist()}
    found |= {"trained": [], "regression": []}
    for index, width in enumerate(widths):
        ends, predictions = [], []
        for i in track(range(initializations), f"networks of width {width:,} on four points"):
            field = _network(width, seed + 1000 * index + i)
            start = _values(field, torch.cat([x_train, x_test]))
            for _ in descend(field, x_train.float(), y.float(), lr, steps, W_STD, B_STD):
                pass
            ends.append(_values(field, x_test).tolist())
            predictions.append((start[4:] + gain @ (y[:, 0] - start[:4])).tolist())
        found["trained"].append(ends)
        found["regression"].append(predictions)
    return found


def _row(field: Field, origin: Tensor, x: Tensor) -> list[float]:
    return empirical_ntk(field, origin, x, scales=ntk_scales(field, W_STD, B_STD))[0].tolist()


@torch.no_grad()
def _values(field: Field, x: Tensor) -> Tensor:
    return field(x.float())[:, 0].double()
