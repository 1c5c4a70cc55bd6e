r"""Adam in function space: what Adam makes of a network whose kernel stands still, with nothing fitted.

Gradient flow has one clock; Adam has one per parameter. For a linearised network $f = f_0 + J (w - w_0)$ with residual
$r = f - y$ the gradient of the loss $\frac{1}{nC}\lVert r \rVert^2$ to the parameters $w_g$ of one tensor g is
$\frac{2}{nC} J_g^\top r$, linear in r. So Adam's first moment is $\frac{2}{nC} J_g^\top u$ with the average
$u \leftarrow \beta_1 u + (1 - \beta_1) r$, exactly. The second moment is kept per number; taking its mean over the tensor,

$$v_g \leftarrow \beta_2 v_g + (1 - \beta_2) \left(\tfrac{2}{nC}\right)^2 \frac{r^\top K_g r}{P_g},\quad K_g = J_g J_g^\top,$$

with $P_g$ its numbers, closes the equations in function space:

$$f \leftarrow f - \sum_g \frac{\eta_g}{\sqrt{\hat v_g} + \epsilon}\, K_g\, \tfrac{2}{nC} \hat u$$

(hats: bias corrections; Kingma & Ba 2015, algorithm 1). The approximation is the mean over the tensor, and the kernel's
standing still. Adam therefore trains with the kernel $\sum_g w_g K_g$, in which a layer with small gradients counts as much
as one with large ones: that is why it learns fine detail sooner than the plain tangent kernel says.

One part of the kernel's movement is known beforehand. What lies before the last layer acts through it, so its kernels are
proportional to $\lVert W \rVert^2$ of the last layer, which as a rule starts small. Each step moves each of its P numbers by
about $\eta$, back and forth as the residual's sign changes; like a random walk,

$$\lVert W_t \rVert^2 \approx \lVert W_0 \rVert^2 + P \sum_{s \le t} \eta_s^2.$$

(A 3 x 256 network on Fourier features whose last layer starts at a tenth: 3.4 times the initial value after 256 steps of
$10^{-3}$ by measurement, 3.0 by this.)

The first steps are made one by one: momentum makes them swing. Later the weights $w_g$ move slowly, and an interval of steps
is one matrix exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import LOSSES, finite

_SINGLE_STEPS = 64
_GROWTH = 1.2  # of the step number over one interval
_DRIFT = 0.1  # of the parts' shares, beyond which the eigenpairs are worked out anew
_CONVERGED = 1e-9  # of the initial squared error: below, nothing that can be seen changes


@dataclass(frozen=True)
class AdamPrediction:
    """A predicted training curve.

    - `steps`: when; 0 is the initial function.
    - `train_mse`, `test_mse`: mean squared errors over points and channels; test_mse is None without test points.
    - `f0_mse`: the mean square of what the initial function leaves on test points; None without one.
    - `train_residual`, `test_residual`: f - y at the last of the steps.
    - `weights`: by part, the factor of its kernel in the sum that trains, at the last step, relative to the largest.
    """

    steps: np.ndarray
    train_mse: np.ndarray
    test_mse: np.ndarray | None
    f0_mse: np.ndarray | None
    train_residual: Float[Tensor, "n channels"]
    test_residual: Float[Tensor, "m channels"] | None
    weights: dict[str, float]

    def __repr__(self) -> str:
        shown = "" if self.test_mse is None else f", test mse {self.test_mse[-1]:.3g}"
        loss = f"loss {LOSSES['mse']}, train mse {self.train_mse[-1]:.3g}{shown}"
        return f"AdamPrediction({self.steps[-1]} steps, {loss})"


class _State:
    """Residuals and moments after some steps.

    `columns`: of r that make the loss; those behind them are carried along by the same steps. `ratio`: how many times these
    points the signal has; `noise`: what a batch of some of them adds to the mean square of gradients, as a factor. `last`:
    which part is the last layer's weights, the sum of their squares, and which parts lie before that layer.
    """

    def __init__(
        self,
        parts: Tensor,
        test: Tensor,
        sizes: Tensor,
        r: Tensor,
        r_test: Tensor,
        beta2: float,
        columns: int,
        ratio: float,
        noise: float,
        last: tuple[int, float, Tensor] | None = None,
    ) -> None:
        self.parts, self.test, self.sizes = parts, test, sizes
        self.r, self.step = r, 0
        self._r_test, self._pending = r_test, parts.new_zeros(len(parts), *r.shape)
        self.own = slice(0, columns)
        self.last, self.gain, self.walked = last, parts.new_ones(len(parts)), 0.0
        self.ratio, self.noise = ratio, noise
        self.diagonals = parts.diagonal(dim1=1, dim2=2)
        self.scale = 2 / (len(r) * columns * ratio)
        self.momentum = torch.zeros_like(r)
        self.momentum_parts = parts.new_zeros(len(parts), *r.shape)
        self.v = parts.new_zeros(len(parts))
        self.beta2 = beta2
        self.weights = parts.new_ones(len(parts))
        self.basis: tuple[Tensor, Tensor, Tensor] | None = None

    def r_test(self) -> Tensor:
        """Residuals on test points. They are brought up to date when asked for: most steps are not reported."""
        if len(self._r_test):
            for test, pending in zip(self.test, self._pending, strict=True):
                self._r_test = self._r_test - test @ pending
            self._pending.zero_()
        return self._r_test

    def products(self) -> Tensor:
        """K_g r of every part, one matrix product for all."""
        groups, n, _ = self.parts.shape
        return (self.parts.reshape(groups * n, n) @ self.r).reshape(groups, n, -1)

    def square(self, products: Tensor) -> Tensor:
        """The mean square of each part's gradient, from :meth:`products`."""
        r = self.r[:, self.own]
        inner = (products[:, :, self.own] * r).sum(dim=(1, 2)).clamp_min(0)
        if self.noise:
            inner = inner + self.noise * (self.diagonals @ r.square().sum(dim=1))
        return self.scale**2 * self.ratio * self.gain * inner / self.sizes

    def grow(self, rates: Tensor, count: int) -> None:
        """Let the last layer grow over ``count`` steps, whose rates sum up to ``rates``."""
        if self.last is None:
            return
        layer, squares, before = self.last
        self.walked += float(self.sizes[layer] * rates[layer] ** 2) / count
        self.gain = torch.where(before, 1 + self.walked / squares, self.gain)

    def corrected(self, v: Tensor, step: float) -> Tensor:
        """Square root of the bias-corrected second moment."""
        return torch.sqrt(v / (1 - self.beta2**step) + 1e-38)

    def single(self, rates: Tensor, beta1: float, eps: float) -> None:
        """One step of Adam."""
        products = self.products()
        self.v = self.beta2 * self.v + (1 - self.beta2) * self.square(products)
        self.momentum = beta1 * self.momentum + (1 - beta1) * self.scale * self.r
        self.momentum_parts = beta1 * self.momentum_parts + (1 - beta1) * self.scale * products
        self.step += 1
        weights = rates / (self.corrected(self.v, self.step) + eps) / (1 - beta1**self.step)
        self.weights = weights
        self.r = self.r - torch.einsum("g,gnc->nc", weights * self.gain, self.momentum_parts)
        self._pending += (weights * self.gain)[:, None, None] * self.momentum
        self.grow(rates, 1)

    def interval(self, rates: Tensor, eps: float, count: int) -> None:
        """``count`` steps at once; ``rates`` are summed over them. The weights are those of the interval's middle."""
        before = self.square(self.products())
        start = self.r
        self._exponential(rates, eps, count, before, test=False)
        # The gradients' size halfway is taken as the geometric mean of both ends, the second found by a trial.
        middle = torch.sqrt(before * self.square(self.products()))
        self.r = start
        self._exponential(rates, eps, count, middle, test=True)
        self.v = self.beta2**count * self.v + (1 - self.beta2**count) * middle
        self.step += count
        self.grow(rates, count)

    def _exponential(self, rates: Tensor, eps: float, count: int, square: Tensor, test: bool) -> None:
        half = self.beta2 ** (count / 2)
        v = half * self.v + (1 - half) * square
        self.weights = self.scale * self.gain * rates / (self.corrected(v, self.step + count / 2) + eps)
        values, vectors, scale = self._modes(square * self.sizes / self.gain)
        modes = vectors.T @ self.r
        if test:
            gain = (-torch.expm1(-scale * values) / values)[:, None] * modes
            self._pending += self.basis_weights[:, None, None] * (vectors @ gain)
        self.r = vectors @ (torch.exp(-scale * values)[:, None] * modes)

    def _modes(self, energy: Tensor) -> tuple[Tensor, Tensor, float]:
        """Eigenpairs of the sum that trains, up to a factor, which is returned: the last ones as long as they will do."""
        if self.basis is not None:
            values, vectors, reference = self.basis
            # Of the rate at which the error falls, r K r, each part gives its weight times its energy.
            now, then = self.weights * energy, reference * energy
            scale = float(now.sum() / then.sum())
            if float((now - scale * then).abs().sum() / now.sum()) < _DRIFT:
                return values, vectors, scale
        values, vectors = torch.linalg.eigh(torch.einsum("g,gnm->nm", self.weights, self.parts))
        # Directions that float32 cannot tell from zero do not move.
        values = values.clamp_min(torch.finfo(values.dtype).eps * float(values[-1]))
        self.basis = values, vectors, self.weights
        return values, vectors, 1.0

    @property
    def basis_weights(self) -> Tensor:
        """The weights of the sum whose eigenpairs are in use."""
        assert self.basis is not None
        return self.basis[2]


