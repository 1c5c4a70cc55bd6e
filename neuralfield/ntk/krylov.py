r"""The dynamics of kernels that are too large to factorise, from products $K V$ alone.

One Lanczos run from $v = y - f_0$ gives an orthonormal basis V and a tridiagonal T with $K V \approx V T$, and then
$g(K) v \approx \lVert v \rVert V g(T) e_1$ for any function: every time, flow or discrete, with or without momentum, from the
same run. $t = \infty$ is a linear system and is left to conjugate gradients, which keep no basis.

The basis is orthogonalised fully (twice per step). Without it the method still converges (Druskin & Knizhnerman 1991;
Musco, Musco & Sidford 2018), but once $\lambda_{\max} t$ is large copies of the top modes fill the basis: for 400 points,
$\lambda_{\max} t \approx 10^6$ and six digits it takes 262 products instead of 106 at a condition number of $2 \cdot
10^4$, and more than 400 instead of 225 at $2 \cdot 10^6$.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice, flag, integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import PARAMETERIZATIONS
from neuralfield.ntk.memory import require
from neuralfield.ntk.modes import Descent, Times, as_times, clip_spectrum, regularized
from neuralfield.ntk.operator import KernelOperator
from neuralfield.ntk.prediction import Prediction
from neuralfield.ntk.problem import Problem
from neuralfield.ntk.solve import conjugate_gradients

_ROOM = 48  # vectors of a basis before it first grows
_POWER_STEPS = 40  # of the run for the largest eigenvalue; kernels' top eigenvalues stand apart


class LanczosRun:
    r"""The recurrence $K V_j = V_j T_j + \beta_j v_{j+1} e_j^T$, for C starting vectors at once, each with its own basis.

    **Arguments**

    - `operator`: K, n x n, symmetric.
    - `start`: v, [n, C]. A zero vector has an empty basis.
    - `orthogonalize`: against the whole basis, twice; else against the last two vectors, as in exact arithmetic.

    **Attributes**

    - `basis`: [C, steps + 1, n], in the operator's dtype. `norms`: of v, [C].
    - `diagonal`, `off_diagonal`: of T, [C, steps] each, float64; the last entry of `off_diagonal` is $\beta_j$.
    """

    def __init__(self, operator: KernelOperator, start: Float[Tensor, "n c"], orthogonalize: bool = True) -> None:
        self.operator, self.orthogonalize = operator, orthogonalize
        self.norms = start.to(torch.float64).norm(dim=0)
        unit = (start / torch.where(self.norms > 0, self.norms, 1.0)).to(operator.device, operator.dtype).T
        self._store = torch.empty(unit.shape[0], _ROOM, unit.shape[1], dtype=operator.dtype, device=operator.device)
        self._store[:, 0] = unit
        self.steps = 0
        self.diagonal = torch.empty(unit.shape[0], 0, dtype=torch.float64)
        self.off_diagonal = torch.empty(unit.shape[0], 0, dtype=torch.float64)

    @property
    def basis(self) -> Float[Tensor, "c steps_1 n"]:
        return self._store[:, : self.steps + 1]

    def extend(self, steps: int) -> None:
        """More steps; each is one product with C vectors."""
        alphas, betas = [self.diagonal], [self.off_diagonal]
        scale = self.diagonal.abs().amax(1) if self.steps else torch.zeros(len(self.norms), dtype=torch.float64)
        for _ in range(steps):
            if self.steps + 2 > self._store.shape[1]:
                self._grow()
            last = self._store[:, self.steps]
            image = self.operator.matmat(last.T.contiguous()).T
            alpha = (last * image).sum(1)
            image = image - alpha[:, None] * last
            if self.steps:
                image = image - betas[-1][:, -1:].to(image) * self._store[:, self.steps - 1]
            if self.orthogonalize:
                for _ in range(2):
                    along = torch.bmm(self.basis, image[:, :, None])
                    image = image - torch.bmm(along.mT, self.basis)[:, 0]
            beta = image.norm(dim=1)
            scale = torch.maximum(scale, torch.maximum(alpha.abs(), beta).cpu().double())
            # An invariant subspace: what remains is rounding, and T ends here.
            ended = beta.cpu().double() <= 10 * torch.finfo(image.dtype).eps * torch.maximum(
                scale, alpha.abs().cpu().double()
            )
            beta = torch.where(ended.to(beta.device), 0.0, beta)
            self._store[:, self.steps + 1] = image / torch.where(beta > 0, beta, math.inf)[:, None]
            alphas.append(alpha[:, None].cpu().double())
            betas.append(beta[:, None].cpu().double())
            self.steps += 1
        self.diagonal, self.off_diagonal = torch.cat(alphas, dim=1), torch.cat(betas, dim=1)

    def _grow(self) -> None:
        outputs, room, n = self._store.shape
        require(
            outputs * (2 * room + room // 2) * n * self._store.element_size(),  # old and new, while one is copied
            f"a Lanczos basis of {room + room // 2} vectors for {outputs} outputs of {n} points",
            "a lower max_iterations or a higher tolerance, or fewer outputs at once",
            self._store.device,
        )
        self._store = torch.cat([self._store, self._store.new_empty(outputs, room // 2, n)], dim=1)

    def eigen(self) -> tuple[Float[Tensor, "c steps"], Float[Tensor, "c steps steps"]]:
        """Ritz values, ascending, and the eigenvectors of T."""
        matrix = torch.diag_embed(self.diagonal)
        if self.steps > 1:
            inner = self.off_diagonal[:, :-1]
            matrix = matrix + torch.diag_embed(inner, 1) + torch.diag_embed(inner, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors


@dataclass
class Evolution:
    """What :func:`evolve` found.

    - `left`: $c_t(K) v$, [T, n, C], float64. `gained`: $(1 - c_t(K)) K^{-1} v$, the same.
    - `error_estimate`: [T], norm of the error of `left`, and of K `gained`, over the norm of v.
    - `steps`: products made. `largest`: the largest Ritz value.
    """

    left: Float[Tensor, "times n c"]
    gained: Float[Tensor, "times n c"]
    error_estimate: Float[Tensor, " times"]
    steps: int
    largest: float


def evolve(
    operator: KernelOperator,
    v: Float[Tensor, "n c"],
    times: Float[Tensor, " times"],
    descent: Descent | None = None,
    *,
    speed: float = 1.0,
    ridge: float = 0.0,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    orthogonalize: bool = True,
) -> Evolution:
    r"""$c_t(K) v$ and $(1 - c_t(K)) K^{-1} v$ for several finite times from one Lanczos run; $e^{-tK} v$ and $(1 -
    e^{-tK}) K^{-1} v$ for the flow.

    It stops when the error estimate of every time is below the tolerance. The estimate is the larger of two numbers: how
    far the values moved since the last look, and the norm of $K\,\text{gained} + \text{left} - v$, which is known exactly
    from T. It covers the values on the training points; on test points the error is that times the norm of
    $K_{test} K^{-1}$ (of order 1 between the training points).

    **Arguments**

    - `operator`: K. `v`: [n, C], one basis per column.
    - `times`: finite, float64. `descent`: the law, the flow when None; `speed`: $\eta r$.
    - `ridge`: $\rho$: K moves as $K + \rho$, see :func:`~neuralfield.ntk.modes.regularized`.
    - `tolerance`, `max_iterations`: the basis takes C (max_iterations + 1) n numbers. A RuntimeWarning tells when the
      tolerance was not reached.
    - `orthogonalize`: fully; see :class:`LanczosRun`.
    """
    descent = Descent() if descent is None else descent
    n, run = operator.shape[0], LanczosRun(operator, v, orthogonalize)
    total = float(run.norms.norm())
    limit = min(max_iterations, n)
    before: tuple[Tensor, Tensor] | None = None
    while True:
        run.extend(min(max(4, run.steps // 6), limit - run.steps))
        values, vectors = run.eigen()
        largest = float(values.max())
        values = clip_spectrum(values, n, operator.dtype)
        factors = regularized(descent, values, times, speed, ridge)
        # g(T) e_1 = S g(theta) S^T e_1, [C, T, steps]
        left, gained = (torch.einsum("cij,ctj,cj->cti", vectors, part, vectors[:, 0]) for part in factors)
        unclosed = run.off_diagonal[:, -1:] * gained[:, :, -1].abs()
        moved = torch.full_like(unclosed, math.inf)
        if before is not None:
            old = torch.nn.functional.pad(before[0], (0, left.shape[2] - before[0].shape[2]))
            moved = (left - old).norm(dim=2)
        if bool((run.off_diagonal == 0).any(1).all()) or run.steps == n:
            moved = torch.zeros_like(moved)  # the bases are complete, the values exact
        per_column = torch.maximum(moved, unclosed) * run.norms.cpu()[:, None]
        estimate = per_column.nan_to_num(nan=0.0, posinf=math.inf).norm(dim=0) / (total if total > 0 else 1.0)
        estimate = torch.where(torch.tensor(total) > 0, estimate, 0.0)
        before = (left, gained)
        if float(estimate.max()) <= tolerance or run.steps >= limit:
            break
    if float(estimate.max()) > tolerance and run.steps < n:
        warnings.warn(
            f"Lanczos stopped after {run.steps} products with an estimated relative error of {float(estimate.max()):.1e} at "
            f"t = {float(times[int(estimate.argmax())]):g}, above tolerance={tolerance:g}; raise it or max_iterations",
            RuntimeWarning,
            stacklevel=2,
        )
    basis = run.basis[:, : run.steps]
    full = [
        torch.bmm((part * run.norms.cpu()[:, None, None]).to(basis), basis).permute(1, 2, 0).to(torch.float64)
        for part in (left, gained)
    ]
    return Evolution(full[0], full[1], estimate, run.steps, largest)


def largest_eigenvalue(operator: KernelOperator, steps: int = _POWER_STEPS, seed: int = 0) -> float:
    """The largest eigenvalue, by Lanczos from a random vector; from below, for kernels to many digits."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(operator.shape[0], 1, generator=generator, dtype=torch.float64)
    run = LanczosRun(operator, start.to(operator.device))
    run.extend(min(steps, operator.shape[0]))
    return max(float(run.eigen()[0].max()), 0.0)


