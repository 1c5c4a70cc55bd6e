"""Adam's second moments by parameter tensor, in function space; see :mod:`.adam` for the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_HALVINGS = 10  # of the search for an amplitude
_LEAST = 0.01  # of the last layer's squares: the identity holds for small steps, and never makes it vanish


@dataclass(frozen=True)
class LastLayer:
    """The last layer's weights, which grow.

    - `part`: their number among the parts; `squares`: the sum of their squares at the start.
    - `before`: which parts lie before that layer, bool [parts].
    - `bias`: the number of the layer's biases among the parts, if they are trained; `biases`: their values at the start,
      one per column, or None where what the layer contributes is not known.
    """

    part: int
    squares: float
    before: Tensor
    bias: int | None = None
    biases: Tensor | None = None


@dataclass(frozen=True)
class Start:
    """Adam in the middle of a fit.

    - `steps`: how many were made.
    - `second_moments`: by part, the mean over its numbers of what Adam keeps of squared gradients, bias and all.
    """

    steps: int
    second_moments: Mapping[str, float]


class Moments:
    """What Adam keeps of every part, and the last layer's growth. Its `step` counts all steps of the fit.

    **Arguments**

    - `sizes`: how many numbers each part's tensor holds, [parts].
    - `beta1`, `beta2`, `eps`: Adam's.
    - `n`, `columns`: points and outputs in the loss. `ratio`: how many times these points the signal has.
    - `noise`: what a batch of some of the points adds to the mean square of gradients, as a factor.
    """

    def __init__(
        self,
        sizes: Float[Tensor, " parts"],
        beta1: float,
        beta2: float,
        eps: float,
        n: int,
        columns: int,
        ratio: float,
        noise: float,
        last: LastLayer | None,
    ) -> None:
        self.sizes, self.beta1, self.beta2, self.eps = sizes, beta1, beta2, eps
        self.scale, self.ratio, self.noise, self.last = 2 / (n * columns * ratio), ratio, noise, last
        self.v, self.gain, self.step = torch.zeros_like(sizes), torch.ones_like(sizes), 0
        self._squares, self._slope = (0.0 if last is None else last.squares), 0.0
        self._biases, self._then = (None if last is None else last.biases), 0.0

    def begin(self, step: int, second: Float[Tensor, " parts"]) -> None:
        """Stand where Adam stands after some steps."""
        self.step, self.v = step, second

    def square(self, forms: Float[Tensor, " parts"]) -> Float[Tensor, " parts"]:
        r"""The mean square of each part's gradient, from $r^\top K_g r$ and what batches add to it."""
        return self.scale**2 * self.ratio * self.gain * forms.clamp_min(0) / self.sizes

    def single(self, rates: Float[Tensor, " parts"], square: Float[Tensor, " parts"]) -> Float[Tensor, " parts"]:
        """One step: the factors of the kernels, which act on the first moment."""
        self.v = self.beta2 * self.v + (1 - self.beta2) * square
        self.step += 1
        return self.gain * rates / (self._root(self.v, self.step) + self.eps) / (1 - self.beta1**self.step)

    def middle(
        self, rates: Float[Tensor, " parts"], square: Float[Tensor, " parts"], count: int
    ) -> Float[Tensor, " parts"]:
        """The factors of the kernels in the middle of ``count`` steps to come, over which ``rates`` are summed."""
        half = self.beta2 ** (count / 2)
        v = half * self.v + (1 - half) * square
        gain = self.gain
        if self.last is not None:  # it goes on growing as a power of the step number, as in the last interval
            gain = torch.where(self.last.before, gain * (1 + count / self.step) ** (self._slope / 2), gain)
        return self.scale * gain * rates / (self._root(v, self.step + count / 2) + self.eps)

    def bounded(
        self, rates: Float[Tensor, " parts"], square: Float[Tensor, " parts"], top: Float[Tensor, " parts"], count: int
    ) -> Float[Tensor, " parts"]:
        r"""The gradients' mean square over ``count`` steps to come, with what an oscillation adds to it where steps would
        otherwise be too large.

        Steps are stable as long as the largest eigenvalue of the kernel that trains is below
        $2 (1 + \beta_1) / (1 - \beta_1)$ a step. Beyond it the function swings along that kernel's first eigenvector until
        gradients, and with them the second moments, have grown so much that it is stable again: training stays at that edge
        (see :mod:`.adam`).

        **Arguments**

        - `square`: of the residual that is left; `rates`: summed over the steps.
        - `top`: $u^\top K_g u$ of every part, with the first eigenvector u.
        """
        most, swing = 2 * (1 + self.beta1) / (1 - self.beta1) * count, self.square(top)

        def too_fast(amplitude: float) -> bool:
            return float((self.middle(rates, square + amplitude * swing, count) * top).sum()) > most

        if not too_fast(0.0):
            return square
        low, high = 0.0, float((square / swing.clamp_min(1e-38)).min()) + 1e-30
        while too_fast(high):
            low, high = high, 2 * high
        for _ in range(_HALVINGS):
            half = (low + high) / 2
            low, high = (half, high) if too_fast(half) else (low, half)
        return square + high * swing

    def advance(self, square: Float[Tensor, " parts"], count: int) -> None:
        """``count`` steps at once, over which the gradients' mean square was ``square``."""
        self.v = self.beta2**count * self.v + (1 - self.beta2**count) * square
        self.step += count

    def grow(
        self,
        rates: Float[Tensor, " parts"],
        weights: Float[Tensor, " parts"],
        momentum: Float[Tensor, "*points columns"],
        r: Float[Tensor, "*points columns"],
        y: Float[Tensor, "*points columns"],
    ) -> None:
        r"""Let the last layer grow in a step, after :meth:`single`.

        Its weights now meet gradients of some steps ago, $\langle W_t, \nabla_{t-k} \rangle$, of which the outputs now and
        then are known, $W_t h_t$ and $W_{t-k} h_{t-k}$. As W and h move alike, $W_t h_{t-k}$ lies half-way.

        **Arguments**

        - `weights`: of the kernels in this step; `momentum`: the first moment, this step's residual r in it.
        """
        if self.last is None:
            return
        along = 0.0
        if self._biases is not None:
            f = r + y - self._biases
            then = self.scale * float((r * f).sum())
            self._then = self.beta1 * self._then + (1 - self.beta1) * then
            along = (float((momentum * f).sum()) + self._then) / 2
        self._grown(rates, weights, along, momentum, 1)

    def grow_over(
        self,
        rates: Float[Tensor, " parts"],
        weights: Float[Tensor, " parts"],
        integral: Float[Tensor, "*points columns"],
        ends: tuple[Float[Tensor, "*points columns"], Float[Tensor, "*points columns"]],
        y: Float[Tensor, "*points columns"],
        count: int,
    ) -> None:
        """Let the last layer grow over ``count`` steps, after :meth:`advance`; ``rates`` are summed over them.

        **Arguments**

        - `integral`: of the residual over the interval, which has length 1; `ends`: the residual before and after it.
        - `weights`: of the kernels, which act on the integral.
        """
        along = 0.0
        if self._biases is not None:
            along = float((integral * (y - self._biases)).sum() + _mean_square(*ends))
        self._grown(rates, weights, along, integral, count)

    def _grown(self, rates: Tensor, weights: Tensor, along: float, moved: Tensor, count: int) -> None:
        if self.last is None:
            return
        part, bias, before = self.last.part, self.last.bias, self._squares
        if self._biases is not None and bias is not None:
            self._biases = self._biases - weights[bias] * moved.flatten(0, -2).sum(dim=0)
        self._squares -= 2 * self.ratio * float(weights[part]) * along
        self._squares += float(self.sizes[part] * rates[part] ** 2) / count
        self._squares = max(self._squares, _LEAST * self.last.squares)
        if self.step > count:
            self._slope = math.log(self._squares / before) / math.log(self.step / (self.step - count))
        self.gain = torch.where(self.last.before, self._squares / self.last.squares, self.gain)

    def _root(self, v: Tensor, step: float) -> Tensor:
        """Square root of the bias-corrected second moment."""
        return torch.sqrt(v / (1 - self.beta2**step) + 1e-38)


def _mean_square(start: Tensor, end: Tensor) -> Tensor:
    """The integral of |r|^2 over an interval of length 1 in which it falls exponentially from one end to the other."""
    high, low = start.square().sum().clamp_min(1e-38), end.square().sum().clamp_min(1e-38)
    ratio = torch.log(high / low)
    return torch.where(ratio.abs() < 1e-3, (high + low) / 2, (high - low) / torch.where(ratio == 0, 1.0, ratio))
