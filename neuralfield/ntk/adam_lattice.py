"""Adam in function space on all points of a regular grid, by FFT; see :mod:`.adam` for the equations.

A step costs one transform of the residual and one back; an interval of many steps some thirty of them, by Lanczos.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from neuralfield.ntk.adam_moments import Moments
from neuralfield.ntk.edge import Edge, GridEdge
from neuralfield.ntk.krylov import evolve
from neuralfield.ntk.toeplitz_sum import ToeplitzSum

SINGLE_STEPS = 128  # up to there an interval would take as many products as it has steps
GROWTH = 1.3  # of the step number over one interval
_TOLERANCE = 1e-3  # of the residual at an interval's start
_PRODUCTS = 60  # of one interval at most


class LatticeState:
    """As :class:`~neuralfield.ntk.adam_dense.DenseState`, for operators on one grid."""

    def __init__(
        self,
        parts: ToeplitzSum,
        test: ToeplitzSum | None,
        r: Tensor,
        r_test: Tensor,
        y: Tensor,
        moments: Moments,
        edge: Edge | None = None,
    ) -> None:
        self.parts, self.test, self.y, self.moments = parts, test, y, moments
        self.r, self._r_test = r, r_test
        self.own = slice(0, y.shape[1])
        self.diagonal = parts.diagonal()
        self.momentum, self.momentum_own = torch.zeros_like(parts.transform(r)), torch.zeros_like(y)
        self.weights = torch.ones_like(self.diagonal)
        self.edge = GridEdge(parts, torch.ones_like(r[:, :1])) if edge is None else edge
        self._before: tuple[float, Tensor] | None = None

    def r_test(self) -> Tensor:
        """Residuals on test points."""
        return self._r_test

    def single(self, rates: Tensor) -> None:
        """One step of Adam."""
        moments, z = self.moments, self.parts.transform(self.r)
        new = (1 - moments.beta1) * moments.scale
        self.momentum = self.momentum.mul_(moments.beta1).add_(z, alpha=new)
        self.momentum_own = self.momentum_own.mul_(moments.beta1).add_(self.r[:, self.own], alpha=new)
        self.weights = moments.single(rates, self._square(z))
        moments.grow(rates, self.weights, self.momentum_own, self.r[:, self.own], self.y)
        self.r = self.r - self.parts.product(self.momentum, self.weights)
        if self.test is not None:
            self._r_test = self._r_test - self.test.product(self.momentum, self.weights)

    def interval(self, rates: Tensor, count: int) -> None:
        """``count`` steps at once; ``rates`` are summed over them. The weights are those of the interval's middle."""
        moments, start = self.moments, self.r
        before = self._square(self.parts.transform(start))
        middle = before * self._decline(before, count) ** 0.5
        middle = moments.bounded(rates, middle, self.edge.forms(moments.middle(rates, middle, count)), count)
        self.weights = moments.middle(rates, middle, count)
        with warnings.catch_warnings():
            # Past the limit what is left is directions of small eigenvalues, which have hardly moved.
            warnings.simplefilter("ignore", RuntimeWarning)
            found = evolve(
                self.parts.total(self.weights), start, torch.ones(1, dtype=torch.float64), tolerance=_TOLERANCE,
                max_iterations=_PRODUCTS, orthogonalize=False,
            )  # fmt: skip
        self.r = found.left[0].to(start)
        gained = found.gained[0].to(start)
        if self.test is not None:
            self._r_test = self._r_test - self.test.product(self.test.transform(gained), self.weights)
        moments.advance(middle, count)
        ends = start[:, self.own], self.r[:, self.own]
        moments.grow_over(rates, self.weights, gained[:, self.own], ends, self.y, count)

    def _square(self, z: Tensor) -> Tensor:
        """The mean square of each part's gradient, from the residual's transform."""
        forms = self.parts.forms(z[self.own])
        if self.moments.noise:
            forms = forms + self.moments.noise * self.diagonal * self.r[:, self.own].square().sum()
        return self.moments.square(forms)

    def _decline(self, now: Tensor, count: int) -> Tensor:
        """By what factor gradients' mean squares will change over the interval: as a power of the step number, as before."""
        step, known = self.moments.step, self._before
        self._before = math.log(max(step, 1)), now
        if known is None or self._before[0] <= known[0]:
            return torch.ones_like(now)
        slope = torch.log((now + 1e-38) / (known[1] + 1e-38)) / (self._before[0] - known[0])
        return torch.exp(slope.clamp(-20, 0) * math.log((step + count) / step))
