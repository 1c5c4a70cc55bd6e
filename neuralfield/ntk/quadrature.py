r"""The dual of any activation by quadrature, interpolated so that a pair of points costs some hundred operations.

The slope $\dot S(r, r', \theta) = \mathbb{E}[\phi'(r a)\,\phi'(r' b)]$, a and b standard normal at the angle $\theta$, is
in polar coordinates

$$ \dot S = \frac{1}{2\pi}\int_0^\infty \rho\, e^{-\rho^2/2} \int_0^{2\pi}
   \phi'(r\rho\cos\omega)\,\phi'(r'\rho\cos(\omega-\theta))\, d\omega\, d\rho . $$

Where a or b changes sign the circle is cut into four arcs. Inside each the integrand is smooth even for an activation with a
kink at zero (ELU), so Gauss-Legendre rules converge geometrically, and $\dot S$ is an analytic function of $\theta$ on
$[0, \pi]$: a short Chebyshev series. (In $\cos\theta$ it has square roots at both ends, which is why Hermite series converge
slowly.) For unequal norms the series is a product of three, in $\theta$, $r/(1+r)$ and $r'/(1+r')$.

The drop (see :mod:`.duals`) is $\Delta = r r' \int_0^\theta \dot S(t)\sin t\,dt$, since $d\hat S/d\cos\theta = r r' \dot S$.
Its mean slope $\Delta / (r r' u)$ is interpolated, so that small angles keep their relative precision.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.duals import Dual, angle

ACCURACY = 1e-11
"""Error that rules and series are refined to, relative to the largest value of the slope."""

_REACH = 9.0  # radius in standard deviations; beyond it lies e^-40 of the mass
_RULE = (20, 30, 45, 68, 100, 150, 225)  # points per arc, and along the radius
_ANGLES = (20, 30, 45, 68, 100, 150)  # interpolation points in theta
_NORMS = (8, 12, 18, 27, 40, 60)  # interpolation points in r
_LINE = 160  # points per half of the line, for averages over one variable


@functools.cache
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, w / 2


@functools.cache
def _chebyshev(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev points of [-1, 1], and the matrix from values there to coefficients."""
    nodes = np.cos(math.pi * (np.arange(n) + 0.5) / n)
    return nodes, np.linalg.inv(chebyshev.chebvander(nodes, n - 1))


@functools.cache
def _mean_slope(n: int) -> np.ndarray:
    r"""From coefficients of $\dot S$ to those of $\frac1u\int_0^\theta \dot S \sin t\,dt$."""
    nodes, transform = _chebyshev(n)
    x, w = _legendre(n)
    theta = (nodes + 1) * math.pi / 2
    t = theta[:, None] * x
    basis = chebyshev.chebvander(2 * t / math.pi - 1, n - 1)
    weight = w * theta[:, None] * np.sin(t) / (2 * np.sin(theta[:, None] / 2) ** 2)
    return transform @ np.einsum("kq,kql->kl", weight, basis)


