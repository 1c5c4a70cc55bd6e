r"""What gradient descent on squared loss will do to a linear(ised) model, in closed form from its kernel.

    dynamics = ntk.Dynamics(k_train, k_test, learning_rate=1e-3, method="gd", momentum=0.9)
    prediction = dynamics.predict(y, [10, 100, 1000, math.inf], f0, f0_test=f0_test)
    prediction.test           # [4, m, C]
    prediction.psnr(y_test)   # [4], dB

One factorisation serves any times, targets and step sizes (:meth:`Dynamics.replace`). :func:`predict` is the same in one
call, and takes operators, for which it needs products alone.
"""

from __future__ import annotations

import copy
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice, flag, number
from neuralfield.errors import ConfigError
from neuralfield.ntk import memory
from neuralfield.ntk.conventions import PARAMETERIZATIONS
from neuralfield.ntk.krylov import largest_eigenvalue, predict_matrix_free
from neuralfield.ntk.modes import Descent, Times, as_times, clip_spectrum, regularized
from neuralfield.ntk.operator import Dense, KernelOperator, as_operator
from neuralfield.ntk.prediction import ModeTable, Prediction
from neuralfield.ntk.problem import Problem, kernel_matrices
from neuralfield.ntk.solve import cholesky_solve, product

DENSE_LIMIT = 8192
"""Points up to which :func:`predict` factorises a matrix; beyond, Lanczos on its products takes less time and memory."""


