"""What a prediction answers, with its conventions, and the table of a target's modes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import LOSSES, finite
from neuralfield.ntk.modes import METHODS, Descent
from neuralfield.ntk.problem import Problem, describe


@dataclass(repr=False)
class Prediction:
    r"""Values of the trained model at some times; the first axis is time, dropped when one time alone was asked for.

    - `times`: [T], float64, in steps (for a flow without learning rate, steps times the step size).
    - `train`: [T, n, C] or [T, n] for y of shape [n].
    - `test`: [T, m, C] or [T, m]; None without test points.
    - `train_mse`: [T], mean over points and outputs of $(f - y)^2$ on the training points, float64.
    - `descent`: method, learning rate, momentum and loss. `ridge`: absolute.
    - `max_learning_rate`: the largest stable step size; `discrete_stable`: whether this one is (for a flow without
      learning rate: whether 1 is).
    - `parameterization`: of the kernel, if it was told.
    - `solver`: "eigh", "cholesky", "lanczos", "conjugate gradients".
    - `error_estimate`: of iterative solvers, norm of the error on the training points relative to that of y - f0; 0 for
      direct ones.
    """

    times: Float[Tensor, "*times"]
    train: Tensor
    test: Tensor | None
    train_mse: Float[Tensor, "*times"]
    descent: Descent
    ridge: float
    max_learning_rate: float
    discrete_stable: bool
    parameterization: str | None
    solver: str
    error_estimate: float = field(default=0.0)

    @classmethod
    def build(
        cls,
        problem: Problem,
        times: Tensor,
        single: bool,
        left: Float[Tensor, "times rows columns"],
        test: Float[Tensor, "times rows_test columns"] | None,
        descent: Descent,
        ridge: float,
        largest: float,
        parameterization: str | None,
        solver: str,
        error_estimate: float = 0.0,
    ) -> Prediction:
        """From what is left of y - f0 on the training points, and the values on test points.

        `largest`: of the kernel's eigenvalues.
        """
        train, mse = problem.restore(problem.target - left), left.square().mean((1, 2))
        tested = None if test is None else problem.restore(test + problem.start_test)
        if single:
            times, train, mse = times[0], train[0], mse[0]
            tested = None if tested is None else tested[0]
        sizes = largest + ridge, problem.n_points, problem.n_outputs
        bound, stable = descent.max_learning_rate(*sizes), descent.stable(*sizes)
        return cls(
            times, train, tested, mse, descent, ridge, bound, stable, parameterization, solver, error_estimate
        )  # fmt: skip

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.train.dtype

    @property
    def loss(self) -> str:
        """The loss's convention by name, see :data:`~neuralfield.ntk.conventions.LOSSES`."""
        return self.descent.loss

    @property
    def method(self) -> str:
        """ "flow" or "gd"."""
        return self.descent.method

    @property
    def learning_rate(self) -> float | None:
        """The step size, None for a flow in its own time."""
        return self.descent.learning_rate

    @property
    def momentum(self) -> float:
        """Heavy ball's."""
        return self.descent.momentum

    def mse(self, y_test: Tensor) -> Float[Tensor, "*times"]:
        """Mean over test points and outputs of the squared error, at each time, float64."""
        if self.test is None:
            raise ConfigError("this prediction has no test points; pass k_test to predict, or use train_mse")
        shape = self.test.shape[self.times.ndim :]
        if not isinstance(y_test, Tensor) or y_test.shape != shape:
            raise ConfigError(f"y_test must have the shape {tuple(shape)}; got {describe(y_test)}")
        error = self.test.to(torch.float64) - finite("y_test", y_test).to(self.test.device, torch.float64)
        return error.square().flatten(self.times.ndim).mean(-1)

    def psnr(self, y_test: Tensor, peak: float = 1.0) -> Float[Tensor, "*times"]:
        r"""$10 \log_{10}(\text{peak}^2 / \text{mse})$ on the test points, in dB; values are not clamped."""
        return _decibel(self.mse(y_test), peak)

    def train_psnr(self, peak: float = 1.0) -> Float[Tensor, "*times"]:
        """The same on the training points."""
        return _decibel(self.train_mse, peak)

    def __repr__(self) -> str:
        times = self.times.reshape(-1)
        span = f"{times[0]:g}" if len(times) == 1 else f"{len(times)} times from {times[0]:g} to {times[-1]:g}"
        step = self.learning_rate
        rate = "learning_rate=None (t is the flow's own time)" if step is None else f"learning_rate={step:g}"
        stable = "" if step is None else ", stable" if self.discrete_stable else ", UNSTABLE for real gradient descent"
        parts = [
            f"train={tuple(self.train.shape)}",
            f"test={None if self.test is None else tuple(self.test.shape)}",
            f"t={span}",
            f"method={self.method!r} ({METHODS[self.method]})",
            f"loss={self.loss!r} ({LOSSES[self.loss]})",
            f"{rate} (max_learning_rate={self.max_learning_rate:.6g}{stable})",
            f"momentum={self.momentum:g}",
            f"ridge={self.ridge:g}",
            f"parameterization={self.parameterization!r}",
            f"dtype={str(self.dtype).removeprefix('torch.')}",
            f"solver={self.solver!r}",
        ]
        if self.error_estimate:
            parts.append(f"error_estimate={self.error_estimate:.1e}")
        return f"Prediction({', '.join(parts)})"


@dataclass
class ModeTable:
    r"""A target seen in the kernel's eigenmodes, the fastest first.

    - `eigenvalues`: $\lambda_i$, descending. `rates`: $\eta r (\lambda_i + \rho)$ per step.
    - `energy`: $\lVert q_i^T (y - f_0) \rVert^2$, summed over outputs; its sum is $\lVert y - f_0 \rVert^2$.
    - `descent`: the law that the rates belong to.
    """

    eigenvalues: Float[Tensor, " n"]
    rates: Float[Tensor, " n"]
    energy: Float[Tensor, " n"]
    descent: Descent

    def time_to(self, fraction: float) -> Float[Tensor, " n"]:
        r"""Time after which a mode's energy has fallen to `fraction`: $\log(1/\text{fraction})/(2\,\text{rate})$ for the
        flow, over $-2\log|1 - \text{rate}|$ and rounded up to whole steps for gradient descent; infinity for modes that do
        not move (or diverge). ConfigError with momentum, where the energy oscillates."""
        fraction = number("fraction", fraction, 0, 1, above=True)
        if self.descent.momentum:
            raise ConfigError(
                "with momentum a mode's energy oscillates; look at Dynamics.residual_energy over times instead"
            )
        wanted = -math.log(fraction) / 2
        if self.descent.method == "flow":
            return torch.where(self.rates > 0, wanted / self.rates, math.inf if wanted else 0.0)
        log = torch.where(self.rates < 1, -torch.log1p(-self.rates.clamp(max=1)), -(self.rates - 1).log())
        steps = torch.where(log > 0, wanted / log, math.inf if wanted else 0.0)
        return torch.ceil(steps * (1 - 1e-12))  # a whole number of steps that rounding put just above it


def _decibel(mse: Tensor, peak: float) -> Tensor:
    return 10 * torch.log10(number("peak", peak, 0, above=True) ** 2 / mse)
