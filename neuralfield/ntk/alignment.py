"""How well a kernel fits a target: kernel-target alignment, and the norms that it needs."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import finite
from neuralfield.ntk.operator import Dense, KernelOperator, as_operator
from neuralfield.ntk.slq import Estimate

_PROBES = 32


def frobenius_squared(kernel: KernelOperator | Tensor, known: Any = None, seed: int = 0) -> Estimate:
    r"""$\lVert K \rVert_F^2 = \operatorname{tr} K^2 = \sum_i \lambda_i^2$, exact where the operator knows it.

    Else the known eigenvalues exactly and $\lVert K P z \rVert^2$ for 32 random vectors beside them, which is accurate
    because little is left there (Hutch++, Meyer et al. 2021).

    **Arguments**

    - `known`: eigenpairs of the same kernel, with `eigenvalues` and `eigenvectors`, for the estimate.
    - `seed`: of the random vectors.
    """
    kernel = as_operator(kernel)
    if isinstance(kernel, Dense):
        return Estimate(float(kernel.matrix.norm(dtype=torch.float64)) ** 2, 0.0, 0)
    if hasattr(kernel, "frobenius"):  # Toeplitz and blocked operators know it
        return Estimate(float(kernel.frobenius()) ** 2, 0.0, 0)
    n = kernel.shape[1]
    z = torch.randn(_PROBES, n, generator=torch.Generator("cpu").manual_seed(seed)).to(kernel.device, kernel.dtype).T
    exact = 0.0
    if known is not None:
        q = known.eigenvectors.to(kernel.device, kernel.dtype)
        z = z - q @ (q.T @ z)
        exact = float((known.eigenvalues.to(torch.float64) ** 2).sum())
    samples = kernel.matmat(z).to(torch.float64).square().sum(0)
    error = float(samples.std()) / math.sqrt(_PROBES)
    return Estimate(exact + float(samples.mean()), error, _PROBES)


def alignment(kernel: KernelOperator | Tensor, target: Tensor, centred: bool = False, known: Any = None) -> float:
    r"""Kernel-target alignment $A = \dfrac{\langle K, Y Y^\top \rangle_F}{\lVert K \rVert_F\, \lVert Y Y^\top \rVert_F}$,
    from 0 to 1: the cosine between the kernel and the one that would be best for this target (Cristianini et al. 2001).

    `centred` replaces K by $H K H$ and Y by $H Y$ with $H = I - 1 1^\top / n$ (Cortes, Mohri & Rostamizadeh 2012,
    definition 4), so that neither a constant in the kernel nor the target's mean counts: compare kernels by this one.

    **Arguments**

    - `kernel`: K, symmetric.
    - `target`: y, [n] or [n, channels]; several channels together, as columns of Y.
    - `centred`: see above.
    - `known`: top eigenpairs, which make the norm of a kernel known by products alone more accurate.

    Raises ConfigError for a target of another length, not finite, zero, or constant with `centred`.
    """
    kernel = as_operator(kernel)
    if not kernel.symmetric:
        raise ConfigError(f"alignment needs a symmetric kernel; this one is {kernel!r}")
    y = target_matrix(target, kernel.shape[0]).to(kernel.device)
    if centred:
        y = y - y.mean(0)
        if float(y.abs().max()) <= 1e-12 * float(target.abs().max()):
            raise ConfigError("target is constant, so its centred alignment is not defined")
    n = kernel.shape[0]
    # One scale for all: <K, Y Y^T> and the norm change alike, and float32 products cannot overflow.
    y = y / y.norm()
    one = torch.full((n, 1), 1 / math.sqrt(n), dtype=torch.float64, device=kernel.device)
    image = kernel.matmat(torch.cat([y, one], 1).to(kernel.dtype)).to(torch.float64)
    overlap = float((y * image[:, :-1]).sum())
    squared = frobenius_squared(kernel, known).value
    if centred:  # |H K H|^2 = |K|^2 - 2 |K u|^2 + (u.K u)^2 for the unit vector u of ones
        row = image[:, -1]
        squared += float(one[:, 0] @ row) ** 2 - 2 * float(row @ row)
    return overlap / (math.sqrt(max(squared, torch.finfo(torch.float64).tiny)) * float((y.T @ y).norm()))


def target_matrix(target: Tensor, n: int) -> Float[Tensor, "n channels"]:
    """A target as columns in float64; raises ConfigError if it has another length, is not finite or is zero."""
    if not isinstance(target, Tensor) or target.ndim not in (1, 2) or len(target) != n or target.is_complex():
        got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise ConfigError(f"target must be a tensor of shape [{n}] or [{n}, channels], one row per point; got {got}")
    y = finite("target", target.detach()).to(torch.float64).reshape(n, -1)
    if not bool((y != 0).any()):
        raise ConfigError("target is zero everywhere; it has no energy to explain")
    return y
