r"""Linear systems with a kernel, $(K + \rho) x = b$: what is left of the dynamics at $t = \infty$."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.ntk.operator import KernelOperator


def cholesky_solve(matrix: Tensor, ridge: float, right: Tensor) -> Tensor | None:
    """(K + ridge)^-1 right, or None where K is singular to rounding."""
    shifted = matrix.to(torch.float64, copy=True)
    shifted.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    pivots = factor.diagonal()
    if int(failed) or float(pivots.min() / pivots.max()) ** 2 < len(matrix) * torch.finfo(torch.float64).eps:
        return None
    return torch.cholesky_solve(right, factor)


def product(matrix: Float[Tensor, "m n"], columns: Float[Tensor, "t n c"]) -> Float[Tensor, "t m c"]:
    """One matrix product for all times, in float64; a matrix of another dtype is converted by blocks of rows."""
    t, n, c = columns.shape
    stacked = columns.permute(1, 0, 2).reshape(n, t * c)
    rows = len(matrix) if matrix.dtype == torch.float64 else 4096
    parts = [block.to(torch.float64) @ stacked for block in matrix.split(max(rows, 1))]
    return torch.cat(parts).reshape(len(matrix), t, c).permute(1, 0, 2)


@dataclass
class Solution:
    """What :func:`conjugate_gradients` found: `x`, [n, C]; the relative residual, the largest of the columns; products."""

    x: Float[Tensor, "n c"]
    residual: float
    steps: int


def conjugate_gradients(
    operator: KernelOperator,
    b: Float[Tensor, "n c"],
    ridge: float = 0.0,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    rank: int = 64,
    seed: int = 0,
) -> Solution:
    r"""$(K + \rho)^{-1} b$ for several columns at once, each with its own recurrence; one product per step.

    Preconditioned by a Nyström approximation of K of small rank from one product with random vectors (Frangella, Tropp &
    Udell 2023, section 5): $P^{-1} = (\lambda_k + \rho)\, U (\Lambda + \rho)^{-1} U^T + I - U U^T$, which takes the top modes
    out of the condition number.

    **Arguments**

    - `operator`: K, positive semidefinite. `b`: [n, C]. `ridge`: $\rho \ge 0$.
    - `tolerance`: of $\lVert b - (K + \rho) x \rVert / \lVert b \rVert$, column by column, checked by
      a product at the end. `max_iterations`: a RuntimeWarning tells when they were not enough.
    - `rank`: of the preconditioner, 0 for none. `seed`: of its random vectors.
    """
    right = b.to(operator.device, operator.dtype)
    scale = right.norm(dim=0)
    scale = torch.where(scale > 0, scale, 1.0)
    precondition = _nystrom(operator, min(rank, operator.shape[0] // 4), ridge, seed)
    x, residual = torch.zeros_like(right), right.clone()
    preconditioned = precondition(residual)
    direction = preconditioned.clone()
    energy = (residual * preconditioned).sum(0)
    steps = 0
    for _ in range(max_iterations):
        # Columns that are done stand still, so that rounding does not stir them.
        active = residual.norm(dim=0) / scale > 0.5 * tolerance
        if not bool(active.any()):
            break
        image = operator.matmat(direction) + ridge * direction
        steps += 1
        curvature = (direction * image).sum(0)
        length = torch.where(active & (curvature > 0), energy / torch.where(curvature > 0, curvature, 1.0), 0.0)
        x += length * direction
        residual -= length * image
        preconditioned = precondition(residual)
        fresh = (residual * preconditioned).sum(0)
        direction = (
            preconditioned + torch.where(energy > 0, fresh / torch.where(energy > 0, energy, 1.0), 0.0) * direction
        )
        energy = fresh
    final = float(((right - operator.matmat(x) - ridge * x).norm(dim=0) / scale).max())
    if final > tolerance:
        warnings.warn(
            f"conjugate gradients stopped after {steps} products with a relative residual of {final:.1e}, above "
            f"tolerance={tolerance:g}; add a ridge, raise max_iterations or the tolerance, or use float64",
            RuntimeWarning,
            stacklevel=2,
        )
    return Solution(x.to(torch.float64), final, steps)


def _nystrom(operator: KernelOperator, rank: int, ridge: float, seed: int) -> Callable[[Tensor], Tensor]:
    """The map r -> P^-1 r."""
    if rank < 1:
        return lambda residual: residual
    generator = torch.Generator().manual_seed(seed)
    test = torch.linalg.qr(torch.randn(operator.shape[0], rank, generator=generator, dtype=torch.float64))[0]
    test = test.to(operator.device, operator.dtype)
    sketch = operator.matmat(test).to(torch.float64)
    test = test.to(torch.float64)
    # A shift of the size of rounding keeps the small matrix positive definite, and is taken off again.
    shift = math.sqrt(operator.shape[0]) * torch.finfo(operator.dtype).eps * float(sketch.norm())
    sketch = sketch + shift * test
    small = test.T @ sketch
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    keep = values > shift / 2
    root = sketch @ (vectors[:, keep] * values[keep].rsqrt())
    directions, singular, _ = torch.linalg.svd(root, full_matrices=False)
    modes = (singular.square() - shift).clamp(min=0)
    lowest = float(modes[-1]) + ridge
    if lowest <= 0:  # K has a smaller rank than the approximation
        lowest = max(float(modes[modes > 0].min()) if bool((modes > 0).any()) else 1.0, shift)
    weights = lowest / (modes + ridge).clamp(min=lowest) - 1
    directions, weights = directions.to(operator.dtype), weights.to(operator.dtype)
    return lambda residual: residual + directions @ (weights[:, None] * (directions.T @ residual))
