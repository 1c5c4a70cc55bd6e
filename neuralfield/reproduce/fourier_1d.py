r"""Fourier features tune the tangent kernel: Tancik et al. 2020, figures 2, 3 and 4.

Features $\gamma(v) = [a_j \cos 2\pi j v, a_j \sin 2\pi j v]/\lVert a\rVert$ with $a_j = j^{-p}$ on n = 32 points of [0, 1);
networks of three hidden layers ("4 layers") in the standard parameterisation, width 1024, so that $K(0) = 14$.

The paper's figure 3 compares loss curves with theory. In the notebook that was released with it the theory is evaluated from
the *observed* state at each time, so that it could hardly disagree. Here the theory starts from the network's values at
initialisation and is a prediction; its real error is a claim below.
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
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.reproduce import fourier_1d_claims as claims
from neuralfield.reproduce.fourier_1d_families import families
from neuralfield.reproduce.fourier_1d_figure import SUBTITLE, TITLE, draw
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Reproduction
from neuralfield.reproduce.wide import parameter_groups, train, wide_field

N, FINER, DEPTH = 32, 8, 3
"""Training points, test points for each of them, hidden layers."""
BANDS = {"low (1 to 2)": (1, 2), "middle (3 to 5)": (3, 5), "high (6 to 8)": (6, 8)}
"""Frequencies of the target in cycles per unit, up to a quarter of the training points, in three groups."""


def reproduce(
    seed: int,
    powers: Sequence[float],
    trained: Sequence[float],
    width: int,
    lr: float,
    steps: int,
    stds: Sequence[float],
    alphas: Sequence[float],
    points: int,
    signals: int,
    draws: int,
    fit_stds: Sequence[float],
    fit_steps: int,
) -> Reproduction:
    """The three figures with their claims; the options are explained in ``configs/reproduce/fourier_1d.yaml``.

    Raises :class:`~neuralfield.errors.ConfigError` for options out of range, a step size at which descent diverges included.
    """
    if len(powers) < 2 or list(powers) != sorted(set(powers)) or min(powers) < 0:
        raise ConfigError(f"powers must be at least two ascending numbers, 0 or more, got {list(powers)}")
    if len(trained) != 3:
        raise ConfigError(f"trained must be three powers, got {list(trained)}")
    kernels = [composed_kernel(float(p)) for p in powers]
    courses = [
        course(float(p), integer("width", width, 2), number("lr", lr, 0, above=True), integer("steps", steps, 10), seed)
        for p in track(trained, "networks on 32 points")
    ]
    spread = families(stds, alphas, points, signals, draws, fit_stds, fit_steps, seed)
    numbers: dict[str, Any] = {"powers": [name(p) for p in powers], "kernels": kernels, "courses": courses, **spread}
    checked = [*claims.of_kernels(numbers), *claims.of_courses(numbers), *claims.of_families(numbers)]
    return Reproduction("fourier_1d", TITLE, checked, numbers, draw(TITLE, SUBTITLE, numbers))


def name(p: float) -> str:
    """A power in words."""
    return "∞" if math.isinf(p) else f"{p:g}"


def encoding(p: float, dtype: torch.dtype = torch.float64) -> Fourier:
    """Frequencies 1 to N/2 with amplitudes j^-p, normalised."""
    result = Fourier(1, N // 2, normalize=True).to(dtype)
    j = torch.arange(1, N // 2 + 1, dtype=torch.float64)
    a = (j == 1).double() if math.isinf(p) else j**-p
    result.frequencies.copy_(j[None])
    result.amplitudes.copy_(a / a.norm())
    return result


def limit(p: float, width: int = 1024) -> MLPKernel:
    """The composed kernel of the paper: weights of variance 1/fan-in, biases that start at zero."""
    return MLPKernel(DEPTH, "relu", 1.0, 0.0, "standard", width, encoding(p))


def composed_kernel(p: float) -> dict[str, Any]:
    """A row of the kernel of the training points and its spectrum by frequency, exact: the matrix is circulant."""
    x = torch.arange(N, dtype=torch.float64)[:, None] / N
    matrix = limit(p).ntk(x)
    by_frequency = torch.fft.fft(matrix[0]).real[: N // 2 + 1]
    dense = torch.linalg.eigvalsh(matrix).flip(0)
    both = torch.cat([by_frequency, by_frequency[1 : N // 2]]).sort(descending=True).values
    return {
        "power": name(p),
        "row": matrix[0].tolist(),
        "eigenvalues": by_frequency.tolist(),
        "circulant_error": float((both - dense).abs().max() / dense[0]),
    }


def target(seed: int) -> Float[Tensor, " grid"]:
    """1/f noise of the frequencies 1 to N/4 on the fine grid, from -0.5 to 0.5."""
    x = torch.arange(N * FINER, dtype=torch.float64) / (N * FINER)
    k = torch.arange(1, N // 4 + 1, dtype=torch.float64)
    a = torch.randn(2, len(k), generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) / k
    phase = 2 * math.pi * k[:, None] * x
    values = a[0] @ phase.cos() + a[1] @ phase.sin()
    return (values - values.min()) / (values.max() - values.min()) - 0.5


def course(p: float, width: int, lr: float, steps: int, seed: int) -> dict[str, Any]:
    """One network trained on the training points, and the same foreseen from its values at initialisation.

    The foreseen ones: by the infinite-width kernel, and by the network's own kernel at initialisation.
    """
    x = torch.arange(N * FINER, dtype=torch.float64)[:, None] / (N * FINER)
    y = target(seed)
    field = wide_field(encoding(p, torch.float32), 1, width, DEPTH, 1.0, 0.0, seed=seed)
    at = sorted({0, *(round(steps ** (i / 40)) for i in range(41))})
    fine = x.float()
    kernel = limit(p, width)
    own = empirical_ntk(field, fine, fine[::FINER])
    with torch.no_grad():
        start = field(fine)[:, 0].double()
    foreseen = {}
    for which, train_kernel, test_kernel in (
        ("theory", kernel.ntk(x[::FINER]), kernel.ntk(x, x[::FINER])),
        ("own_kernel", empirical_ntk(field, fine[::FINER]).double(), own.double()),
    ):
        dynamics = Dynamics(train_kernel, test_kernel, method="gd", learning_rate=lr, parameterization="standard")
        prediction = dynamics.predict(y[::FINER], at, start[::FINER], f0_test=start)
        assert prediction.test is not None
        foreseen[which] = prediction.test
    seen: list[Tensor] = []

    @torch.no_grad()
    def observe(_: int) -> None:
        seen.append(field(fine)[:, 0].double())

    optimizer = torch.optim.SGD(parameter_groups(field, lr, "standard", 1.0, 0.0), lr=lr)
    train(field, fine[::FINER], y[::FINER, None].float(), optimizer, steps, "sum", at, observe)
    result: dict[str, Any] = {"power": name(p), "width": width, "steps": at, "lr": lr}
    for which, values in (("observed", torch.stack(seen)), *foreseen.items()):
        result[which] = errors(values - y)
    return result


def errors(residual: Float[Tensor, "times grid"]) -> dict[str, Any]:
    """Mean squared errors on the training points and on the fine grid, and the part of each band in the latter."""
    spectrum = torch.fft.rfft(residual).abs().square() * 2 / residual.shape[1] ** 2
    return {
        "train": residual[:, ::FINER].square().mean(dim=1).tolist(),
        "test": residual.square().mean(dim=1).tolist(),
        "bands": {band: spectrum[:, low : high + 1].sum(dim=1).tolist() for band, (low, high) in BANDS.items()},
    }
