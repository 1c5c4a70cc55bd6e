r"""One eigenmode of squared loss under gradient descent: how far its error has shrunk after a time t.

In the eigenbasis of the kernel each mode moves alone. With the eigenvalue $\mu$ (plus the ridge), the step size $\eta$ and
the loss's factor r (:func:`~neuralfield.ntk.conventions.rate`), all depends on $x = \eta r \mu$. The error of the mode is
$c(t)$ times the initial one, and what was learned is $(1 - c(t))/\mu$ times it, in kernel coefficients.
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
from neuralfield.ntk.conventions import LOSSES, rate

METHODS = {
    "flow": "continuous time",
    "gd": "discrete steps",
}
"""Gradient flow, or gradient descent step by step."""

Times = float | Sequence[float] | np.ndarray | Tensor
"""One time or several, in steps; infinity is a time."""


@dataclass(frozen=True)
class Descent:
    r"""The law by which squared loss is descended, and its solution for one mode.

    With $x = \eta r \mu$ and heavy-ball momentum $\beta$ (Polyak 1964), from rest:

    | method | momentum | the mode's error c |
    |--------|----------|---|
    | gd     | 0        | $c_{t+1} = (1 - x) c_t$ |
    | gd     | $\beta$  | $c_{t+1} = (1 + \beta - x) c_t - \beta c_{t-1},\; c_{-1} = c_0 = 1$ (torch.optim.SGD) |
    | flow   | 0        | $\dot c = -x c$ |
    | flow   | $\beta$  | $\ddot c + (1 - \beta) \dot c + x c = 0,\; c(0) = 1,\; \dot c(0) = 0$ |

    t counts steps in each; the flow is what the steps tend to as $x \to 0$. The last line is the ODE of neural-tangents'
    ``predict.gradient_descent`` (there in units of $\sqrt\eta\,t$, where the friction is $(1 - \beta)/\sqrt\eta$). It
    tends to heavy ball for $\beta \to 1$; for $\beta \to 0$ it keeps its inertia and does not tend to the line above it.

    **Arguments**

    - `method`: "flow" or "gd".
    - `learning_rate`: $\eta$. None is 1 and claims no step size: t is then the flow's own time, $\eta$ times steps.
    - `momentum`: $\beta$ in [0, 1).
    - `loss`: "sum", "mean" or "mse", see :data:`~neuralfield.ntk.conventions.LOSSES`.
    """

    method: str = "flow"
    learning_rate: float | None = None
    momentum: float = 0.0
    loss: str = "sum"

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        choice("loss", self.loss, LOSSES)
        if self.learning_rate is not None:
            number("learning_rate", self.learning_rate, 0, above=True)
        if number("momentum", self.momentum, 0) >= 1:
            raise ConfigError(f"momentum must be at least 0 and below 1, got {self.momentum}")

    def speed(self, n: int, n_outputs: int) -> float:
        r"""$\eta r$: a mode of eigenvalue $\lambda$ decays at the rate $\eta r \lambda$ per step."""
        return (1.0 if self.learning_rate is None else self.learning_rate) * rate(self.loss, n, n_outputs)

    def max_learning_rate(self, largest: float, n: int, n_outputs: int) -> float:
        r"""The largest stable step size, $2 (1 + \beta) / (r \lambda_{\max})$; infinity for a zero kernel."""
        scale = rate(self.loss, n, n_outputs) * largest
        return 2 * (1 + self.momentum) / scale if scale > 0 else math.inf

    def stable(self, largest: float, n: int, n_outputs: int) -> bool:
        """Whether real gradient descent with this step size converges."""
        step = 1.0 if self.learning_rate is None else self.learning_rate
        return step <= self.max_learning_rate(largest, n, n_outputs)

    def require_stable(self, largest: float, n: int, n_outputs: int) -> None:
        """ConfigError for a step size at which real gradient descent diverges; a bare flow claims none and passes."""
        if (self.method == "gd" or self.learning_rate is not None) and not self.stable(largest, n, n_outputs):
            step = 1.0 if self.learning_rate is None else self.learning_rate
            bound = self.max_learning_rate(largest, n, n_outputs)
            formula = "2 / (r lambda_max)" if self.momentum == 0 else "2 (1 + momentum) / (r lambda_max)"
            raise ConfigError(
                f"gradient descent diverges with learning_rate={step:g}: the largest stable one is {bound:.6g}, {formula} "
                f"with lambda_max = {largest:.6g} and r = {rate(self.loss, n, n_outputs):.6g} (loss={self.loss!r}, "
                f"n = {n}, outputs = {n_outputs}). Lower it, or pass check_stability=False to see the formula's values"
            )

    def contraction(
        self, mu: Float[Tensor, " modes"], t: Float[Tensor, " times"], speed: float
    ) -> tuple[Float[Tensor, "times modes"], Float[Tensor, "times modes"]]:
        r"""$c(t)$ and the gain $(1 - c(t))/\mu$ of modes at times, without cancellation for slow modes.

        **Arguments**

        - `mu`: eigenvalues, at least 0, float64. At 0 the error stays, and the gain is its limit, t times the speed
          without momentum.
        - `t`: float64; infinity gives c = 0 and the gain 1/mu.
        - `speed`: of :meth:`speed`.
        """
        finite = torch.isfinite(t)
        x, steps = (speed * mu)[None, :], torch.where(finite, t, 0.0)[:, None]
        solve = _SOLUTIONS[self.method, self.momentum > 0]
        left, learned = solve(x, steps, self.momentum)
        ended, forever = (mu == 0).to(mu.dtype), torch.where(mu == 0, math.inf, 1 / mu)
        return torch.where(finite[:, None], left, ended), torch.where(finite[:, None], learned * speed, forever)


def as_times(t: Times, method: str) -> tuple[Float[Tensor, " times"], bool]:
    """Times as a float64 vector, and whether one alone was given; ConfigError for what is no time."""
    try:
        values = torch.as_tensor(np.asarray(t.detach().cpu() if isinstance(t, Tensor) else t, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"t must be a time or a sequence of times, got {t!r}") from error
    if values.ndim > 1 or values.numel() == 0:
        raise ConfigError(f"t must be one time or a sequence of at least one; got shape {tuple(values.shape)}")
    vector = values.reshape(-1)
    if bool(torch.isnan(vector).any()) or bool((vector < 0).any()):
        raise ConfigError(f"times must be at least 0 (infinity is one), got {vector.tolist()[:8]}")
    if method == "gd":
        broken = vector[torch.isfinite(vector) & (vector != vector.round())]
        if len(broken):
            raise ConfigError(f"gradient descent makes whole steps, got t = {broken[0].item()}; or use method='flow'")
    return vector, values.ndim == 0


def clip_spectrum(values: Float[Tensor, "*batch k"], n: int, dtype: torch.dtype) -> Float[Tensor, "*batch k"]:
    r"""Eigenvalues of an n x n kernel that was computed in ``dtype``, with those that are rounding set to zero.

    A kernel's rounding moves an eigenvalue by about $\sqrt n\,\epsilon\,\lambda_{\max}$; one that is more than 64 times
    this below zero is no rounding, and the matrix no kernel: ConfigError. Positive ones below $n\,\epsilon_{64}\,
    \lambda_{\max}$ cannot be told from zero by the factorisation: such modes are not learned at all.
    """
    if values.numel() == 0:
        return values
    largest, lowest = float(values.max()), float(values.min())
    allowed = 64 * math.sqrt(n) * torch.finfo(dtype).eps
    if lowest < -allowed * max(largest, 0.0):
        raise ConfigError(
            f"the kernel is not positive semidefinite: its most negative eigenvalue is {lowest:.3g}, "
            f"{-lowest / largest if largest > 0 else math.inf:.2g} of the largest ({largest:.3g}), where rounding in {dtype} "
            f"explains {allowed:.1g}. A kernel that was computed in float32 must be passed in float32; is it a kernel "
            f"of the points with themselves?"
        )
    floor = n * torch.finfo(torch.float64).eps * largest
    return torch.where(values > floor, values, 0.0)


def regularized(
    descent: Descent,
    values: Float[Tensor, "*batch k"],
    times: Float[Tensor, " times"],
    speed: float,
    ridge: float,
) -> tuple[Float[Tensor, "*batch times k"], Float[Tensor, "*batch times k"]]:
    r"""What is left of the error in modes of eigenvalue $\lambda$ with a ridge $\rho$, and the gain.

    The mode moves at $\mu = \lambda + \rho$: the gain is $(1 - c)/\mu$, and $1 - \lambda (1 - c)/\mu = (\rho + \lambda
    c)/\mu$ of the error stays. Modes of eigenvalue zero are not learned: 1 stays, and the gain, which the kernel would
    multiply by zero, is zero.
    """
    moving = (values > 0)[..., None, :]
    left, gain = descent.contraction((values + ridge).reshape(-1), times, speed)
    shape = (*values.shape[:-1], len(times), values.shape[-1])
    left, gain = (part.reshape(len(times), *values.shape).movedim(0, -2) for part in (left, gain))
    shifted = torch.where(values > 0, values + ridge, 1.0)[..., None, :]
    stays = torch.where(moving, (ridge + values[..., None, :] * left) / shifted, 1.0)
    return stays.expand(shape), torch.where(moving, gain, 0.0)


# Each solution takes x, [1, modes], and t, [times, 1], both finite, and returns c and (1 - c)/x.


def _flow(x: Tensor, t: Tensor, _: float) -> tuple[Tensor, Tensor]:
    return torch.exp(-x * t), _over(-torch.expm1(-x * t), x, t)


def _steps(x: Tensor, t: Tensor, _: float) -> tuple[Tensor, Tensor]:
    # log |1 - x|, precise where |1 - x| is near 1: for slow modes, and for those about to diverge.
    log = torch.where(x < 1, torch.log1p(-x.clamp(max=1)), torch.log1p(x.clamp(min=1) - 2))
    exponent = torch.where(t > 0, t * log, 0.0)  # 0 times -infinity is meant as 0
    sign = torch.where((x > 1) & (t % 2 == 1), -1.0, 1.0)
    left = sign * torch.exp(exponent)
    return left, _over(torch.where(x < 1, -torch.expm1(exponent), 1 - left), x, t)


def _heavy_ball(x: Tensor, t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""Roots $z^2 - (1 + \beta - x) z + \beta = 0$; with $\rho = z_2/z_1$ and $d = 1 - z_1$ for the larger root $z_1$,
    $c_t = z_1^t \left(1 + \rho d\, \frac{1 - \rho^t}{1 - \rho}\right)$, which has no cancellation, not at the double root
    either. Complex roots: $c_t = \beta^{t/2} \left(\cos t\theta + \frac{1 - \beta - x}{2\sqrt\beta} \frac{\sin t\theta}{\sin
    \theta}\right)$."""
    root, s = math.sqrt(beta), 1 + beta - x
    # s^2 - 4 beta, factored so that it is precise near its zeros.
    discriminant = (x - ((1 - beta) / (1 + root)) ** 2) * (x - (1 + root) ** 2)
    width = discriminant.clamp(min=0).sqrt()
    ratio_log = -2 * torch.asinh(width / (2 * root))  # log rho
    rho, series = torch.exp(ratio_log), _geometric(ratio_log, t)
    slow = 2 * x / ((1 - beta + x) + width)  # 1 - z1 for s > 0
    # 1 - |z1| for s < 0; the other form of the same root, without cancellation, where the mode diverges fast.
    edge = torch.where(2 + s > 0, 2 * ((2 - x) + 2 * beta) / ((2 + s) + width), (2 + s - width) / 2)
    positive = s > 0
    size = torch.exp(t * torch.where(positive, torch.log1p(-slow.clamp(max=1)), torch.log1p(-edge)))
    power = torch.where(positive | (t % 2 == 0), size, -size)
    distance = torch.where(positive, slow, 2 - edge)
    correction = power * rho * distance * series
    real = power + correction
    real_learned = torch.where(positive, -torch.expm1(t * torch.log1p(-slow.clamp(max=1))), 1 - power) - correction

    sine = (-discriminant).clamp(min=0).sqrt() / (2 * root)
    # The angle to the nearer side of the real axis: close to pi, sin(t theta)/sin(theta) would cancel.
    angle, side = torch.atan2(sine, s.abs() / (2 * root)), torch.where(positive, 1.0, -1.0)
    turns = side * torch.sin(t * angle) / torch.where(sine > 0, sine, 1.0)
    turning = torch.where(positive | (t % 2 == 0), 1.0, -1.0) * root**t
    turning = turning * (torch.cos(t * angle) + (1 - beta - x) / (2 * root) * turns)
    left = torch.where(discriminant < 0, turning, real)
    learned = torch.where(discriminant < 0, 1 - turning, real_learned)
    return left, _over(learned, x, (t - beta * (1 - beta**t) / (1 - beta)) / (1 - beta))