class Quadrature(Dual):
    r"""The dual of an activation that has no closed form here, such as SiLU, tanh, softplus, ELU, or a function of one's own.

    Accurate to about 1e-11 of the largest value for a $\phi$ that is smooth but for a kink at zero and grows at most
    polynomially. Raises :class:`~neuralfield.errors.ConfigError` for one that the rules cannot resolve: with kinks or jumps
    elsewhere, or oscillating too fast for the norms at hand.

    **Arguments**

    - `function`: $\phi$, elementwise on float64 tensors of any shape, differentiable by torch.
    - `name`: of it, for messages.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        self.function, self.name = function, name
        self._tables: dict[tuple[float, float], Table] = {}
        probe = self.value(torch.linspace(-3, 3, 7, dtype=torch.float64))
        if not isinstance(probe, Tensor) or probe.shape != (7,) or not bool(torch.isfinite(probe).all()):
            raise ConfigError(
                f"activation {name} must map a float64 tensor to a finite one of the same shape, elementwise"
            )

    def value(self, z: Tensor) -> Tensor:
        return self.function(z)

    def slope(self, z: Tensor) -> Tensor:
        r"""$\phi'$, differentiable again where z is."""
        recorded = z.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if recorded else z.detach().requires_grad_()
            value = self.function(z)
            if not value.requires_grad:
                return torch.zeros_like(z)
            (slope,) = torch.autograd.grad(value, z, torch.ones_like(value), create_graph=recorded)
        return slope

    def second_moment(self, r: Tensor) -> Tensor:
        return self._features(r).square().sum(-1)

    def slope_moment(self, r: Tensor) -> Tensor:
        return self._features(r, self.slope).square().sum(-1)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        if r.ndim == 0:
            return self.second_moment(r)
        return self._features(r[:, 0]) @ self._features(s[0]).T

    def prepared(self, low: float, high: float) -> Table:
        if low < high:  # rounded outwards, so that other points of the same kind find the table made
            step = high / 16
            low, high = max(math.floor(low / step) - 1, 0) * step, high * 17 / 16
            high = float(np.ldexp(math.ceil(np.ldexp(high, shift := 4 - math.frexp(high)[1])), -shift))
        if (low, high) not in self._tables:
            if len(self._tables) >= 64:
                self._tables.pop(next(iter(self._tables)))
            self._tables[low, high] = Table(self, low, high)
        return self._tables[low, high]

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        ends = torch.stack([r.detach().amin(), s.detach().amin(), r.detach().amax(), s.detach().amax()]).double()
        return self.prepared(float(ends[:2].min()), float(ends[2:].max())).drop(u, r, s)

    def _features(self, r: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        r"""$\sqrt{w_k}\,\phi(r z_k)$ of a rule for the normal distribution: their inner products are expectations."""
        x, w = _legendre(_LINE)
        z = torch.as_tensor(np.concatenate([-_REACH * x[::-1], _REACH * x]), device=r.device)
        half = w * _REACH * np.exp(-0.5 * (_REACH * x) ** 2) / math.sqrt(2 * math.pi)
        weight = torch.as_tensor(np.sqrt(np.concatenate([half[::-1], half])), device=r.device)
        return (function or self.value)(r.double()[..., None] * z) * weight


class Table(Dual):
    """The interpolated dual for deviations in one range; see the module.

    **Arguments**

    - `source`: the activation.
    - `low`, `high`: of the deviations r; equal where all norms are.
    """

    def __init__(self, source: Quadrature, low: float, high: float) -> None:
        self.source, self.low, self.high = source, low, high
        top = np.array([high])
        probes = lambda size: np.array([self._slopes(top, t, size) for t in (0.2, 1.3, 2.9)])  # noqa: E731
        size = self._refined(_RULE, probes, lambda new, old: np.abs(new - old).max() / np.abs(new).max())
        angles = self._refined(_ANGLES, lambda n: self._along(top, n, size), lambda new, _: _tail(new))
        norms = 1
        if low < high:
            across = lambda n: self._across(self._slopes(self._norms(n), 1.3, size)[None])  # noqa: E731
            norms = self._refined(_NORMS, across, lambda new, _: _tail(new.transpose(1, 0, 2)))
        self.slope = self._across(self._along(self._norms(norms), angles, size))
        self.mean = np.einsum("lk,kab->lab", _mean_slope(angles), self.slope)

    def second_moment(self, r: Tensor) -> Tensor:
        return self.source.second_moment(r)

    def slope_moment(self, r: Tensor) -> Tensor:
        return self.source.slope_moment(r)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        return self.source.parallel(r, s)

    def _refined(
        self,
        sizes: tuple[int, ...],
        values: Callable[[int], np.ndarray],
        error: Callable[[np.ndarray, np.ndarray], float],
    ) -> int:
        """The smallest size at which the error is small enough."""
        old = values(sizes[0])
        for size in sizes[1:]:
            new = values(size)
            if error(new, old) < ACCURACY:
                return size
            old = new
        raise ConfigError(
            f"quadrature cannot resolve activation {self.source.name} for pre-activations of standard deviation "
            f"{self.high:.3g}: it has kinks or jumps away from zero, or varies too fast; take a smoother activation or "
            f"a smaller w_std"
        )

    def _norms(self, n: int) -> np.ndarray:
        low, high = self.low / (1 + self.low), self.high / (1 + self.high)
        v = (low + high) / 2 + (high - low) / 2 * _chebyshev(n)[0]
        return v / (1 - v)

    def _along(self, norms: np.ndarray, n: int, size: int) -> np.ndarray:
        """Coefficients in theta, [n, norms, norms]."""
        nodes, transform = _chebyshev(n)
        values = np.stack([self._slopes(norms, (x + 1) * math.pi / 2, size) for x in nodes])
        return np.einsum("lk,kij->lij", transform, values)

    @staticmethod
    def _across(values: np.ndarray) -> np.ndarray:
        """Coefficients in r and r', from values at their Chebyshev points."""
        transform = _chebyshev(values.shape[1])[1]
        return np.einsum("ai,kij,bj->kab", transform, values, transform, optimize=True)

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        x = angle(u)[0] * (2 / math.pi) - 1
        sizes = np.abs(self.slope).max(axis=(1, 2)) + np.abs(self.mean).max(axis=(1, 2))
        count = 1 + int(np.flatnonzero(sizes > 0.05 * torch.finfo(u.dtype).eps * sizes[0]).max(initial=0))
        mean, slope = (self._series(torch.from_numpy(table[:count]), x, r, s) for table in (self.mean, self.slope))
        return r * s * u * mean, slope

    def _series(self, table: Tensor, x: Tensor, r: Tensor, s: Tensor) -> Tensor:
        """Clenshaw's sum over theta; with unequal norms each coefficient is itself a product of series in r and r'."""
        table = table.to(x.device, x.dtype)
        if table.shape[1] == 1:
            terms = table[:, 0, 0]
        else:
            left, right = (self._vandermonde(side.reshape(-1), table.shape[1]).to(x.dtype) for side in (r, s))
            terms = left @ table @ right.T
            terms = terms if r.ndim else terms[:, 0, 0]
        one, two = torch.zeros_like(x), torch.zeros_like(x)
        double = 2 * x
        for k in range(len(table) - 1, 0, -1):
            one, two = torch.addcmul(terms[k] - two, double, one), one
        return torch.addcmul(terms[0] - two, x, one)

    def _vandermonde(self, r: Tensor, degree: int) -> Tensor:
        """Chebyshev polynomials 0 .. degree - 1 of deviations, [n, degree]."""
        low, high, r = self.low / (1 + self.low), self.high / (1 + self.high), r.double()
        x = (2 * r / (1 + r) - low - high) / (high - low)
        columns = [torch.ones_like(x), x]
        while len(columns) < degree:
            columns.append(2 * x * columns[-1] - columns[-2])
        return torch.stack(columns[:degree], dim=1)

    def _slopes(self, norms: np.ndarray, theta: float, size: int) -> np.ndarray:
        r"""$\dot S(r_i, r_j, \theta)$ for all pairs of norms."""
        x, w = _legendre(size)
        radius, radial = _legendre(size)
        radius = radius * _REACH
        radial = radial * _REACH * radius * np.exp(-0.5 * radius**2)
        cuts = [-math.pi / 2, theta - math.pi / 2, math.pi / 2, theta + math.pi / 2, 3 * math.pi / 2]
        omega = np.concatenate([a + (b - a) * x for a, b in itertools.pairwise(cuts)])
        arcs = np.concatenate([(b - a) * w for a, b in itertools.pairwise(cuts)])
        weight = (arcs[:, None] * radial).ravel() / (2 * math.pi)
        z = np.multiply.outer(norms, np.multiply.outer(np.cos(omega), radius))
        one = self.source.slope(torch.from_numpy(z)).numpy()
        # The mirror image omega -> theta - omega exchanges a and b, and the arcs 0 and 2; the rule is its own image.
        two = one.reshape(len(norms), 4, size, size)[:, [2, 1, 0, 3], ::-1]
        return (one.reshape(len(norms), -1) * weight) @ two.reshape(len(norms), -1).T


def _tail(coefficients: np.ndarray) -> float:
    """How large the last coefficients of a Chebyshev series are, against the largest."""
    return float(np.abs(coefficients[-3:]).max() / np.abs(coefficients).max())