def predict_matrix_free(
    k_train: KernelOperator,
    k_test: KernelOperator | None,
    y: Tensor,
    t: Times,
    f0: Tensor | None = None,
    f0_test: Tensor | None = None,
    *,
    descent: Descent,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    check_stability: bool = True,
    parameterization: str | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
) -> Prediction:
    """:func:`neuralfield.ntk.dynamics.predict` for operators; the arguments are described there."""
    n = k_train.shape[0]
    if not k_train.symmetric:
        raise ConfigError(f"k_train must be the kernel of the training points with themselves; got {k_train!r}")
    if k_test is not None and k_test.shape[1] != n:
        raise ConfigError(f"k_test must be [m, {n}] beside k_train {k_train.shape}; got {k_test.shape}")
    if parameterization is not None:
        choice("parameterization", parameterization, PARAMETERIZATIONS)
    tolerance = number("tolerance", tolerance, 0, above=True)
    max_iterations = integer("max_iterations", max_iterations, 1)
    ridge = number("ridge", ridge, 0) * (k_train.trace() / n if flag("ridge_relative", ridge_relative) else 1.0)
    test_rows = None if k_test is None else k_test.shape[0]
    problem = Problem((n,), y, f0, f0_test, test_rows, k_train.dtype, k_train.device)
    times, single = as_times(t, descent.method)
    largest = largest_eigenvalue(k_train)
    if flag("check_stability", check_stability):
        descent.require_stable(largest + ridge, n, problem.n_outputs)
    left = torch.empty(len(times), n, problem.columns, dtype=torch.float64, device=k_train.device)
    gained = torch.empty_like(left)
    finite, estimate, solvers = torch.isfinite(times), 0.0, []
    if bool(finite.any()):
        found = evolve(
            k_train, problem.error, times[finite], descent, speed=descent.speed(n, problem.n_outputs), ridge=ridge,
            tolerance=tolerance, max_iterations=max_iterations,
        )  # fmt: skip
        left[finite], gained[finite] = found.left, found.gained
        estimate = float(found.error_estimate.max())
        solvers.append("lanczos")
    if not bool(finite.all()):
        solution = conjugate_gradients(
            k_train, problem.error, ridge, tolerance=tolerance, max_iterations=max_iterations
        )  # fmt: skip
        gained[~finite] = solution.x
        left[~finite] = ridge * solution.x  # y - f = rho a, up to the residual
        estimate = max(estimate, solution.residual)
        solvers.append("conjugate gradients")
    test: Tensor | None = None
    if k_test is not None:
        stacked = gained.permute(1, 0, 2).reshape(n, -1).to(k_test.device, k_test.dtype)
        values = k_test.matmat(stacked).reshape(k_test.shape[0], len(times), problem.columns)
        test = values.permute(1, 0, 2).to(torch.float64)
    return Prediction.build(
        problem, times, single, left, test, descent, ridge, largest, parameterization, ", ".join(solvers), estimate
    )
