r"""Gaussian averages of an activation: what one hidden layer does to a kernel at infinite width.

For $(x, y) \sim \mathcal{N}\big(0, \begin{pmatrix} q & S \\ S & q' \end{pmatrix}\big)$ the dual of $\phi$ is
$\hat S = \mathbb{E}[\phi(x)\phi(y)]$ and its slope $\dot S = \mathbb{E}[\phi'(x)\phi'(y)]$ (Daniely et al. 2016; Lee et al.
2018, eq. 5).

Neighbouring pixels are almost parallel, and a kernel between them computed from $\cos\theta = S/\sqrt{qq'}$ loses half of the
digits. Here the state is $u = 1 - \cos\theta$, and what a dual gives is the *drop*
$\Delta(u) = \hat S|_{u=0} - \hat S(u) \ge 0$, each written so that a small u costs no digits. With
$\hat r = \sqrt{\hat q},\ \hat q = \mathbb{E}\,\phi(\sqrt q z)^2$, the next state is

$$ \hat u = \Big(1 - \frac{\hat S|_{u=0}}{\hat r \hat r'}\Big) + \frac{\Delta(u)}{\hat r \hat r'}, $$

whose first term is zero for equal norms (every sinusoidal encoding), and otherwise a float64 function of two norms.

A dual's functions take a deviation $r = \sqrt q$ for each side, broadcast against u. All differentiate twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuralfield.ntk import relu_step

_WORTH = 2**14  # numbers in a block from which compiled loops are used
_SMALL = 0.3  # angle in radians below which sin t - t cos t is summed as a series
# sin t - t cos t = t^3 sum_k (-1)^(k+1) 2k/(2k+1)! t^(2k-2)
_SERIES = [(-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) for k in range(1, 8)]


class Dual(ABC):
    """The dual of one activation; see the module."""

    homogeneous = False
    """Whether $\\phi(cx) = c\\,\\phi(x)$ for c > 0, so that norms have no influence on angles."""

    def prepared(self, low: float, high: float) -> Dual:
        """The same for deviations between two bounds; interpolated duals make their tables here."""
        return self

    @abstractmethod
    def second_moment(self, r: Tensor) -> Tensor:
        r"""$\mathbb{E}\,\phi(r z)^2,\ z \sim \mathcal{N}(0, 1)$."""

    @abstractmethod
    def slope_moment(self, r: Tensor) -> Tensor:
        r"""$\mathbb{E}\,\phi'(r z)^2$."""

    @abstractmethod
    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        r"""$\hat S|_{u=0} = \mathbb{E}\,\phi(r z)\phi(s z)$; r [n, 1] and s [1, m]."""

    @abstractmethod
    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\Delta(u)$ and $\dot S(u)$."""


def angle(u: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\theta = \arccos(1 - u) \in [0, \pi]$ and $\sin\theta$, to full relative precision in u.

    Where u is 0 or 2 the derivative of $\theta$ is infinite; 0 is taken.
    """
    if not (u.requires_grad and torch.is_grad_enabled()):
        sine = (2 - u).mul_(u).clamp_(min=0).sqrt_()
        return torch.atan2(sine, 1 - u), sine
    inside = (u > 0) & (u < 2)
    safe = torch.where(inside, u, torch.ones_like(u))
    sine = (safe * (2 - safe)).sqrt()
    theta = torch.where(inside, torch.atan2(sine, 1 - safe), torch.where(u >= 2, math.pi, 0.0).to(u.dtype))
    return theta, torch.where(inside, sine, torch.zeros_like(u))


def bend(u: Tensor, theta: Tensor, sine: Tensor) -> Tensor:
    r"""$\sin\theta - \theta\cos\theta$, to full relative precision."""
    value = torch.addcmul(sine, theta, 1 - u, value=-1)
    if not len(theta) or float(theta.detach().amin()) >= _SMALL:
        return value
    square = theta * theta
    series = torch.full_like(theta, _SERIES[-1])
    for coefficient in _SERIES[-2::-1]:
        series = torch.addcmul(theta.new_tensor(coefficient), series, square)
    return torch.where(theta < _SMALL, series * square * theta, value)


def _compiles(block: Tensor) -> bool:
    """Whether the compiled step takes a block and repays its start."""
    plain = block.device.type == "cpu" and block.dtype == torch.float32 and block.is_contiguous()
    return plain and block.numel() >= _WORTH and relu_step.available()