@torch.no_grad()
def predict_adam(
    parts: Mapping[str, Float[Tensor, "n n"]],
    sizes: Mapping[str, int],
    y: Float[Tensor, "n channels"],
    steps: int,
    *,
    learning_rate: float | Mapping[str, float] = 1e-3,
    f0: Float[Tensor, "n channels"] | None = None,
    parts_test: Mapping[str, Float[Tensor, "m n"]] | None = None,
    y_test: Float[Tensor, "m channels"] | None = None,
    f0_test: Float[Tensor, "m channels"] | None = None,
    schedule: Callable[[int], float] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    at: Iterable[int] = (),
    n_total: int | None = None,
    batch: int | None = None,
    patches: int = 1,
    counted: Float[Tensor, "m channels"] | None = None,
    last_layer: tuple[str, float] | None = None,
) -> AdamPrediction:
    r"""The curve of full-batch Adam on the loss $\frac{1}{nC}\sum (f - y)^2$ (torch's mse_loss), for a standing kernel.

    **Arguments**

    - `parts`: kernels of the parameter tensors by name, traced over outputs (their mean); see
      :func:`~neuralfield.ntk.empirical.empirical_parts` and :func:`~neuralfield.ntk.kernel_parts.kernel_parts`.
    - `sizes`: how many numbers each tensor holds; of a table those that the training points reach.
    - `y`, `f0`: targets and initial values on the training points; None is zero.
    - `steps`: how many.
    - `learning_rate`: one, or one per part.
    - `parts_test`, `y_test`, `f0_test`: the same on test points, in rows.
    - `schedule`: factor of the learning rate at a step, counted from 0; None: 1.
    - `beta1`, `beta2`, `eps`: Adam's.
    - `at`: steps to report besides the last.
    - `n_total`: how many training points the signal has, when those given are a sample of it. A gradient over more points
      is larger, and what single points ask for counts less in it.
    - `batch`: points in a step; None for all. The scatter of a batch's gradient enters the second moment (its mean square is
      that of all points, plus $\frac{1}{B}(1 - \frac{B}{N})$ times that of one point), not the path.
    - `patches`: the columns of y are those of this many patches with equal kernels (of a stationary kernel) side by side.
    - `counted`: weights of the test values in their mean; None is 1.
    - `last_layer`: the part that is the last layer's weight matrix, and the sum of its squares at the start: the kernels of
      the parts before it then grow with it. None: all kernels stand still.

    Raises :class:`~neuralfield.errors.ConfigError` for parts without a size or rate, and for non-finite numbers.
    """
    integer("steps", steps, 1)
    number("beta1", beta1, 0, 1 - 1e-9)
    number("beta2", beta2, 0, 1 - 1e-9)
    names = list(parts)
    if not names or set(names) - set(sizes) or (parts_test is not None and set(names) != set(parts_test)):
        raise ConfigError(
            f"every part needs a size and a test kernel; parts: {', '.join(names)}; sizes: {', '.join(sizes)}"
        )
    rates = [
        learning_rate if isinstance(learning_rate, (int, float)) else learning_rate.get(name, -1) for name in names
    ]
    if min(rates) < 0:
        raise ConfigError(f"learning_rate must be at least 0 and given for every part: {', '.join(names)}")
    like = torch.empty(0, dtype=torch.float32, device=y.device)
    r = finite("y", f0 - y if f0 is not None else -y).to(like)
    stacked = torch.stack([finite(f"the kernel of {name}", parts[name]).to(like) for name in names])
    if parts_test is None or y_test is None:
        test, r_test = stacked[:, :0], r[:0]
    else:
        test = torch.stack([finite(f"the test kernel of {name}", parts_test[name]).to(like) for name in names])
        r_test = finite("y_test", f0_test - y_test if f0_test is not None else -y_test).to(like)
    counts = like.new_tensor([max(sizes[name], 1) for name in names])
    total = len(y) * patches if n_total is None else integer("n_total", n_total, 1)
    drawn = total if batch is None else min(integer("batch", batch, 1), total)
    columns = y.shape[1]
    if f0 is not None:  # what is left of it alone follows the same steps
        r = torch.cat([r, f0.to(like)], dim=1)
        r_test = torch.cat([r_test, like.new_zeros(0, columns) if f0_test is None else f0_test.to(like)], dim=1)
    last = None
    if last_layer is not None:
        name, squares = last_layer
        layer = name.removesuffix("weight")
        if name not in names or not squares > 0:
            raise ConfigError(f"last_layer names a part and gives the sum of its squares, above 0; got {last_layer}")
        last = names.index(name), squares, torch.tensor([not n.startswith(layer) for n in names], device=y.device)
    state = _State(
        stacked, test, counts, r, r_test, beta2, columns, total / (len(y) * patches), total / drawn - 1, last
    )  # fmt: skip
    factor = schedule or (lambda step: 1.0)
    rate = like.new_tensor(rates)
    wanted = sorted({*at, steps} & set(range(steps + 1)))
    initial, rows = _mse(r[:, :columns]), []
    for end in _stops(wanted, steps):
        count = end - state.step
        if count > 0 and _mse(state.r[:, :columns]) > _CONVERGED * initial:
            if end <= _SINGLE_STEPS:
                state.single(rate * factor(end - 1), beta1, eps)
            else:
                state.interval(rate * sum(factor(step) for step in range(state.step, end)), eps, count)
        else:
            state.step = end
        if end in wanted:
            r_test = state.r_test()
            own, start = r_test[:, :columns], r_test[:, columns:]
            rows.append((end, _mse(state.r[:, :columns]), _mse(own, counted), _mse(start, counted)))
    table = np.array(rows)
    weights = state.weights / state.weights.max()
    return AdamPrediction(
        table[:, 0].astype(int),
        table[:, 1],
        table[:, 2] if len(r_test) else None,
        table[:, 3] if len(r_test) and f0 is not None else None,
        state.r[:, :columns],
        state.r_test()[:, :columns] if len(r_test) else None,
        dict(zip(names, weights.tolist(), strict=True)),
    )


def _stops(wanted: list[int], steps: int) -> list[int]:
    """Where the simulation halts: after every one of the first steps, then at growing intervals and where it is asked."""
    stops = set(range(min(_SINGLE_STEPS, steps) + 1)) | set(wanted)
    place = float(_SINGLE_STEPS)
    while place < steps:
        place *= _GROWTH
        stops.add(min(math.ceil(place), steps))
    return sorted(stops)


def _mse(residual: Tensor, counted: Tensor | None = None) -> float:
    if not residual.numel():
        return math.nan
    if counted is None:
        return float(residual.square().mean())
    weights = counted.to(residual)
    return float((residual.square() * weights).sum() / weights.sum())
