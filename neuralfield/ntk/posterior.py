r"""Distributions over functions: the Gaussian process of a kernel, and the ensemble of trained wide networks.

The first is Bayesian: a prior with covariance K, conditioned on noisy values. The second is what training gives: draw many
wide networks, descend each, and look at their spread, which needs the covariance at initialisation (NNGP) and the kernel
that they descend with (NTK). The two differ (Lee et al. 2019, section 2.3), even at infinite time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import finite
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.modes import Times, as_times

COVARIANCES = ("full", "diagonal")


@dataclass(repr=False)
class Posterior:
    r"""Normal distributions at m test points; outputs are independent and share the covariance.

    - `mean`: [m, C] or [m] for y of shape [n]; a leading time axis where several times were asked for.
    - `variance`: [m], of the function (add the noise's for that of a measurement), at least 0; a time axis likewise.
    - `covariance`: [m, m], or None when only its diagonal was asked for; a time axis likewise.
    - `description`: what it is the distribution of.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor | None
    description: str

    @property
    def std(self) -> Tensor:
        """Square root of the variance."""
        return self.variance.sqrt()

    def __repr__(self) -> str:
        covariance = None if self.covariance is None else tuple(self.covariance.shape)
        return (
            f"Posterior({self.description}, mean={tuple(self.mean.shape)}, covariance={covariance}, {self.mean.dtype})"
        )


def gp_posterior(
    k_train: Tensor,
    k_test: Tensor,
    k_test_test: Tensor,
    y: Tensor,
    noise: float = 0.0,
    *,
    covariance: str = "full",
) -> Posterior:
    r"""The Gaussian process conditioned on $y = f(x) + \varepsilon,\ \varepsilon \sim \mathcal{N}(0, \sigma^2)$:

    $$\mu = K_{*n} (K + \sigma^2 I)^{-1} y, \qquad \Sigma = K_{**} - K_{*n} (K + \sigma^2 I)^{-1} K_{n*}$$

    (Rasmussen & Williams 2006, equations 2.23 and 2.24). With the NNGP kernel these are infinitely wide Bayesian networks;
    the mean with the NTK is what gradient descent from $f_0 = 0$ tends to.

    **Arguments**

    - `k_train`: K, [n, n]. `k_test`: $K_{*n}$, [m, n].
    - `k_test_test`: $K_{**}$, [m, m]; with ``covariance="diagonal"`` its diagonal, [m], is enough.
    - `y`: [n] or [n, C].
    - `noise`: $\sigma^2 \ge 0$, the variance, not the standard deviation. With 0 a singular K is inverted on its range.
    - `covariance`: "full" or "diagonal", which takes no m x m matrix.

    Raises :class:`~neuralfield.errors.ConfigError` for shapes that do not fit, numbers that are not finite, and kernels that
    are not positive semidefinite.
    """
    choice("covariance", covariance, COVARIANCES)
    dynamics = Dynamics(k_train, k_test, ridge=number("noise", noise, 0))
    if len(dynamics.shape) == 2:
        raise ConfigError(f"gp_posterior takes a kernel [n, n] for all outputs; got {tuple(k_train.shape)}; reshape it")
    prior = _prior(k_test_test, len(k_test), covariance)
    mean = dynamics.predict(y, float("inf")).test
    assert mean is not None
    half, rest = dynamics.k_test, prior
    assert half is not None
    half = half.to(torch.float64)
    factor, failed = torch.linalg.cholesky_ex(_shifted(dynamics))
    pivots = factor.diagonal()
    eps = torch.finfo(torch.float64).eps
    if not int(failed) and float(pivots.min() / pivots.max()) ** 2 > dynamics.n * eps:
        explained = torch.linalg.solve_triangular(factor, half.T, upper=False)
    else:
        values, vectors = dynamics.eigenvalues, dynamics.eigenvectors
        kept = values > 0
        explained = (vectors[:, kept].T @ half.T) / (values[kept] + dynamics.ridge).sqrt()[:, None]
    if covariance == "full":
        full = rest - explained.T @ explained
        variance = full.diagonal()
    else:
        full, variance = None, rest - explained.square().sum(0)
    description = f"Gaussian process given {dynamics.n} values, noise variance {noise:g}"
    return _build(mean, variance, full, description, mean.dtype)


def ensemble(
    dynamics: Dynamics,
    nngp_train: Tensor,
    nngp_test: Tensor,
    nngp_test_test: Tensor,
    y: Tensor,
    t: Times,
    *,
    covariance: str = "full",
) -> Posterior:
    r"""Infinitely wide networks drawn at random, each trained for a time t: their mean and covariance on test points.

    With $A_t = \Theta_{*n} \Theta^{-1} (I - c_t(\Theta))$ (:meth:`Dynamics.smoother`) and NNGP kernels K,

    $$\mu = A_t\,y, \qquad \Sigma = K_{**} + A_t K A_t^T - A_t K_{n*} - K_{*n} A_t^T$$

    (Lee et al. 2019, equations 15 and 16). It is exact for models linear in their parameters, for any law of descent.

    **Arguments**

    - `dynamics`: of the NTK, with its test points; brings loss, learning rate, method and ridge.
    - `nngp_train`: K, [n, n]. `nngp_test`: $K_{*n}$, [m, n]. `nngp_test_test`: $K_{**}$, [m, m], or its diagonal [m] with
      ``covariance="diagonal"``.
    - `y`: [n] or [n, C]. `t`: one time or several.
    - `covariance`: "full" or "diagonal".

    Raises :class:`~neuralfield.errors.ConfigError` for shapes that do not fit.
    """
    choice("covariance", covariance, COVARIANCES)
    if dynamics.k_test is None or len(dynamics.shape) == 2:
        raise ConfigError("the ensemble needs Dynamics(k_train [n, n], k_test [m, n]) with test points")
    m, n = dynamics.k_test.shape
    for name, kernel, shape in (("nngp_train", nngp_train, (n, n)), ("nngp_test", nngp_test, (m, n))):
        if not isinstance(kernel, Tensor) or tuple(kernel.shape) != shape:
            got = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(kernel).__name__
            raise ConfigError(f"{name} must have the shape {shape} beside these dynamics; got {got}")
    device = dynamics.k_train.device
    prior = _prior(nngp_test_test, m, covariance).to(device)
    inner = finite("nngp_train", nngp_train.detach()).to(device, torch.float64)
    cross = finite("nngp_test", nngp_test.detach()).to(device, torch.float64)
    prediction = dynamics.predict(y, t)
    assert prediction.test is not None
    times, single = as_times(t, dynamics.descent.method)
    columns = y.shape[1] if y.ndim == 2 else 1
    variances, covariances = [], []
    for time in times:
        smoother = dynamics.smoother(float(time), columns)
        # A K A^T - A K_n* - K_*n A^T, in one product with the smoother
        half = smoother @ inner - 2 * cross
        if covariance == "full":
            product = half @ smoother.T
            covariances.append(prior + (product + product.T) / 2)
            variances.append(covariances[-1].diagonal())
        else:
            variances.append(prior + (half * smoother).sum(1))
    variance = variances[0] if single else torch.stack(variances)
    full = None if not covariances else (covariances[0] if single else torch.stack(covariances))
    description = f"ensemble of trained networks, {dynamics.descent}"
    return _build(prediction.test, variance, full, description, prediction.dtype)


def _build(mean: Tensor, variance: Tensor, full: Tensor | None, description: str, dtype: torch.dtype) -> Posterior:
    # A variance below zero is rounding: a test point that is a training point.
    return Posterior(mean, variance.clamp(min=0).to(dtype), None if full is None else full.to(dtype), description)


def _prior(kernel: Tensor, m: int, covariance: str) -> Float[Tensor, "*m_m"]:
    got = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(kernel).__name__
    if covariance == "diagonal" and got == (m,):
        return finite("k_test_test", kernel.detach()).to(torch.float64)
    if got != (m, m):
        diagonal = f" or ({m},)" if covariance == "diagonal" else ""
        raise ConfigError(f"the kernel of the test points must have the shape {(m, m)}{diagonal}; got {got}")
    matrix = finite("k_test_test", kernel.detach()).to(torch.float64)
    return matrix.diagonal() if covariance == "diagonal" else matrix


def _shifted(dynamics: Dynamics) -> Tensor:
    matrix = dynamics.k_train.to(torch.float64, copy=True)
    matrix.diagonal().add_(dynamics.ridge)
    return matrix
