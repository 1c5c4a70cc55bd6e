"""Kernels known by their products alone: a matrix-vector product where the matrix would not fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.memory import require_dense

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class KernelOperator(ABC):
    r"""A real matrix $K$ of shape [rows, columns], given by $V \mapsto K V$.

    ``operator @ v`` takes a vector or a matrix, torch or NumPy, and returns the same kind. Subclasses write
    :meth:`matmat`; those that know a cheaper way also :meth:`diagonal`. Square ones are symmetric and positive
    semidefinite, as kernels are, unless `symmetric` says otherwise.

    **Attributes**

    - `shape`: [rows, columns].
    - `symmetric`: rows and columns are the same points; a square block beside the diagonal is not.
    - `dtype`, `device`: of the product.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    def symmetric(self) -> bool:
        return self.shape[0] == self.shape[1]

    @abstractmethod
    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """$K V$ for k vectors at once."""

    def matvec(self, v: Float[Tensor, " columns"]) -> Float[Tensor, " rows"]:
        """$K v$."""
        return self.matmat(v[:, None])[:, 0]

    def __matmul__(self, v: Any) -> Any:
        if isinstance(v, np.ndarray):
            # A copy: torch takes neither read-only arrays nor negative strides, and SciPy's solvers pass both.
            return (self @ torch.from_numpy(np.array(v, order="C"))).cpu().numpy()
        if not isinstance(v, Tensor) or v.ndim not in (1, 2) or v.shape[0] != self.shape[1]:
            got = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise ConfigError(
                f"this operator of shape {self.shape} takes [{self.shape[1]}] or [{self.shape[1]}, k]; got {got}"
            )
        v = v.to(self.device, self.dtype)
        return self.matvec(v) if v.ndim == 1 else self.matmat(v)

    def diagonal(self) -> Float[Tensor, " n"]:
        """$K_{ii}$; here by unit vectors, one product for 64 of them."""
        self._square("diagonal")
        parts = []
        for start in range(0, self.shape[0], 64):
            stop = min(start + 64, self.shape[0])
            unit = torch.zeros(self.shape[0], stop - start, dtype=self.dtype, device=self.device)
            unit[torch.arange(start, stop), torch.arange(stop - start)] = 1
            parts.append(self.matmat(unit)[torch.arange(start, stop), torch.arange(stop - start)])
        return torch.cat(parts)

    def trace(self) -> float:
        r"""$\sum_i K_{ii}$, the sum of the eigenvalues."""
        return float(self.diagonal().sum(dtype=torch.float64))

    def to_dense(self) -> Float[Tensor, "rows columns"]:
        """The matrix itself, for tests and small n."""
        require_dense(*self.shape, self.dtype, "the operator's products (operator @ v)", self.device)
        blocks = []
        for start in range(0, self.shape[1], 256):
            stop = min(start + 256, self.shape[1])
            unit = torch.zeros(self.shape[1], stop - start, dtype=self.dtype, device=self.device)
            unit[torch.arange(start, stop), torch.arange(stop - start)] = 1
            blocks.append(self.matmat(unit))
        return torch.cat(blocks, dim=1)

    def restricted(self, rows: Int[Tensor, " r"], columns: Int[Tensor, " c"]) -> KernelOperator:
        """The submatrix of some rows and columns, for instance test pixels by training pixels of one lattice."""
        return Restricted(self, rows, columns)

    def to_scipy(self) -> LinearOperator:
        """The same as a ``scipy.sparse.linalg.LinearOperator``, for eigsh, cg, lobpcg, ..."""
        from scipy.sparse.linalg import LinearOperator

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        product = lambda v: self @ np.asarray(v, dtype)  # noqa: E731
        adjoint = {"rmatvec": product, "rmatmat": product} if self.symmetric else {}
        return LinearOperator(self.shape, matvec=product, matmat=product, dtype=dtype, **adjoint)

    def _square(self, what: str) -> None:
        if self.shape[0] != self.shape[1]:
            raise ConfigError(f"{what} needs a square operator; this one is {self.shape[0]} x {self.shape[1]}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}, device={self.device})"


class Dense(KernelOperator):
    """A matrix that is at hand, as an operator.

    **Arguments**

    - `matrix`: K.
    """

    def __init__(self, matrix: Float[Tensor, "rows columns"]) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        return self.matrix @ v

    def diagonal(self) -> Float[Tensor, " n"]:
        self._square("diagonal")
        return self.matrix.diagonal()

    def to_dense(self) -> Float[Tensor, "rows columns"]:
        return self.matrix


class Restricted(KernelOperator):
    """Some rows and columns of another operator; a product costs one of the whole.

    **Arguments**

    - `whole`: the operator.
    - `rows`, `columns`: indices into it.
    """

    def __init__(self, whole: KernelOperator, rows: Int[Tensor, " r"], columns: Int[Tensor, " c"]) -> None:
        self.whole = whole
        self.rows, self.columns = rows.to(whole.device), columns.to(whole.device)
        self.shape = (len(rows), len(columns))
        self.dtype, self.device = whole.dtype, whole.device

    @property
    def symmetric(self) -> bool:
        return self.whole.symmetric and torch.equal(self.rows, self.columns)

    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        embedded = torch.zeros(self.whole.shape[1], v.shape[1], dtype=self.dtype, device=self.device)
        return self.whole.matmat(embedded.index_add_(0, self.columns, v))[self.rows]

    def diagonal(self) -> Float[Tensor, " n"]:
        if torch.equal(self.rows, self.columns):
            return self.whole.diagonal()[self.rows]
        return super().diagonal()


def as_operator(kernel: KernelOperator | Tensor) -> KernelOperator:
    """A tensor as :class:`Dense`; an operator as it is."""
    return kernel if isinstance(kernel, KernelOperator) else Dense(kernel)
