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
proportional to $\lVert W \rVert^2$ of the last layer, which as a rule starts small. With $W \leftarrow W + \Delta$ that is
$\lVert W \rVert^2 + 2 \langle W, \Delta \rangle + \lVert \Delta \rVert^2$. The layer is linear, $f = W h + b$, so the second
term, the sum of its weights times their gradients, is one of outputs and residuals alone, whatever h has become:

$$\langle W, \Delta \rangle = -\frac{\eta}{\sqrt{\hat v}}\, \tfrac{2}{nC} \hat u \cdot (f - b),$$

up to how far f moves within the memory of the first moment (:meth:`.adam_moments.Moments.grow`).

(Du, Hu & Lee 2018 have it for gradient flow.) It feeds the layer while what is learned agrees with what is left to learn: for
as long as a smooth encoding is at work on an image, and for a few steps only where training pixels are soon learned by heart.
The third term is Adam's own: each of the P numbers moves by about $\eta$, back and forth, $P \eta^2$ a step.

Where residuals have become small, so have the second moments, and steps would grow without bound. They do not: when the
largest eigenvalue of $\sum_g w_g K_g \tfrac{2}{nC}$ reaches $2 (1 + \beta_1) / (1 - \beta_1)$, 38 for $\beta_1 = 0.9$, the
function begins to swing along the first eigenvector, gradients grow, and training stays at that edge of stability (Cohen et
al. 2022, "Adaptive gradient methods at the edge of stability"). What the swing adds to the second moments is just as much as
that takes; its own error, which the falling rate ends, is left out.

The first steps are made one by one: momentum makes them swing. Later the weights $w_g$ move slowly, and an interval of steps
is one matrix exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk import adam_dense, adam_lattice
from neuralfield.ntk.adam_moments import LastLayer, Moments, Start
from neuralfield.ntk.conventions import LOSSES, finite
from neuralfield.ntk.edge import Edge, MatrixEdge
from neuralfield.ntk.toeplitz import ToeplitzOperator
from neuralfield.ntk.toeplitz_sum import ToeplitzSum

_CONVERGED = 1e-9  # of the initial squared error: below, nothing that can be seen changes


@dataclass(frozen=True)
class AdamPrediction:
    """A predicted training curve.

    - `steps`: when; 0 is the initial function.
    - `train_mse`, `test_mse`: mean squared errors over points and channels; test_mse is None without test points.
    - `f0_mse`: the mean square of what the initial function leaves on test points; None without one, or where
      it was the function of some steps later.
    - `train_residual`, `test_residual`: f - y at the last of the steps.
    - `weights`: by part, the factor of its kernel in the sum that trains, at the last step, relative to the largest.
    """

    steps: np.ndarray
    train_mse: np.ndarray
    test_mse: np.ndarray | None
    f0_mse: np.ndarray | None
    train_residual: Float[Tensor, "*windows n channels"]
    test_residual: Float[Tensor, "*windows m channels"] | None
    weights: dict[str, float]

    def __repr__(self) -> str:
        shown = "" if self.test_mse is None else f", test mse {self.test_mse[-1]:.3g}"
        loss = f"loss {LOSSES['mse']}, train mse {self.train_mse[-1]:.3g}{shown}"
        return f"AdamPrediction({self.steps[-1]} steps, {loss})"


Part = Float[Tensor, "*windows n n"] | ToeplitzOperator
TestPart = Float[Tensor, "*windows m n"] | ToeplitzOperator


