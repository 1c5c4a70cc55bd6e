"""The whole spectrum of a kernel too large for an eigendecomposition: stochastic Lanczos quadrature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.lanczos import Eigenpairs, lanczos
from neuralfield.ntk.memory import require
from neuralfield.ntk.operator import KernelOperator, as_operator
from neuralfield.ntk.positive import floor_of, require_positive


@dataclass(frozen=True)
class Estimate:
    """A number known by sampling.

    - `value`: the mean over probes.
    - `standard_error`: of that mean; 0 when nothing was sampled.
    - `probes`: how many random vectors.
    """

    value: float
    standard_error: float
    probes: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where the true number lies with this probability (Student's t for so few probes)."""
        from scipy.special import stdtrit

        number("confidence", confidence, 0, 1 - 1e-9, above=True)
        half = float(stdtrit(self.probes - 1, 0.5 + confidence / 2)) * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.standard_error:.1g}"


@dataclass(frozen=True)
class SpectralDensity:
    r"""The distribution of a kernel's eigenvalues: the largest exactly, the others as a quadrature per probe.

    With $P$ the projector beside the m exact eigenvectors and probes z on the sphere of its range,
    $\operatorname{tr} f(K) = \sum_{i \le m} f(\lambda_i) + (n - m)\, \mathbb{E}_z\, z^\top f(P K P) z$, and each
    $z^\top f z = \sum_j w_j f(\theta_j)$ by the Gauss quadrature of s Lanczos steps, exact for polynomials of degree
    2 s - 1 (Ubaru, Chen & Saad 2017, algorithm 1; the deflation: Gambhir, Stathopoulos & Orginos 2017).

    - `top`: the m exact eigenvalues, descending.
    - `nodes`, `weights`: $\theta_j$ and $w_j$ of each probe, ascending; weights sum to 1.
    - `n`, `trace`: of K, exact.
    """

    top: Float[Tensor, " m"]
    nodes: Float[Tensor, "probes steps"]
    weights: Float[Tensor, "probes steps"]
    n: int
    trace: float
    name: str = ""

    def sum(self, f: Callable[[Tensor], Tensor]) -> Estimate:
        r"""$\operatorname{tr} f(K) = \sum_i f(\lambda_i)$.

        The mean of the eigenvalues is known (the trace), and the estimate is corrected by what it gets wrong in it: a control
        variate, which makes linear f exact and leaves of others only the variance of their non-linear part.

        **Arguments**

        - `f`: maps eigenvalues to numbers, elementwise. Nodes that rounding made negative are passed as 0; the
          logarithm is not finite there: see :meth:`log_determinant`.

        Raises ConfigError where f is not finite on the spectrum.
        """
        rest = self.n - len(self.top)
        exact = float(f(self.top.clamp_min(0)).sum()) if len(self.top) else 0.0
        if rest == 0:
            return Estimate(exact, 0.0, len(self.nodes))
        nodes = self.nodes.clamp_min(0)
        values = f(nodes)
        if not bool(torch.isfinite(values[self.weights > 0]).all()) or not math.isfinite(exact):
            raise ConfigError(
                "f is not finite on the whole spectrum, which reaches down to "
                f"{float(nodes[self.weights > 0].min()):.3g}; add a ridge: f(lambda + r)"
            )
        values = torch.where(self.weights > 0, values, 0.0)
        means, firsts = (self.weights * values).sum(1), (self.weights * nodes).sum(1)
        # The slope of f against lambda over the density itself: independent of how well the probes hit the trace.
        centred = nodes - firsts.mean()
        variance = float((self.weights * centred**2).mean(0).sum())
        slope = float((self.weights * values * centred).mean(0).sum()) / variance if variance > 0 else 0.0
        mean = (self.trace - float(self.top.sum())) / rest
        samples = rest * (means - slope * (firsts - mean))
        return Estimate(exact + float(samples.mean()), _standard_error(samples), len(samples))

    def log_determinant(self, ridge: float) -> Estimate:
        r"""$\log\det(K + r I)$."""
        ridge = number("ridge", ridge, 0, above=True)
        return self.sum(lambda x: torch.log(x + ridge))

    def effective_dimension(self, ridge: float) -> Estimate:
        r"""$\operatorname{tr} K (K + r I)^{-1}$: how many modes a ridge r leaves (Zhang 2005)."""
        ridge = number("ridge", ridge, 0, above=True)
        return self.sum(lambda x: x / (x + ridge))

    def entropy_rank(self) -> Estimate:
        r"""$\exp(-\sum p_i \log p_i)$ with $p_i = \lambda_i / \operatorname{tr} K$ (Roy & Vetterli 2007)."""
        trace = self.trace
        entropy = self.sum(lambda x: -torch.special.xlogy(x / trace, x / trace))
        rank = math.exp(entropy.value)
        return Estimate(rank, rank * entropy.standard_error, entropy.probes)

    def count_above(self, threshold: float) -> Estimate:
        """How many eigenvalues are larger: a step, which a quadrature sees blurred to its nodes' distance."""
        return self.sum(lambda x: (x > threshold).to(x.dtype))

    def histogram(self, edges: Float[Tensor, " bins"]) -> tuple[Tensor, Tensor]:
        """How many eigenvalues lie between neighbouring edges (ascending), and the standard errors."""
        found = [self.sum(_indicator(low, high)) for low, high in itertools.pairwise(edges.tolist())]
        return torch.tensor([e.value for e in found]), torch.tensor([e.standard_error for e in found])

    def __repr__(self) -> str:
        probes, steps = self.nodes.shape
        of = f" of {self.name}" if self.name else ""
        return f"SpectralDensity({probes} probes x {steps} steps, {len(self.top)} of {self.n} eigenvalues exact{of})"


