"""Adam in function space on any points, by the kernels' matrices; see :mod:`.adam` for the equations."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralfield.ntk.adam_moments import Moments

SINGLE_STEPS = 64
GROWTH = 1.2  # of the step number over one interval
_DRIFT = 0.1  # of the parts' shares, beyond which the eigenpairs are worked out anew


class DenseState:
    """Residuals and moments after some steps.

    `columns`: of r that make the loss; those behind them are carried along by the same steps.
    """

    def __init__(self, parts: Tensor, test: Tensor, r: Tensor, r_test: Tensor, columns: int, moments: Moments) -> None:
        self.parts, self.test, self.moments = parts, test, moments
        self.r, self._r_test, self._pending = r, r_test, parts.new_zeros(len(parts), *r.shape)
        self.own = slice(0, columns)
        self.diagonals = parts.diagonal(dim1=1, dim2=2)
        self.momentum = torch.zeros_like(r)
        self.momentum_parts = parts.new_zeros(len(parts), *r.shape)
        self.weights = parts.new_ones(len(parts))
        self.basis: tuple[Tensor, Tensor, Tensor] | None = None

    def r_test(self) -> Tensor:
        """Residuals on test points. They are brought up to date when asked for: most steps are not reported."""
        if len(self._r_test):
            for test, pending in zip(self.test, self._pending, strict=True):
                self._r_test = self._r_test - test @ pending
            self._pending.zero_()
        return self._r_test

    def single(self, rates: Tensor) -> None:
        """One step of Adam."""
        products, moments = self._products(), self.moments
        square, beta1 = self._square(products), moments.beta1
        self.momentum = beta1 * self.momentum + (1 - beta1) * moments.scale * self.r
        self.momentum_parts = beta1 * self.momentum_parts + (1 - beta1) * moments.scale * products
        self.weights = moments.single(rates, square)
        self.r = self.r - torch.einsum("g,gnc->nc", self.weights, self.momentum_parts)
        self._pending += self.weights[:, None, None] * self.momentum

    def interval(self, rates: Tensor, count: int) -> None:
        """``count`` steps at once; ``rates`` are summed over them. The weights are those of the interval's middle."""
        before = self._square(self._products())
        start = self.r
        self._exponential(rates, count, before, test=False)
        # The gradients' size halfway is taken as the geometric mean of both ends, the second found by a trial.
        middle = torch.sqrt(before * self._square(self._products()))
        self.r = start
        self._exponential(rates, count, middle, test=True)
        self.moments.advance(rates, middle, count)

    def _products(self) -> Tensor:
        """K_g r of every part, one matrix product for all."""
        groups, n, _ = self.parts.shape
        return (self.parts.reshape(groups * n, n) @ self.r).reshape(groups, n, -1)

    def _square(self, products: Tensor) -> Tensor:
        """The mean square of each part's gradient, from :meth:`_products`."""
        r = self.r[:, self.own]
        forms = (products[:, :, self.own] * r).sum(dim=(1, 2)).clamp_min(0)
        if self.moments.noise:
            forms = forms + self.moments.noise * (self.diagonals @ r.square().sum(dim=1))
        return self.moments.square(forms)

    def _exponential(self, rates: Tensor, count: int, square: Tensor, test: bool) -> None:
        moments = self.moments
        self.weights = moments.middle(rates, square, count)
        values, vectors, scale = self._modes(square * moments.sizes / moments.gain)
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