class PiecewiseLinear(Dual):
    r"""$\phi(x) = a x$ below zero, $b x$ above: ReLU, leaky ReLU, absolute value, identity.

    $\hat u = u - k\,(\sin\theta - \theta\cos\theta)$ and $\dot S = \frac{a^2+b^2}{2}(1 - k\theta)$ with
    $k = \frac{(a-b)^2}{\pi(a^2+b^2)}$: the arc-cosine kernels of orders 1 and 0 (Cho & Saul 2009, eqs. 1 and 6).

    Where a point's pre-activation is exactly zero, $\theta = \pi/2$ stands for the mean of the two slopes.
    """

    homogeneous = True

    def __init__(self, low: float, high: float) -> None:
        self.gain = (low**2 + high**2) / 2
        self.k = (low - high) ** 2 / (2 * math.pi * self.gain)

    def second_moment(self, r: Tensor) -> Tensor:
        return self.gain * r * r

    def slope_moment(self, r: Tensor) -> Tensor:
        full = torch.full_like(r, self.gain)
        return torch.where(r == 0, self.gain * (1 - self.k * math.pi / 2), full)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        return self.gain * r * s

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        after, slope = self.step(u)
        return self.gain * r * s * after, self.gain * slope

    def step(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\hat u$ and $\dot S / \frac{a^2+b^2}{2}$."""
        if self.k == 0:
            return u, torch.ones_like(u)
        theta, sine = angle(u)
        return u - self.k * bend(u, theta, sine), 1 - self.k * theta

    def step_(self, u: Tensor, t: Tensor | None) -> None:
        r"""The same in place, t multiplied by the slope; for blocks that fit the cache."""
        if self.k == 0:
            return
        if t is not None and _compiles(u) and _compiles(t):
            relu_step.step_(u, t, self.k)
            return
        theta, sine = angle(u)
        u.sub_(bend(u, theta, sine), alpha=self.k)
        if t is not None:
            t.addcmul_(t, theta, value=-self.k)


class Erf(Dual):
    r"""$\mathrm{erf}(x)$: $\hat S = \frac2\pi \arctan\frac{2S}{\sqrt D}$, $\dot S = \frac{4}{\pi\sqrt D}$,
    $D = (1+2q)(1+2q') - 4S^2$ (Williams 1997, eq. 10)."""

    def second_moment(self, r: Tensor) -> Tensor:
        q = r * r
        return 2 / math.pi * torch.atan2(2 * q, torch.sqrt(1 + 4 * q))

    def slope_moment(self, r: Tensor) -> Tensor:
        return 4 / math.pi / torch.sqrt(1 + 4 * r * r)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan2(2 * r * s, torch.sqrt(1 + 2 * (r * r + s * s)))

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        g = r * s
        start = torch.sqrt(1 + 2 * (r * r + s * s))  # sqrt D at u = 0
        root = torch.sqrt(start * start + 4 * g * g * (u * (2 - u)))
        turned = _turn(u, 2 * g, start, root)
        return 2 / math.pi * turned, 4 / math.pi / root


class Sine(Dual):
    r"""$\sin x$: $\hat S = \frac12(e^{-\delta} - e^{-\sigma})$, $\dot S = \frac12(e^{-\delta} + e^{-\sigma})$ with
    $\delta = \frac{q+q'}{2} - S,\ \sigma = \frac{q+q'}{2} + S$; with `even`, $\cos x$, whose two signs are exchanged."""

    def __init__(self, even: bool = False) -> None:
        self.sign = -1.0 if even else 1.0

    def second_moment(self, r: Tensor) -> Tensor:
        q = r * r
        return 0.5 * (1 + torch.exp(-2 * q)) if self.sign < 0 else -0.5 * torch.expm1(-2 * q)

    def slope_moment(self, r: Tensor) -> Tensor:
        return Sine(even=self.sign > 0).second_moment(r)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        near, both = torch.exp(-0.5 * (r - s) ** 2), -2 * r * s
        return 0.5 * near * (1 + torch.exp(both)) if self.sign < 0 else -0.5 * near * torch.expm1(both)

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        gu, covariance = r * s * u, r * s * (1 - u)
        near = torch.exp(-0.5 * (r - s) ** 2)
        lost = -near * torch.expm1(-gu)
        rest = gu - 2 * r * s
        # e^-delta = near e^-gu and e^-sigma = near e^rest; their difference without cancellation where S is small.
        if self.sign > 0:
            return 0.5 * lost * (1 + torch.exp(rest)), 0.5 * near * (torch.exp(-gu) + torch.exp(rest))
        less = torch.exp(-torch.minimum(gu, -rest)) * torch.expm1(-2 * covariance.abs())
        return -0.5 * lost * torch.expm1(rest), -0.5 * near * less * torch.sign(covariance)


class Gaussian(Dual):
    r"""$e^{-x^2}$: $\hat S = D^{-1/2}$, $\dot S = 4 S D^{-3/2}$, $D = (1+2q)(1+2q') - 4S^2$ (Williams 1997, eq. 13)."""

    def second_moment(self, r: Tensor) -> Tensor:
        return torch.rsqrt(1 + 4 * r * r)

    def slope_moment(self, r: Tensor) -> Tensor:
        q = r * r
        return 4 * q * (1 + 4 * q) ** -1.5

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        return torch.rsqrt(1 + 2 * (r * r + s * s))

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        g = r * s
        start = torch.sqrt(1 + 2 * (r * r + s * s))
        more = 4 * g * g * (u * (2 - u))
        root = torch.sqrt(start * start + more)
        return more / (root * start * (root + start)), 4 * g * (1 - u) / root**3


class GELU(Dual):
    r"""$x\,\Phi(x)$: with $D = (1+q)(1+q') - S^2,\ p = (1+q)(1+q'),\ A = \arctan(S/\sqrt D)$,
    $\hat S = \frac S4 + \frac{1}{2\pi}\big(S A + \frac{S^2 + qq'D}{p\sqrt D}\big)$,
    $\dot S = \frac14 + \frac{A}{2\pi} + \frac{S}{2\pi\sqrt D}\big(\frac1D + \frac{2+q+q'}{p}\big)$
    (Tsuchida et al. 2021, "Avoiding kernel fixed points", with fractions combined)."""

    def second_moment(self, r: Tensor) -> Tensor:
        return self.parallel(r, r)

    def slope_moment(self, r: Tensor) -> Tensor:
        return self._slope(r * r, r * r, r * r, torch.sqrt(1 + 2 * r * r))

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        q, p = r * r, s * s
        g, root = r * s, torch.sqrt(1 + q + p)
        return g / 4 + (g * torch.atan2(g, root) + q * p * (2 + q + p) / ((1 + q) * (1 + p) * root)) / (2 * math.pi)

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        q, p, g = r * r, s * s, r * s
        product = (1 + q) * (1 + p)
        start = torch.sqrt(1 + q + p)
        more = g * g * (u * (2 - u))
        root = torch.sqrt(start * start + more)
        angle_lost = g * u * torch.atan2(g, start) + g * (1 - u) * _turn(u, g, start, root)
        ratio_lost = more / (product * root) * (g * g * (2 + q + p) / (start * (root + start)) + 1 - g * g)
        return g * u / 4 + (angle_lost + ratio_lost) / (2 * math.pi), self._slope(g * (1 - u), q, p, root)

    @staticmethod
    def _slope(covariance: Tensor, q: Tensor, p: Tensor, root: Tensor) -> Tensor:
        rest = 1 / (root * root) + (2 + q + p) / ((1 + q) * (1 + p))
        return 0.25 + (torch.atan2(covariance, root) + covariance / root * rest) / (2 * math.pi)


class Exp(Dual):
    r"""$e^x$: $\hat S = \dot S = e^{(q+q')/2 + S}$ (the log-normal's moments)."""

    def second_moment(self, r: Tensor) -> Tensor:
        return torch.exp(2 * r * r)

    def slope_moment(self, r: Tensor) -> Tensor:
        return self.second_moment(r)

    def parallel(self, r: Tensor, s: Tensor) -> Tensor:
        return torch.exp(0.5 * (r + s) ** 2)

    def drop(self, u: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        top, gu = self.parallel(r, s), r * s * u
        return top * -torch.expm1(-gu), top * torch.exp(-gu)


def _turn(u: Tensor, g: Tensor, start: Tensor, root: Tensor) -> Tensor:
    r"""$\arctan\frac{g}{d_0} - \arctan\frac{g(1-u)}{d}$ for $d^2 = d_0^2 + g^2 u(2-u)$, as one angle.

    So that nothing cancels: its sine is proportional to $g d - g(1-u) d_0 = g(d - d_0) + g u d_0$.
    """
    across = g * u * (g * g * (2 - u) / (root + start) + start)
    return torch.atan2(across, root * start + g * g * (1 - u))
