"""Adam in function space on any points, by the kernels' matrices; see :mod:`.adam` for the equations."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.ntk.adam_moments import Moments
from neuralfield.ntk.edge import Edge, MatrixEdge

SINGLE_STEPS = 64
GROWTH = 1.2  # of the step number over one interval
_DRIFT = 0.1  # of the parts' shares, beyond which the eigenpairs are worked out anew


class DenseState:
    """Residuals and moments after some steps.

    **Arguments**

    - `parts`, `test`: kernels by part, [parts, *windows, n, n] and [parts, *windows, m, n]: the values of one window's points
      do not depend on those of another's, but all share their moments.
    - `r`, `r_test`: [*windows, n, columns], [*windows, m, columns].
    - `y`: targets, in as many columns of r as make the loss; those behind them are carried along by the same steps.
    - `edge`: of points whose first eigenvalue is that of all; None: these are all.
    """

    def __init__(
        self,
        parts: Tensor,
        test: Tensor,
        r: Tensor,
        r_test: Tensor,
        y: Tensor,
        moments: Moments,
        edge: Edge | None = None,
    ) -> None:
        # Of matrices with few rows, a product from the left is twice as fast as one from the right; kernels are symmetric.
        self.parts = parts.movedim(0, -2).contiguous()  # [*windows, n, parts, n]
        self.test = test.mT.movedim(0, -3).flatten(-3, -2)  # [*windows, parts times n, m]
        self.y, self.moments = y, moments
        self.r, self._r_test, self._pending = r, r_test, parts.new_zeros(len(parts), *r.shape)
        self.edge = MatrixEdge(self.parts) if edge is None else edge
        self.own = slice(0, y.shape[-1])
        self.diagonals = parts.diagonal(dim1=-2, dim2=-1).flatten(1)
        self.momentum = torch.zeros_like(r)
        self.momentum_parts = parts.new_zeros(len(parts), *r.shape)
        self.weights = parts.new_ones(len(parts))
        self.basis: tuple[Tensor, Tensor, Tensor] | None = None

    def r_test(self) -> Tensor:
        """Residuals on test points. They are brought up to date when asked for: most steps are not reported."""
        if self._r_test.numel():
            pending = self._pending.movedim(0, -3).flatten(-3, -2)
            self._r_test = self._r_test - (pending.mT.contiguous() @ self.test).mT
            self._pending.zero_()
        return self._r_test

    def single(self, rates: Tensor) -> None:
        """One step of Adam."""
        products, moments = self._products(), self.moments
        square, beta1 = self._square(products), moments.beta1
        self.momentum = beta1 * self.momentum + (1 - beta1) * moments.scale * self.r
        self.momentum_parts = beta1 * self.momentum_parts + (1 - beta1) * moments.scale * products
        self.weights = moments.single(rates, square)
        moments.grow(rates, self.weights, self.momentum[..., self.own], self.r[..., self.own], self.y)
        self.r = self.r - torch.einsum("g,g...->...", self.weights, self.momentum_parts)
        self._pending += torch.einsum("g,...->g...", self.weights, self.momentum)

    def interval(self, rates: Tensor, count: int) -> None:
        """``count`` steps at once; ``rates`` are summed over them. The weights are those of the interval's middle."""
        before = self._square(self._products())
        start = self.r
        self._exponential(rates, count, before)
        # The gradients' size halfway is taken as the geometric mean of both ends, the second found by a trial.
        middle = torch.sqrt(before * self._square(self._products()))
        self.r = start
        middle = self.moments.bounded(rates, middle, self.edge.forms(self.moments.middle(rates, middle, count)), count)
        integral, scale = self._exponential(rates, count, middle)
        weights = scale * self.basis_weights
        self._pending += torch.einsum("g,...->g...", weights, integral)
        self.moments.advance(middle, count)
        ends = start[..., self.own], self.r[..., self.own]
        self.moments.grow_over(rates, weights, integral[..., self.own], ends, self.y, count)

    def _products(self) -> Tensor:
        """K_g r of every part, one matrix product for all."""
        found = self.r.mT.contiguous() @ self.parts.flatten(-2)
        return found.unflatten(-1, self.parts.shape[-2:]).movedim(-2, 0).mT

    def _square(self, products: Tensor) -> Tensor:
        """The mean square of each part's gradient, from :meth:`_products`."""
        r = self.r[..., self.own]
        forms = (products[..., self.own] * r).flatten(1).sum(dim=1).clamp_min(0)
        if self.moments.noise:
            forms = forms + self.moments.noise * (self.diagonals @ r.square().sum(dim=-1).flatten())
        return self.moments.square(forms)

    def _exponential(self, rates: Tensor, count: int, square: Tensor) -> tuple[Tensor, float]:
        """Advance r; returns its integral over the interval, which has length 1, and the factor of the basis's weights."""
        moments = self.moments
        self.weights = moments.middle(rates, square, count)
        values, vectors, scale = self._modes(square * moments.sizes / moments.gain)
        modes = vectors.mT @ self.r
        exponents = count * decay(scale * values / count, moments.beta1)
        self.r = vectors @ (torch.exp(-exponents)[..., None] * modes)
        return vectors @ ((-torch.expm1(-exponents) / (scale * values))[..., None] * modes), scale

    def _modes(self, energy: Tensor) -> tuple[Tensor, Tensor, float]:
        """Eigenpairs of the sum that trains, up to a factor, which is returned: the last ones as long as they will do."""
        if self.basis is not None:
            values, vectors, reference = self.basis
            # Of the rate at which the error falls, r K r, each part gives its weight times its energy.
            now, then = self.weights * energy, reference * energy
            scale = float(now.sum() / then.sum())
            if float((now - scale * then).abs().sum() / now.sum()) < _DRIFT:
                return values, vectors, scale
        values, vectors = torch.linalg.eigh(self.weights @ self.parts)
        # Directions that float32 cannot tell from zero do not move.
        values = values.clamp_min(torch.finfo(values.dtype).eps * float(values.max()))
        self.basis = values, vectors, self.weights
        return values, vectors, 1.0

    @property
    def basis_weights(self) -> Tensor:
        """The weights of the sum whose eigenpairs are in use."""
        assert self.basis is not None
        return self.basis[2]


def decay(rate: Float[Tensor, "*windows modes"], beta1: float) -> Float[Tensor, "*windows modes"]:
    r"""By what a mode's logarithm falls in a step, with momentum.

    $r \leftarrow r - \rho m$ with $m \leftarrow \beta_1 m + (1 - \beta_1) r$ has the factors z with $z^2 - (1 + \beta_1 -
    (1 - \beta_1) \rho) z + \beta_1 = 0$. Slow modes fall by $\rho + (1/(1 - \beta_1) - 1) \rho^2 + \dots$, faster than
    without momentum; those that swing by $\sqrt{\beta_1}$ at most.
    """
    middle = (1 + beta1 - (1 - beta1) * rate).clamp_min(0)  # steps that are too large are corrected by v, in time
    square = middle**2 - 4 * beta1
    slow = (middle + square.clamp_min(0).sqrt()) / 2
    # 1 - z loses digits where the rate is small: there the first terms are exact.
    series = rate + (1 / (1 - beta1) - 1) * rate**2
    return torch.where(rate < 1e-4, series, torch.where(square > 0, -slow.log(), -0.5 * math.log(max(beta1, 1e-38))))