class Dynamics:
    r"""Squared loss descended from $f_0$, on training and test points, from one eigendecomposition $K = Q \Lambda Q^T$.

    $$f_t = f_0 + K Q\,\frac{1 - c_t(\Lambda)}{\Lambda}\,Q^T (y - f_0), \qquad
      f_t^{test} = f_0^{test} + K_{test} Q\,\frac{1 - c_t(\Lambda)}{\Lambda}\,Q^T (y - f_0)$$

    with $c_t = e^{-\eta r \Lambda t}$ for the flow, $(1 - \eta r \Lambda)^t$ for gradient descent, and the exact solutions
    with momentum (:class:`~neuralfield.ntk.modes.Descent`); $c_\infty = 0$: kernel regression (Jacot et al. 2018, section
    5; Lee et al. 2019, equations 8 to 11). With a ridge $\rho$, $\Lambda$ in $c_t$ and below the fraction is $\Lambda +
    \rho$: the loss has the penalty $\frac{\rho r}{2} \lVert\theta - \theta_0\rVert^2$ as well.

    The factorisation is made in float64 whatever the kernel's dtype (float32 would take half the time, and its rounding
    would be amplified by the condition number, which is large for images); results come in the input's dtype. Modes whose
    eigenvalue is zero to rounding do not move.

    **Arguments**

    - `k_train`: kernel of the n training points, [n, n], symmetric and positive semidefinite; or full over outputs,
      [n, C, n, C].
    - `k_test`: kernel of m test points with the training points, [m, n] or [m, C, n, C]; None when only training values
      are wanted.
    - `method`, `learning_rate`, `momentum`, `loss`: see :class:`~neuralfield.ntk.modes.Descent`.
    - `ridge`: $\rho \ge 0$; with `ridge_relative` in units of the mean of the kernel's diagonal.
    - `check_stability`: refuse a step size at which real gradient descent diverges. The rule: a `learning_rate` that is
      given is a step size and must be stable, for the flow too; None (flow) claims none. Without the check, the result
      tells by `discrete_stable`.
    - `parameterization`: "ntk" or "standard", to stand in the results; it changes no number here.

    Raises :class:`~neuralfield.errors.ConfigError` for shapes that do not fit (with the shapes), numbers that are not
    finite, a matrix that is not symmetric or not positive semidefinite beyond rounding, and an unstable step size, with
    the largest stable one; :class:`~neuralfield.errors.DeviceError` when the factorisation would not fit in memory.
    """

    def __init__(
        self,
        k_train: Tensor,
        k_test: Tensor | None = None,
        *,
        method: str = "flow",
        learning_rate: float | None = None,
        momentum: float = 0.0,
        loss: str = "sum",
        ridge: float = 0.0,
        ridge_relative: bool = False,
        check_stability: bool = True,
        parameterization: str | None = None,
    ) -> None:
        self.descent = Descent(method, learning_rate, momentum, loss)
        self.check_stability = flag("check_stability", check_stability)
        self.parameterization = parameterization
        if parameterization is not None:
            choice("parameterization", parameterization, PARAMETERIZATIONS)
        self.shape, self.k_train, self.k_test = kernel_matrices(k_train, k_test)
        ridge = number("ridge", ridge, 0)
        self.ridge = ridge * float(self.k_train.diagonal().mean()) if flag("ridge_relative", ridge_relative) else ridge

    @property
    def n(self) -> int:
        """Rows of the kernel: training points, times outputs for a full kernel."""
        return self.k_train.shape[0]

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        n = self.n
        memory.require(
            _factorisation_bytes(n),
            f"the eigendecomposition of a {n} x {n} kernel",
            "ntk.predict(k_train, k_test, y, t), which then does with products alone",
            self.k_train.device,
        )
        values, vectors = torch.linalg.eigh(self.k_train.to(torch.float64))
        return clip_spectrum(values, n, self.k_train.dtype), vectors

    @cached_property
    def _test_vectors(self) -> Tensor:
        assert self.k_test is not None
        return self.k_test.to(torch.float64) @ self._factors[1]

    @property
    def eigenvalues(self) -> Float[Tensor, " n"]:
        """Of K without the ridge, descending, float64; those that are zero to rounding are zero."""
        return self._factors[0].flip(0)

    @property
    def eigenvectors(self) -> Float[Tensor, "n n"]:
        """One per column, in the order of :attr:`eigenvalues`."""
        return self._factors[1].flip(1)

    @property
    def rank(self) -> int:
        """Modes that can be learned."""
        return int((self._factors[0] > 0).sum())

    def max_learning_rate(self, n_outputs: int = 1) -> float:
        r"""The largest step size at which gradient descent converges: $2 (1 + \beta)/(r (\lambda_{\max} + \rho))$.

        `n_outputs`: C, for losses that are means.
        """
        points, outputs = self._sizes(n_outputs)
        return self.descent.max_learning_rate(self._largest + self.ridge, points, outputs)

    def replace(
        self,
        *,
        method: str | None = None,
        learning_rate: float | None = None,
        momentum: float | None = None,
        loss: str | None = None,
        check_stability: bool | None = None,
    ) -> Dynamics:
        """The same kernel and factorisation under another law of descent; None keeps what is."""
        other, old = copy.copy(self), self.descent
        other.descent = Descent(
            old.method if method is None else method,
            old.learning_rate if learning_rate is None else learning_rate,
            old.momentum if momentum is None else momentum,
            old.loss if loss is None else loss,
        )
        if check_stability is not None:
            other.check_stability = flag("check_stability", check_stability)
        return other

    def predict(
        self,
        y: Tensor,
        t: Times,
        f0: Tensor | None = None,
        *,
        f0_test: Tensor | None = None,
    ) -> Prediction:
        r"""Values on training and test points after times t.

        **Arguments**

        - `y`: targets, [n] or [n, C].
        - `t`: one time or several, in steps (flow: times the learning rate); ``math.inf`` is kernel regression, alone it
          is solved by Cholesky.
        - `f0`, `f0_test`: the values at initialisation, shaped as y and the result; None is zero. With `f0` and test
          points, `f0_test` is needed.
        """
        test_rows = None if self.k_test is None else len(self.k_test)
        problem = self._problem(y, f0, f0_test, test_rows)
        times, single = as_times(t, self.descent.method)
        self._guard(problem)
        left, coefficients, solver = self._solve(problem, times)
        test = None if self.k_test is None else product(self.k_test, coefficients)
        return Prediction.build(
            problem, times, single, left, test, self.descent, self.ridge, self._largest, self.parameterization, solver
        )

    def residual_energy(self, y: Tensor, t: Times, f0: Tensor | None = None) -> Float[Tensor, "*times n"]:
        r"""$\lVert c_i(t)\,q_i^T (y - f_0) \rVert^2$: what is left of the error in each mode, modes as in
        :attr:`eigenvalues`. Without a ridge its sum over modes is the training error $\lVert y - f_t \rVert^2$; with one,
        what it leaves in the end is counted too."""
        problem = self._problem(y, f0)
        times, single = as_times(t, self.descent.method)
        self._guard(problem)
        left, _ = self._contraction(times, problem.n_outputs)
        energy = (self._factors[1].T @ problem.error).square().sum(1)
        result = (left.square() * energy).flip(1)
        return result[0] if single else result

    def modes(self, y: Tensor, f0: Tensor | None = None) -> ModeTable:
        r"""Each mode's eigenvalue, its rate $\eta r (\lambda_i + \rho)$ per step, and the energy of $y - f_0$ in it."""
        problem = self._problem(y, f0)
        self._guard(problem)
        energy = (self._factors[1].T @ problem.error).square().sum(1).flip(0)
        speed = self.descent.speed(*self._sizes(problem.n_outputs))
        moving = torch.where(self.eigenvalues > 0, self.eigenvalues + self.ridge, 0.0)
        return ModeTable(self.eigenvalues, speed * moving, energy, self.descent)

    def smoother(self, t: Times, n_outputs: int = 1) -> Float[Tensor, "*times m n"]:
        r"""$A_t = K_{test} Q \frac{1 - c_t}{\Lambda} Q^T$: the test values are $f_0^{test} + A_t (y - f_0)$. float64."""
        if self.k_test is None:
            raise ConfigError("the smoother needs test points: pass k_test")
        times, single = as_times(t, self.descent.method)
        _, gain = self._contraction(times, n_outputs)
        result = (self._test_vectors * gain[:, None, :]) @ self._factors[1].T
        return result[0] if single else result

    # Inner parts.

    def _sizes(self, n_outputs: int) -> tuple[int, int]:
        return self.shape[0], (self.shape[1] if len(self.shape) == 2 else n_outputs)

    def _problem(
        self, y: Tensor, f0: Tensor | None, f0_test: Tensor | None = None, test_rows: int | None = None
    ) -> Problem:
        return Problem(self.shape, y, f0, f0_test, test_rows, self.k_train.dtype, self.k_train.device)

    @cached_property
    def _largest(self) -> float:
        if "_factors" in self.__dict__ or self.n <= 64:
            return float(self._factors[0][-1])
        return largest_eigenvalue(Dense(self.k_train))

    def _guard(self, problem: Problem) -> None:
        if self.check_stability:
            self.descent.require_stable(self._largest + self.ridge, *self._sizes(problem.n_outputs))

    def _contraction(self, times: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        """What is left of each mode's error, and the gain, [T, n] each; with the ridge, whose part is never learned."""
        values = self._factors[0]
        speed = self.descent.speed(*self._sizes(n_outputs))
        return regularized(self.descent, values, times.to(values.device), speed, self.ridge)

    def _solve(self, problem: Problem, times: Tensor) -> tuple[Tensor, Tensor, str]:
        """What is left of y - f0, [T, n, C]; the kernel coefficients, the same; and how they were found."""
        if bool(torch.isinf(times).all()) and "_factors" not in self.__dict__:
            solution = cholesky_solve(self.k_train, self.ridge, problem.error)
            if solution is not None:
                stacked = solution.expand(len(times), *solution.shape)
                return self.ridge * stacked, stacked, "cholesky"
        vectors = self._factors[1]
        left, gain = self._contraction(times, problem.n_outputs)
        amplitudes = vectors.T @ problem.error
        back = lambda factors: product(vectors, factors[:, :, None] * amplitudes)  # noqa: E731
        return back(left), back(gain), "eigh"

    def __repr__(self) -> str:
        tests = "" if self.k_test is None else f", k_test={tuple(self.k_test.shape)}"
        return f"Dynamics(k_train={tuple(self.k_train.shape)}{tests}, {self.descent}, ridge={self.ridge:g})"


def predict(
    k_train: Tensor | KernelOperator,
    k_test: Tensor | KernelOperator | None,
    y: Tensor,
    t: Times,
    f0: Tensor | None = None,
    *,
    f0_test: Tensor | None = None,
    method: str = "flow",
    learning_rate: float | None = None,
    momentum: float = 0.0,
    loss: str = "sum",
    ridge: float = 0.0,
    ridge_relative: bool = False,
    check_stability: bool = True,
    parameterization: str | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
) -> Prediction:
    r"""What gradient descent on squared loss makes of the targets y after times t; see :class:`Dynamics` for the maths.

    A matrix of up to 8192 rows (:data:`DENSE_LIMIT`) is factorised if there is memory for it. An operator, or a larger
    matrix, is used by its products alone: one Lanczos run per output for all finite times, conjugate gradients for
    infinity (:mod:`~neuralfield.ntk.krylov`).

    **Arguments**

    - `k_train`: [n, n], or [n, C, n, C], or a square :class:`~neuralfield.ntk.operator.KernelOperator`.
    - `k_test`: [m, n], or [m, C, n, C], or an operator, for instance ``operator.restricted(test, train)``; or None.
    - `y`: [n] or [n, C]. `t`: one time, or several, in steps; `f0`, `f0_test`: initial values. See
      :meth:`Dynamics.predict`.
    - `method`, `learning_rate`, `momentum`, `loss`, `ridge`, `ridge_relative`, `check_stability`, `parameterization`: see
      :class:`Dynamics`.
    - `tolerance`: of the iterative solvers: estimated norm of the error on the training points over that of y - f0. A
      warning tells when `max_iterations` products do not reach it; the estimate stands in the result.

    Raises what :class:`Dynamics` raises.
    """
    descent = Descent(method, learning_rate, momentum, loss)
    if isinstance(k_train, Dense):
        k_train = k_train.matrix
    if isinstance(k_test, Dense):
        k_test = k_test.matrix
    if not isinstance(k_train, KernelOperator) and _factorise(k_train):
        if isinstance(k_test, KernelOperator):
            k_test = k_test.to_dense()
        dynamics = Dynamics(
            k_train,
            k_test,
            method=method,
            learning_rate=learning_rate,
            momentum=momentum,
            loss=loss,
            ridge=ridge,
            ridge_relative=ridge_relative,
            check_stability=check_stability,
            parameterization=parameterization,
        )
        return dynamics.predict(y, t, f0, f0_test=f0_test)
    return predict_matrix_free(
        as_operator(k_train), None if k_test is None else as_operator(k_test), y, t, f0, f0_test, descent=descent,
        ridge=ridge, ridge_relative=ridge_relative, check_stability=check_stability, parameterization=parameterization,
        tolerance=tolerance, max_iterations=max_iterations,
    )  # fmt: skip


def _factorisation_bytes(n: int) -> float:
    """The matrix in float64, its eigenvectors, and LAPACK's work space of two more."""
    return 4.0 * n * n * torch.float64.itemsize


def _factorise(k_train: Tensor) -> bool:
    """Whether the dense way is the better one; it also is where what was given is no matrix, for its error messages."""
    if not isinstance(k_train, Tensor) or k_train.ndim != 2:
        return True
    n = len(k_train)
    return n <= DENSE_LIMIT and _factorisation_bytes(n) < 0.9 * memory.available_bytes(k_train.device)