@torch.no_grad()
def predict_adam(
    parts: Mapping[str, Part],
    sizes: Mapping[str, float],
    y: Float[Tensor, "*windows n channels"],
    steps: int,
    *,
    learning_rate: float | Mapping[str, float] = 1e-3,
    f0: Float[Tensor, "*windows n channels"] | None = None,
    parts_test: Mapping[str, TestPart] | None = None,
    y_test: Float[Tensor, "*windows m channels"] | None = None,
    f0_test: Float[Tensor, "*windows m channels"] | None = None,
    schedule: Callable[[int], float] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    at: Iterable[int] = (),
    n_total: int | None = None,
    batch: int | None = None,
    patches: int = 1,
    counted: Float[Tensor, "*windows m channels"] | None = None,
    last_layer: tuple[str, float] | None = None,
    last_biases: Float[Tensor, " outputs"] | None = None,
    start: Start | None = None,
    limits: tuple[float, float] | None = None,
    spread: Mapping[str, Float[Tensor, "k k"]] | None = None,
) -> AdamPrediction:
    r"""The curve of full-batch Adam on the loss $\frac{1}{nC}\sum (f - y)^2$ (torch's mse_loss), for a standing kernel.

    **Arguments**

    - `parts`: kernels of the parameter tensors by name, traced over outputs (their mean); see
      :func:`~neuralfield.ntk.empirical.empirical_parts` and :func:`~neuralfield.ntk.kernel_parts.kernel_parts`. Matrices,
      or operators on one grid (:func:`~neuralfield.ntk.lattice_parts.lattice_parts`), which take hundreds of thousands of
      points. Matrices may have an axis of windows before their own, and so may all values: points of different windows then
      have nothing to do with each other but the moments of the parameters that they share.
    - `sizes`: how many numbers each tensor holds; of a table those that the training points reach.
    - `y`, `f0`: targets and initial values on the training points; None is zero. On a grid the first output's initial values
      stand for all outputs' in `f0_mse`: they are alike, and carrying one along costs less.
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
      the parts before it then grow with it. None: all kernels stand still. `last_biases`: one patch's, at the start,
      where its outputs are the field's; None: it grows by its steps alone.
    - `start`: where Adam stands when it is not at its first step; `f0` is the function then, and `steps`, `schedule` and `at`
      count from there. Its first moment is taken to be the gradient of now.
    - `spread`: where `n_total` is larger than the points are, the parts between k points that are spread over all of the
      signal: by them the first eigenvalue between all is estimated. None: it is that of the points.
    - `limits`: errors are those of values clamped to this range, as PSNR is of values in [0, 1]; the path is the same.

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
    tested = parts_test is not None and y_test is not None
    r_test = (
        finite("y_test", f0_test - y_test if f0_test is not None else -y_test).to(like)  # type: ignore[operator]
        if tested
        else r[..., :0, :]
    )
    columns, points = y.shape[-1], y.shape[:-1].numel()
    total = points * patches if n_total is None else integer("n_total", n_total, 1)
    drawn = total if batch is None else min(integer("batch", batch, 1), total)
    on_grid = any(isinstance(part, ToeplitzOperator) for part in parts.values())
    if f0 is not None and start is None:  # what is left of it alone follows the same steps
        kept = slice(0, 1 if on_grid else columns)
        r = torch.cat([r, f0[..., kept].to(like)], dim=-1)
        left = r_test[..., kept] * 0 if f0_test is None else f0_test[..., kept].to(like)
        r_test = torch.cat([r_test, left if tested else left[..., :0, :]], dim=-1)
    moments = Moments(
        like.new_tensor([max(sizes[name], 1) for name in names]), beta1, beta2, eps, points, columns,
        total / (points * patches), total / drawn - 1, _last_layer(last_layer, last_biases, names, y),
    )  # fmt: skip
    make = _on_grid if on_grid else _dense
    edge = None if spread is None else _edge([spread[name].to(like) for name in names], total)
    state, (single, growth) = make(
        names, parts, parts_test if tested else None, r, r_test, y.to(like), moments, like, edge
    )
    done = 0
    if start is not None:
        done, single = integer("start.steps", start.steps, 1), 0
        moments.begin(done, like.new_tensor([start.second_moments[name] for name in names]))
    factor = schedule or (lambda step: 1.0)
    rate = like.new_tensor(rates)
    wanted = sorted({*at, steps} & set(range(steps + 1)))
    initial, rows = _mse(r[..., :columns]), []
    for end in _stops(wanted, steps, single, growth, done):
        count = end + done - moments.step
        if count > 0 and _mse(state.r[..., :columns]) > _CONVERGED * initial:
            if end <= single:
                state.single(rate * factor(end - 1))
            else:
                state.interval(rate * sum(factor(step) for step in range(end - count, end)), count)
        else:
            moments.step = end + done
        if end in wanted:
            own, of_f0 = state.r_test().tensor_split([columns], dim=-1)
            train, test = _clamped(state.r[..., :columns], y, limits), _clamped(own, y_test, limits)
            rows.append((end, _mse(train), _mse(test, counted), _mse(of_f0, counted)))
    table = np.array(rows)
    weights = state.weights / state.weights.max()
    return AdamPrediction(
        table[:, 0].astype(int),
        table[:, 1],
        table[:, 2] if tested else None,
        table[:, 3] if tested and r.shape[-1] > columns else None,
        state.r[..., :columns],
        state.r_test()[..., :columns] if tested else None,
        dict(zip(names, weights.tolist(), strict=True)),
    )


Made = tuple[adam_dense.DenseState | adam_lattice.LatticeState, tuple[int, float]]
"""A state, and how many steps it takes one by one and how intervals grow from there."""


def _dense(
    names: list[str], parts: Mapping[str, Any], test: Mapping[str, Any] | None, r: Tensor, r_test: Tensor, y: Tensor,
    moments: Moments, like: Tensor, edge: Edge | None,
) -> Made:  # fmt: skip
    stacked = torch.stack([finite(f"the kernel of {name}", parts[name]).to(like) for name in names])
    if test is None:
        rows = stacked[..., :0, :]
    else:
        rows = torch.stack([finite(f"the test kernel of {name}", test[name]).to(like) for name in names])
    state = adam_dense.DenseState(stacked, rows, r, r_test, y, moments, edge)
    return state, (adam_dense.SINGLE_STEPS, adam_dense.GROWTH)


def _on_grid(
    names: list[str], parts: Mapping[str, Any], test: Mapping[str, Any] | None, r: Tensor, r_test: Tensor, y: Tensor,
    moments: Moments, like: Tensor, edge: Edge | None,
) -> Made:  # fmt: skip
    if not all(isinstance(part, ToeplitzOperator) for part in (*parts.values(), *(test or {}).values())):
        raise ConfigError("either all parts are operators on a grid or none")
    rows = None if test is None else ToeplitzSum([test[name] for name in names])
    state = adam_lattice.LatticeState(ToeplitzSum([parts[name] for name in names]), rows, r, r_test, y, moments, edge)
    return state, (adam_lattice.SINGLE_STEPS, adam_lattice.GROWTH)


def _last_layer(
    given: tuple[str, float] | None, biases: Tensor | None, names: list[str], y: Tensor
) -> LastLayer | None:
    if given is None:
        return None
    name, squares = given
    if name not in names or not squares > 0:
        raise ConfigError(f"last_layer names a part and gives the sum of its squares, above 0; got {given}")
    layer = name.removesuffix("weight")
    before = torch.tensor([not n.startswith(layer) for n in names], device=y.device)
    bias = names.index(f"{layer}bias") if f"{layer}bias" in names else None
    if biases is not None:
        biases = biases.detach().to(y.device, torch.float32).repeat(y.shape[-1] // len(biases))
    return LastLayer(names.index(name), squares, before, bias, biases)


def _edge(spread: list[Tensor], total: int) -> Edge:
    """Kernels between few points, whose first eigenvalue is about that between all: by different points, since what a point
    has in common with itself does not grow with their number."""
    parts = torch.stack(spread)
    k = parts.shape[-1]
    parts = parts * (1 - torch.eye(k, dtype=parts.dtype, device=parts.device)) * (total / max(k - 1, 1))
    return MatrixEdge(parts.movedim(0, -2))


def _stops(wanted: list[int], steps: int, single: int, growth: float, done: int) -> list[int]:
    """Where the simulation halts: after every one of the first steps, then at growing intervals and where it is asked."""
    stops = set(range(min(single, steps) + 1)) | set(wanted)
    place = float(single + done)
    while place < steps + done:
        place *= growth
        stops.add(min(math.ceil(place) - done, steps))
    return sorted(stops)


def _clamped(residual: Tensor, y: Tensor | None, limits: tuple[float, float] | None) -> Tensor:
    """The residual of clamped values."""
    if limits is None or y is None or not residual.numel():
        return residual
    return (residual + y).clamp(*limits) - y.clamp(*limits)


def _mse(residual: Tensor, counted: Tensor | None = None) -> float:
    if not residual.numel():
        return math.nan
    if counted is None:
        return float(residual.square().mean())
    weights = counted.to(residual)[..., : residual.shape[-1]]
    return float((residual.square() * weights).sum() / weights.sum())