def _damped(x: Tensor, t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""$c = e^{-\mu_1 t} \left(1 + \mu_1 \frac{1 - e^{-\Delta t}}{\Delta}\right)$ with $\mu_1 = 2x/(\gamma + \Delta)$,
    $\Delta = \sqrt{\gamma^2 - 4x}$, $\gamma = 1 - \beta$; oscillating beyond $4x = \gamma^2$."""
    friction = 1 - beta
    discriminant = friction**2 - 4 * x
    gap = discriminant.clamp(min=0).sqrt()
    slow = 2 * x / (friction + gap)
    series = torch.where(gap > 0, -torch.expm1(-gap * t) / torch.where(gap > 0, gap, 1.0), t)
    correction = slow * torch.exp(-slow * t) * series
    frequency = (-discriminant).clamp(min=0).sqrt() / 2
    turns = torch.sin(frequency * t) / torch.where(frequency > 0, frequency, 1.0)
    turning = torch.exp(-friction * t / 2) * (torch.cos(frequency * t) + friction / 2 * turns)
    left = torch.where(discriminant < 0, turning, torch.exp(-slow * t) + correction)
    learned = torch.where(discriminant < 0, 1 - turning, -torch.expm1(-slow * t) - correction)
    return left, _over(learned, x, (t + torch.expm1(-friction * t) / friction) / friction)


_SOLUTIONS = {("flow", False): _flow, ("gd", False): _steps, ("flow", True): _damped, ("gd", True): _heavy_ball}


def _over(learned: Tensor, x: Tensor, limit: Tensor) -> Tensor:
    """(1 - c)/x, with its limit at x = 0."""
    return torch.where(x > 0, learned / torch.where(x > 0, x, 1.0), limit)


def _geometric(ratio_log: Tensor, t: Tensor) -> Tensor:
    r"""$(1 - \rho^t)/(1 - \rho)$ from $\log\rho \le 0$; t at $\rho = 1$."""
    safe = torch.where(ratio_log < 0, ratio_log, -1.0)
    return torch.where(ratio_log < 0, torch.expm1(t * safe) / torch.expm1(safe), t)
