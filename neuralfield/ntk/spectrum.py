"""A kernel's eigenvalues and what they mean for a target: how fast each part of it is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.alignment import alignment, frobenius_squared, target_matrix
from neuralfield.ntk.conventions import finite, rate
from neuralfield.ntk.decay import PowerLaw, power_law
from neuralfield.ntk.lanczos import Progress, lanczos
from neuralfield.ntk.memory import require
from neuralfield.ntk.operator import Dense, KernelOperator, as_operator
from neuralfield.ntk.positive import floor_of, require_positive, require_symmetric

_DENSE = 1024  # points up to which an eigendecomposition is faster than any search for the top


@dataclass(frozen=True, repr=False)
class Spectrum:
    r"""Eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$ and eigenvectors $q_i$ of a kernel on n points: all, or the top k.

    - `eigenvalues`: [k], float64.
    - `eigenvectors`: [n, k], orthonormal; the sign makes the largest entry positive.
    - `residuals`: $\lVert K q_i - \lambda_i q_i \rVert$, which bounds the error of each eigenvalue.
    - `trace`: of K, exact.
    - `kernel`: K as an operator.
    - `target`: y as columns, [n, channels], or None.
    - `name`: which kernel, in which parameterisation.
    """

    eigenvalues: Float[Tensor, " k"]
    eigenvectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    trace: float
    kernel: KernelOperator
    target: Float[Tensor, "n channels"] | None
    name: str

    @property
    def n(self) -> int:
        """Number of points."""
        return self.eigenvectors.shape[0]

    @property
    def k(self) -> int:
        """Number of eigenpairs."""
        return len(self.eigenvalues)

    @property
    def complete(self) -> bool:
        """All eigenpairs are here."""
        return self.k == self.n

    def with_target(self, target: Tensor) -> Spectrum:
        """The same decomposition for another target, [n] or [n, channels]."""
        return replace(self, target=target_matrix(target, self.n))

    @cached_property
    def participation_ratio(self) -> float:
        r"""Effective rank $(\operatorname{tr} K)^2 / \operatorname{tr} K^2$: how many equal eigenvalues would do the same."""
        if self.complete:
            return float(self.eigenvalues.sum() ** 2 / self.eigenvalues.square().sum())
        return self.trace**2 / frobenius_squared(self.kernel, self).value

    @property
    def entropy_rank(self) -> float:
        r"""Effective rank $\exp(-\sum p_i \log p_i)$, $p_i = \lambda_i / \operatorname{tr} K$ (Roy & Vetterli 2007).

        Raises ConfigError for a top-k spectrum: the many small eigenvalues count.
        """
        self._need_all("entropy_rank", "ntk.spectral_density(kernel, deflate=spectrum).entropy_rank()")
        p = self.eigenvalues.clamp_min(0)
        p = p / p.sum()
        return math.exp(-float(torch.special.xlogy(p, p).sum()))

    def condition_number(self, ridge: float = 0.0) -> float:
        r"""$(\lambda_1 + r)/(\lambda_n + r)$; infinity where rounding leaves no positive denominator."""
        self._need_all("condition_number", "a ridge and lambda_1 / ridge, which bounds it")
        ridge = number("ridge", ridge, 0)
        last = float(self.eigenvalues[-1]) + ridge
        return (float(self.eigenvalues[0]) + ridge) / last if last > 0 else math.inf

    def decay_exponent(self, first: int = 2, last: int | None = None) -> PowerLaw:
        r"""The power law of the eigenvalues between two modes.

        **Arguments**

        - `first`: from 1; the default leaves out the first mode, which is mostly the kernel's constant.
        - `last`: None means the last one above the rounding of the kernel's dtype.
        """
        noise = floor_of(self.kernel.dtype, self.n, self.trace / self.n, float(self.eigenvalues[0]))
        above = int((self.eigenvalues > noise).sum())
        first = integer("first", first, 1, self.k)
        last = above if last is None else integer("last", last, first, self.k)
        if last - first < 2 or last > above:
            raise ConfigError(
                f"a power law needs three modes with eigenvalues above rounding ({noise:.1e}): {above} of {self.k} are, "
                f"and {first} to {last} were asked for"
            )
        return power_law(self.eigenvalues, first, last)

    def alignment(self, centred: bool = False) -> float:
        """Kernel-target alignment; see :func:`~neuralfield.ntk.alignment.alignment`."""
        return alignment(self.kernel, self._target(), centred, None if self.complete else self)

    @cached_property
    def energy(self) -> Float[Tensor, " k"]:
        r"""$\sum_c (q_i \cdot y_c)^2 / \lVert Y \rVert^2$: the part of the target's energy in each mode."""
        y = self._target()
        y = (y / y.norm()).to(self.eigenvectors)
        return (self.eigenvectors.T @ y).to(torch.float64).square().sum(1)

    @property
    def cumulated_energy(self) -> Float[Tensor, " k"]:
        """The part of the target's energy in the first i modes together."""
        return self.energy.cumsum(0)

    @property
    def remainder(self) -> float:
        """The part of the target's energy outside the k modes; rounding makes it slightly negative at most."""
        return 1.0 - float(self.energy.sum())

    def modes_for(self, fraction: float) -> int:
        """How many modes hold this part of the target's energy, for instance 0.95.

        Raises ConfigError if the top k do not.
        """
        fraction = number("fraction", fraction, 0, 1)
        total = self.cumulated_energy
        # All modes hold everything, whatever rounding says.
        enough = (total >= fraction - 1e-6).nonzero() if self.complete else (total >= fraction).nonzero()
        if len(enough) == 0:
            raise ConfigError(
                f"the {self.k} modes hold {float(total[-1]):.4f} of the target's energy, less than {fraction}; "
                "ask for more (k)"
            )
        return int(enough[0]) + 1

    def residual_energy(self, t: float | Tensor, loss: str = "sum") -> Tensor:
        r"""$\sum_i e^{-2 r \lambda_i t}\, \mathrm{energy}_i$: the part of the target's energy not yet learned at time t.

        Gradient flow from $f_0 = 0$; r of :func:`~neuralfield.ntk.conventions.rate`; the energy outside the
        top k counts as not learned, so that for a top-k spectrum this is an upper bound.

        **Arguments**

        - `t`: one time or several, in units of the learning rate times steps.
        - `loss`: "sum", "mean" or "mse".
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        speed = 2 * rate(loss, self.n, self._target().shape[1]) * self.eigenvalues.clamp_min(0).cpu()
        left = torch.exp(-times[..., None] * speed) @ self.energy.cpu()
        return left + max(self.remainder, 0.0) * (not self.complete)

    def time_to(self, fraction: float, loss: str = "sum") -> float:
        """When :meth:`residual_energy` falls to this part, for instance 0.05; infinity if modes of eigenvalue 0 hold more.

        Raises ConfigError if the energy outside the top k is already more.
        """
        fraction = number("fraction", fraction, 0, 1, above=True)
        if not self.complete and self.remainder >= fraction:
            raise ConfigError(
                f"{self.remainder:.4f} of the target's energy lies outside the {self.k} modes, more than {fraction}; "
                "ask for more (k)"
            )
        if float(self.residual_energy(0.0, loss)) <= fraction:
            return 0.0
        slowest = self.eigenvalues[self.eigenvalues > 0]
        if len(slowest) == 0:
            return math.inf
        speed = 2 * rate(loss, self.n, self._target().shape[1])
        low, high = 0.0, 745.0 / (speed * float(slowest[-1]))  # exp(-745) is the smallest float64
        if float(self.residual_energy(high, loss)) > fraction:
            return math.inf
        low = min(1e-12 / (speed * float(slowest[0])), high)
        for _ in range(200):  # halving the logarithm of the time
            middle = math.sqrt(low * high)
            low, high = (middle, high) if float(self.residual_energy(middle, loss)) > fraction else (low, middle)
            if high <= low * (1 + 1e-13):
                break
        return high

    def image(self, i: int, shape: tuple[int, ...]) -> np.ndarray:
        """Eigenvector i (from 0) on the grid that the points run over, [height, width]."""
        i = integer("i", i, 0, self.k - 1)
        if math.prod(shape) != self.n:
            raise ConfigError(f"shape {tuple(shape)} has {math.prod(shape)} points; the kernel has {self.n}")
        return self.eigenvectors[:, i].reshape(tuple(shape)).cpu().numpy()

    def _target(self) -> Tensor:
        if self.target is None:
            raise ConfigError("this needs a target: ntk.spectrum(kernel, target), or spectrum.with_target(target)")
        return self.target.to(self.eigenvectors.device)

    def _need_all(self, what: str, instead: str) -> None:
        if not self.complete:
            raise ConfigError(f"{what} needs all {self.n} eigenvalues, and these are the top {self.k}; use {instead}")

    def __repr__(self) -> str:
        which = "all" if self.complete else f"top {self.k} of"
        first, last = float(self.eigenvalues[0]), float(self.eigenvalues[-1])
        off = float(self.residuals.max()) / first if first > 0 else math.nan
        dtype = str(self.kernel.dtype).removeprefix("torch.")
        return (
            f"Spectrum({which} {self.n} eigenvalues, {first:.6g} to {last:.6g}, trace {self.trace:.6g}, residuals below "
            f"{off:.1e} of the first, kernel {self.name} in {dtype})"
        )


def spectrum(
    kernel: KernelOperator | Tensor,
    target: Tensor | None = None,
    k: int | None = None,
    tol: float = 1e-6,
    seed: int = 0,
    name: str | None = None,
    progress: Progress | None = None,
) -> Spectrum:
    r"""Decompose a kernel.

    Without `k` all eigenpairs, by a dense decomposition in float64 (its rounding is below that of float32 kernels, and
    the small eigenvalues are where it shows). With `k` the top ones, matrix-free
    (:func:`~neuralfield.ntk.lanczos.lanczos`) unless the kernel is small.

    **Arguments**

    - `kernel`: symmetric and positive semidefinite, a matrix [n, n] or an operator.
    - `target`: y to be explained, [n] or [n, channels], or None.
    - `k`: how many eigenpairs; None means all.
    - `tol`: residual of each top eigenpair, as a part of $\lambda_1$; below 5e-7 only for kernels in float64.
    - `seed`: of the random starting vectors.
    - `name`: which kernel, for the repr; None means the operator's own.
    - `progress`: see :data:`~neuralfield.ntk.lanczos.Progress`.

    Raises :class:`~neuralfield.errors.ConfigError` for a kernel that is not square, symmetric, finite, or positive
    semidefinite beyond rounding (:func:`~neuralfield.ntk.positive.floor_of` states how much that is), and
    :class:`~neuralfield.errors.DeviceError` where the decomposition does not fit in memory.
    """
    if isinstance(kernel, Tensor):
        require_symmetric(finite("kernel", kernel.detach()))
        kernel = kernel.detach()
    operator = as_operator(kernel)
    if not operator.symmetric:
        raise ConfigError(f"a spectrum needs a symmetric kernel, the same points in rows and columns; got {operator!r}")
    n = operator.shape[0]
    y = None if target is None else target_matrix(target, n)
    k = n if k is None else integer("k", k, 1, n)
    if k == n or n <= _DENSE or 3 * k >= n:
        values, vectors, residuals, lowest = _dense(operator)
        values, vectors, residuals = values[:k], vectors[:, :k], residuals[:k]
    else:
        pairs = lanczos(operator, k, tol, seed=seed, progress=progress)
        values, vectors, residuals, lowest = pairs.eigenvalues, pairs.eigenvectors, pairs.residuals, pairs.lowest
    trace = operator.trace()
    floor = floor_of(operator.dtype, n, trace / n, float(values[0]))
    require_positive(lowest, float(values[0]), floor, "the kernel" if name is None else name)
    largest = vectors.gather(0, vectors.abs().argmax(0)[None])
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)
    name = (repr(operator) if not isinstance(operator, Dense) else "given as a matrix") if name is None else name
    return Spectrum(values.to(vectors.device), vectors, residuals.to(vectors.device), trace, operator, y, name)


def _dense(operator: KernelOperator) -> tuple[Tensor, Tensor, Tensor, float]:
    n = operator.shape[0]
    instead = "the top eigenpairs alone, ntk.spectrum(ntk.kernel_operator(kernel, x), k=100)"
    # The matrix in float64, its eigenvectors and the work space of the divide-and-conquer method.
    require(4 * 8 * n * n, f"the eigendecomposition of a {n} x {n} kernel in float64", instead, operator.device)
    matrix = finite("kernel", operator.to_dense()).to(torch.float64)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    residuals = (matrix @ vectors - vectors * values).norm(dim=0)
    return values.flip(0), vectors.flip(1), residuals.flip(0), float(values[0])
