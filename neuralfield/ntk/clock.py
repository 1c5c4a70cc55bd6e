r"""Adam's clock: a warp of time under which kernel dynamics follow a training curve that they do not describe.

Gradient flow in the kernel has a time of its own; Adam rescales every gradient, so that its steps t are no multiple of it.
Empirically $\tau = 10^a t^b$ with two constants makes the training curve that the kernel predicts lie on Adam's, to 0.7 dB
rms down to 40 dB below the start (3 x 256 ReLU, 128 Fourier features of sigma 4, 1024 pixels of a photograph, 600 steps at
1e-3, last layer times 0.1; 2.5 dB with the last layer at full scale, where the network leaves the kernel's regime). The
constants belong to an optimiser, a network and its initialisation. Carried to another photograph they did 1.0 dB, to sigma 2
and 8 1.4 and 2.1 dB, to the full last layer 9 dB. Two numbers that are fitted, not a theory; their standard errors are
those of one curve, and smaller than what changes between settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.dynamics import Dynamics

Curve = Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True)
class AdamClock:
    r"""$\tau(t) = 10^a t^b$: the flow's time after t steps of an optimiser.

    **Arguments**

    - `a`, `b`: as above; b > 0. Gradient descent with step $\eta$ has $a = \log_{10} \eta,\ b = 1$ on a flow without
      learning rate.
    - `covariance`: of (a, b) from a fit: ((var a, cov), (cov, var b)); None when they were given.
    - `rms_db`: root mean square deviation of the fitted curve in dB, as :meth:`fit` defines it; None when they were given.
    """

    a: float
    b: float
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = None
    rms_db: float | None = None

    def __post_init__(self) -> None:
        number("a", self.a)
        number("b", self.b, 0, above=True)

    def tau(self, steps: Curve | float) -> Float[Tensor, "*times"]:
        """The flow's time after `steps` (at least 0) of the optimiser, float64."""
        return 10**self.a * _vector("steps", steps, 0.0) ** self.b

    def steps(self, tau: Curve | float) -> Float[Tensor, "*times"]:
        """The optimiser's steps, with fractions, until the flow's time `tau` (at least 0), float64."""
        return (_vector("tau", tau, 0.0) / 10**self.a) ** (1 / self.b)

    @property
    def a_std(self) -> float | None:
        """Standard error of a."""
        return None if self.covariance is None else math.sqrt(self.covariance[0][0])

    @property
    def b_std(self) -> float | None:
        """Standard error of b."""
        return None if self.covariance is None else math.sqrt(self.covariance[1][1])

    @classmethod
    def fit(
        cls,
        dynamics: Dynamics | Sequence[Dynamics],
        y: Tensor | Sequence[Tensor],
        steps: Curve | Sequence[Curve],
        observed_mse: Curve | Sequence[Curve],
        f0: Tensor | Sequence[Tensor] | None = None,
        *,
        floor: float = 1e-4,
        loss: str = "soft_l1",
    ) -> AdamClock:
        r"""The clock under which predicted training curves lie closest to observed ones: least squares of
        $\log_{10} (\text{mse}_{predicted}(\tau(t)) + \epsilon) - \log_{10} (\text{mse}_{observed}(t) + \epsilon)$ over all
        points of all curves. The floor $\epsilon$ keeps out the end of the fit, where Adam falls by many decades to the
        rounding of float32: no kernel predicts that, nobody sees it, and on a logarithmic scale it would decide the fit.

        The covariance is that of least squares, for as many independent errors as there are: the number of points over
        the correlation length of their deviations, because neighbouring points of a curve err alike.

        **Arguments**

        - `dynamics`: of the training points, without momentum, `method` "flow"; its own time is the clock's $\tau$: without
          learning rate and with loss "sum", $e^{-\tau \lambda}$. Or several, with lists for the other arguments: one clock
          for all.
        - `y`, `f0`: targets and initial values, [n] or [n, C].
        - `steps`: increasing, above 0, at least 3. `observed_mse`: at each, mean over points and outputs, above 0.
        - `floor`: $\epsilon$ relative to the mean of $(y - f_0)^2$; the default hides what is 40 dB below it.
        - `loss`: "linear" or a robust one of ``scipy.optimize.least_squares``, which minds single bad points (Adam's
          spikes) less; deviations beyond 0.1 (1 dB) count as bad.

        Raises :class:`~neuralfield.errors.ConfigError` for curves that do not fit together or never fall.
        """
        from scipy.optimize import least_squares

        choice("loss", loss, ("linear", "soft_l1", "huber", "cauchy", "arctan"))
        single = isinstance(dynamics, Dynamics)
        batches = [[value] if single else list(value) for value in (dynamics, y, steps, observed_mse)]  # type: ignore[arg-type]
        starts = [f0] if single else ([None] * len(batches[0]) if f0 is None else list(f0))
        if len({len(batch) for batch in [*batches, starts]}) != 1 or not batches[0]:
            counts = ", ".join(str(len(batch)) for batch in [*batches, starts])
            raise ConfigError(f"as many dynamics as targets, steps, curves and initial values are needed; got {counts}")
        floor = number("floor", floor, 0, 1)
        curves = [
            _Curve(d, target, at, seen, start, floor)
            for d, target, at, seen, start in zip(*batches, starts, strict=True)
        ]

        def deviations(parameters: np.ndarray) -> np.ndarray:
            return np.concatenate([curve.deviation(parameters[0], 10 ** parameters[1]) for curve in curves])

        def cost(parameters: np.ndarray) -> float:
            return float(np.abs(deviations(parameters)).sum())

        # The cost has plateaus where every mode is done, or none: start from the best of a grid. b by its logarithm.
        exponents = np.log10([0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
        middle = float(np.mean([np.log10(curve.steps).mean() for curve in curves]))
        scale = [-math.log10(float(curve.rates.max())) for curve in curves]
        pace = np.arange(math.floor(min(scale)) - 1, math.ceil(max(scale)) + 8, 0.5)
        grid = [(p - 10**e * middle, e) for e in exponents for p in pace]
        best = min(grid, key=lambda parameters: cost(np.array(parameters)))
        found = least_squares(deviations, best, loss=loss, f_scale=0.1, x_scale=(1.0, 0.1), xtol=1e-12, ftol=1e-12)
        a, b = float(found.x[0]), float(10 ** found.x[1])
        rest = deviations(found.x)
        # From log10 b to b.
        jacobian = found.jac @ np.diag([1.0, 1 / (b * math.log(10))])
        effective = max(sum(curve.effective(a, b) for curve in curves) - 2.0, 1.0)
        try:
            inverse = np.linalg.inv(jacobian.T @ jacobian) * len(rest)
        except np.linalg.LinAlgError as error:
            raise ConfigError(
                "the curves do not determine a clock: the predicted error does not depend on time there"
            ) from error
        covariance = inverse * float(np.mean(rest**2)) / effective
        pairs = tuple((float(row[0]), float(row[1])) for row in covariance)
        return cls(a, b, (pairs[0], pairs[1]), 10 * float(np.sqrt(np.mean(rest**2))))

    def __repr__(self) -> str:
        error = "" if self.covariance is None else f", a +- {self.a_std:.2g}, b +- {self.b_std:.2g}"
        rms = "" if self.rms_db is None else f", rms {self.rms_db:.2g} dB"
        return f"AdamClock(tau = 10^{self.a:.4g} t^{self.b:.4g}{error}{rms})"


class _Curve:
    """One observed curve beside the modes that predict it."""

    def __init__(
        self, dynamics: Dynamics, y: Tensor, steps: Curve, observed: Curve, f0: Tensor | None, floor: float
    ) -> None:
        if dynamics.descent.method != "flow" or dynamics.descent.momentum:
            raise ConfigError(f"a clock needs plain flow, got {dynamics.descent}; use dynamics.replace(method='flow')")
        if dynamics.ridge:
            raise ConfigError(f"a clock needs dynamics without ridge, got {dynamics.ridge:g}")
        table = dynamics.modes(y, f0)
        self.rates = table.rates.cpu()
        self.energy = table.energy.cpu() / y.numel()
        self.steps = _vector("steps", steps, 0.0).numpy()
        self.observed = _vector("observed_mse", observed, 0.0).numpy()
        if self.steps.shape != self.observed.shape or self.steps.ndim != 1 or len(self.steps) < 3:
            raise ConfigError(
                f"steps and observed_mse must be curves of the same length, at least 3; got shapes {self.steps.shape} "
                f"and {self.observed.shape}"
            )
        if not (np.diff(self.steps) > 0).all() or self.steps[0] <= 0 or not (self.observed > 0).all():
            raise ConfigError("steps must increase from above 0, and observed_mse must be above 0")
        if not float(self.rates.max()) > 0 or not float(self.energy.sum()) > 0:
            raise ConfigError("these dynamics never move: the kernel or the initial error is zero")

        # The smallest positive number keeps the logarithm finite without a floor.
        self.floor = max(floor * float(self.energy.sum()), 1e-300)

    def deviation(self, a: float, b: float) -> np.ndarray:
        """log10 of predicted over observed error, at each step."""
        logs = np.clip(a + b * np.log10(self.steps), -250, 250)
        left = torch.exp(-2 * torch.from_numpy(10.0**logs)[:, None] * self.rates) @ self.energy
        return np.log10(left.numpy() + self.floor) - np.log10(self.observed + self.floor)

    def effective(self, a: float, b: float) -> float:
        """Independent deviations: their number over the correlation length of a first-order process."""
        rest = self.deviation(a, b)
        rest = rest - rest.mean()
        power = float((rest**2).sum())
        near = float((rest[1:] * rest[:-1]).sum()) / power if power > 0 else 0.0
        near = min(max(near, 0.0), 0.99)
        return max(len(rest) * (1 - near) / (1 + near), 2.0)


def _vector(name: str, values: Curve | float, low: float) -> Tensor:
    """Numbers as a float64 tensor; ConfigError unless finite and at least ``low``."""
    raw = values.detach().cpu() if isinstance(values, Tensor) else values
    tensor = torch.as_tensor(np.asarray(raw, dtype=np.float64))
    if not bool((torch.isfinite(tensor) & (tensor >= low)).all()):
        raise ConfigError(f"{name} must be finite and at least {low:g}")
    return tensor