def spectral_density(
    kernel: KernelOperator | Tensor,
    deflate: int | Eigenpairs | Any = 32,
    probes: int = 10,
    steps: int = 60,
    seed: int = 0,
) -> SpectralDensity:
    r"""Estimate the density of all eigenvalues from products with random vectors.

    The first eigenvalues of a kernel hold much of its trace, and probes see them with large variance: they are computed
    exactly and projected out.

    **Arguments**

    - `kernel`: symmetric, positive semidefinite.
    - `deflate`: how many top eigenpairs to compute first; or pairs at hand: :class:`~neuralfield.ntk.lanczos.Eigenpairs`
      or a :class:`~neuralfield.ntk.spectrum.Spectrum` of the same kernel.
    - `probes`: random vectors; errors fall as one over the square root.
    - `steps`: of Lanczos for each: the quadrature's nodes. More for functions that are steep near 0 (small ridges).
    - `seed`: of the probes.

    Memory: `steps` + 3 vectors beside the deflated ones. Raises ConfigError for a kernel that is not symmetric, or not
    positive semidefinite beyond rounding.
    """
    kernel = as_operator(kernel)
    n = kernel.shape[0]
    if not kernel.symmetric:
        raise ConfigError(f"a spectral density needs a symmetric kernel; this one is {kernel!r}")
    integer("probes", probes, 2), integer("steps", steps, 2)
    if isinstance(deflate, int):
        count = min(integer("deflate", deflate, 0), n)
        deflate = lanczos(kernel, count, seed=seed) if count else None
    top = torch.zeros(0, dtype=torch.float64) if deflate is None else deflate.eigenvalues.to("cpu", torch.float64)
    known = None if deflate is None else deflate.eigenvectors.to(kernel.device, kernel.dtype)
    if known is not None and known.shape != (n, len(top)):
        raise ConfigError(f"deflate holds eigenvectors of shape {tuple(known.shape)}, not of this kernel: {kernel!r}")
    rest = n - len(top)
    steps = max(1, min(steps, rest))
    require(steps * n * kernel.dtype.itemsize, f"{steps} vectors of {n} numbers", "fewer steps", kernel.device)
    generator = torch.Generator("cpu").manual_seed(seed + 1)  # not the starting vectors of the deflation
    nodes = torch.zeros(probes, steps, dtype=torch.float64)
    weights = torch.zeros(probes, steps, dtype=torch.float64)
    for probe in range(probes if rest else 0):
        z = torch.randn(n, generator=generator).to(kernel.device, kernel.dtype)
        theta, w = _quadrature(kernel, z, known, steps)
        nodes[probe, : len(theta)], weights[probe, : len(w)] = theta, w
    trace = kernel.trace()
    if rest:
        highest = max([float(nodes.max()), *top.tolist()])
        lowest = float(nodes[weights > 0].min())
        require_positive(lowest, highest, floor_of(kernel.dtype, n, trace / n, highest), repr(kernel))
    return SpectralDensity(top, nodes, weights, n, trace, repr(kernel))


def _quadrature(kernel: KernelOperator, z: Tensor, known: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of one probe: Lanczos with full reorthogonalisation, beside the known eigenvectors."""
    basis = torch.empty(steps, len(z), dtype=z.dtype, device=z.device)
    diagonal, beside = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    z = _beside(_beside(z, known), known)
    basis[0] = z / z.norm()
    largest, done = 0.0, steps
    for j in range(steps):
        w = _beside(kernel.matvec(basis[j]), known)
        diagonal[j] = float(basis[j] @ w)
        for _ in range(2):
            w = _beside(w - (basis[: j + 1] @ w) @ basis[: j + 1], known)
        beside[j] = float(w.norm())
        largest = max(largest, abs(float(diagonal[j])), float(beside[j]))
        if j + 1 == steps:
            break
        if float(beside[j]) <= 32 * torch.finfo(z.dtype).eps * largest:  # the probe's Krylov space is complete
            done = j + 1
            break
        basis[j + 1] = w / beside[j].to(w.dtype)
    tridiagonal = torch.diag(diagonal[:done])
    inner = beside[: done - 1]
    theta, vectors = torch.linalg.eigh(tridiagonal + torch.diag(inner, 1) + torch.diag(inner, -1))
    return theta, vectors[0] ** 2


def _beside(w: Tensor, known: Tensor | None) -> Tensor:
    return w if known is None else w - known @ (known.T @ w)


def _standard_error(samples: Tensor) -> float:
    return float(samples.std(unbiased=True)) / math.sqrt(len(samples))


def _indicator(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: ((x >= low) & (x < high)).to(x.dtype)
