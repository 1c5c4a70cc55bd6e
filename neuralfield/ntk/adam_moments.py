"""Adam's second moments by parameter tensor, in function space; see :mod:`.adam` for the equations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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


class Moments:
    """What Adam keeps of every part, and the last layer's growth.

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
        self._biases = None if last is None else last.biases

    def square(self, forms: Float[Tensor, " parts"]) -> Float[Tensor, " parts"]:
        r"""The mean square of each part's gradient, from $r^\\top K_g r$ and what batches add to it."""
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

    def advance(self, square: Float[Tensor, " parts"], count: int) -> None:
        """``count`` steps at once, over which the gradients' mean square was ``square``."""
        self.v = self.beta2**count * self.v + (1 - self.beta2**count) * square
        self.step += count

    def grow(
        self,
        rates: Float[Tensor, " parts"],
        weights: Float[Tensor, " parts"],
        product: Float[Tensor, ""],
        sums: Float[Tensor, " columns"],
        count: int = 1,
    ) -> None:
        r"""Let the last layer grow over ``count`` steps, whose rates sum up to ``rates``.

        **Arguments**

        - `weights`: of the kernels, which act on a vector u over the points: the first moment, or the integral of r.
        - `product`: $u\cdot f$; `sums`: of u over the points, by column.
        """
        if self.last is None:
            return
        part, bias, before = self.last.part, self.last.bias, self._squares
        if self._biases is not None:
            along = float(product - (self._biases * sums).sum())
            self._squares -= 2 * self.ratio * float(weights[part]) * along
            if bias is not None:
                self._biases = self._biases - weights[bias] * sums
        self._squares += float(self.sizes[part] * rates[part] ** 2) / count
        self._squares = max(self._squares, _LEAST * self.last.squares)
        if self.step > count:
            self._slope = math.log(self._squares / before) / math.log(self.step / (self.step - count))
        self.gain = torch.where(self.last.before, self._squares / self.last.squares, self.gain)

    def _root(self, v: Tensor, step: float) -> Tensor:
        """Square root of the bias-corrected second moment."""
        return torch.sqrt(v / (1 - self.beta2**step) + 1e-38)
