"""The largest eigenpairs of a kernel that is known by its products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.memory import require
from neuralfield.ntk.operator import KernelOperator

Progress = Callable[[int, int], None]
"""Called with how many eigenpairs have converged and how many are wanted."""


@dataclass(frozen=True)
class Eigenpairs:
    r"""The largest eigenvalues and their eigenvectors.

    - `eigenvalues`: descending, float64.
    - `eigenvectors`: orthonormal columns.
    - `residuals`: $\lVert K v_i - \lambda_i v_i \rVert$, measured; each eigenvalue is at most this far from a true one.
    - `lowest`: the smallest Rayleigh quotient met on the way: no eigenvalue bound, but a negative one is proof that K
      is not positive semidefinite.
    - `products`: how many matrix-vector products it took.
    """

    eigenvalues: Float[Tensor, " k"]
    eigenvectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    lowest: float
    products: int


def lanczos(
    kernel: KernelOperator,
    k: int,
    tol: float = 1e-6,
    block: int = 8,
    subspace: int | None = None,
    seed: int = 0,
    check: bool = True,
    max_products: int | None = None,
    progress: Progress | None = None,
) -> Eigenpairs:
    r"""Top k eigenpairs by the thick-restart block Lanczos method with full reorthogonalisation.

    A basis V of a block Krylov space grows to `subspace` vectors; the eigenpairs of $V^\top K V$ approximate those of K
    (Rayleigh-Ritz); the best Ritz vectors and the last residual block start the next round (Wu & Simon 2000, block form).

    One starting vector sees one direction of each eigenspace, a block of b sees b of them. Kernels on grids have
    multiplicities (2 by the grid's symmetry, 8 and more if periodic), so after convergence the search starts again
    beside the pairs that were found, from new random vectors, until it finds no larger eigenvalue (`check`).

    Memory: `subspace` vectors, then k more; 256 of them on 768 x 512 pixels are 400 MB in float32.

    **Arguments**

    - `kernel`: symmetric.
    - `k`: how many, from 1 to n.
    - `tol`: $\lVert K v - \lambda v \rVert \le$ `tol` $\lambda_1$ for each pair.
    - `block`: vectors per product.
    - `subspace`: the largest basis; None means 2 k + 4 `block`, at least.
    - `seed`: of the random vectors: the same seed gives the same pairs.
    - `check`: look for eigenvectors that the starting block missed.
    - `max_products`: give up after so many; None means 60 k + 3000.
    - `progress`: see :data:`Progress`.

    Raises :class:`~neuralfield.errors.ConfigError` for a kernel that is not square, for a tolerance below the rounding
    of its dtype, when `max_products` are spent, and for products that are not finite;
    :class:`~neuralfield.errors.DeviceError` when the basis does not fit.
    """
    n = kernel.shape[0]
    if not kernel.symmetric:
        raise ConfigError(f"eigenpairs need a symmetric kernel; this one is {kernel!r}")
    k, block = integer("k", k, 1, n), min(integer("block", block, 1), n)
    floor = 4 * torch.finfo(kernel.dtype).eps
    if number("tol", tol, 0, 1, above=True) < floor:
        raise ConfigError(f"tol must be at least {floor:.1g}, the rounding of products in {kernel.dtype}; got {tol}")
    size = max(2 * k, k + 8 * block) if subspace is None else integer("subspace", subspace, k + 2 * block)
    size = min(math.ceil(size / block) * block, n)
    most = 60 * k + 3000 if max_products is None else integer("max_products", max_products, 1)
    require(
        (size + k + 3 * block) * n * kernel.dtype.itemsize,
        f"a basis of {size} vectors of {n} numbers with {k} eigenvectors",
        f"a smaller k or subspace (at least k + {2 * block})",
        kernel.device,
    )
    basis = _Basis(kernel, size, block, seed)
    known: Tensor | None = None  # the largest eigenvalues before the search from new random vectors
    target = tol / 2  # of the estimates, which leave out what was dropped when that search began
    while True:
        values, vectors, estimates = basis.expand()
        scale = max(float(values.abs().max()), torch.finfo(torch.float32).tiny)
        done = int((estimates[:k] <= target * scale).sum())
        if progress is not None:
            progress(done, k)
        if size == n:  # the basis spans everything
            return _polished(kernel, values, basis.combined(vectors[:, :k]), basis.products)
        if done == k and (not check or (known is not None and bool((values[:k] <= known + tol * scale).all()))):
            pairs = _polished(kernel, values, basis.combined(vectors[:, :k]), basis.products)
            if float(pairs.residuals.max()) <= tol * scale:
                return pairs
            target /= 2
        if basis.products >= most:
            raise ConfigError(
                f"{done} of {k} eigenpairs reached the tolerance {tol:.1g} within {basis.products} products; give a "
                f"larger subspace (now {size}), tol or max_products"
            )
        anew = done == k and target == tol / 2
        known = values[:k] if anew else known
        # Half of the room beside the wanted pairs is for the next best ones, which converge next.
        basis.restart(vectors, k if anew else k + (size - k) // 2, anew)


class _Basis:
    r"""An orthonormal basis V, kept as rows (grids in one piece), with $T = V^\top K V$ and the residual block.

    $K V = V T + Q R E^\top$, where E picks the last block: the residual of a Ritz vector V y is Q R y_last.
    """

    def __init__(self, kernel: KernelOperator, size: int, block: int, seed: int) -> None:
        self.kernel, self.size, self.block = kernel, size, block
        self.rows = torch.empty(size, kernel.shape[0], dtype=kernel.dtype, device=kernel.device)
        self.projected = torch.zeros(size, size, dtype=torch.float64)
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.filled = self.products = 0
        self.next, self.coupling = self._orthonormal(self._random(block))

    def expand(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fill the basis. Returns Ritz values (descending), their vectors in the basis and residual estimates."""
        width = 0
        while self.filled < self.size:
            width = min(self.block, self.size - self.filled)
            new = slice(self.filled, self.filled + width)
            self.rows[new] = self.next[:width]
            self.filled += width
            product = self.kernel.matmat(self.rows[new].T).T
            self.products += width
            basis = self.rows[: self.filled]
            inner = (basis @ product.T).to("cpu", torch.float64)
            if not bool(torch.isfinite(inner).all()):
                raise ConfigError(f"a product of {self.kernel!r} is not finite; are the kernel and coordinates?")
            self.projected[: self.filled, new] = inner
            self.projected[new, : self.filled] = inner.T
            self.next, self.coupling = self._orthonormal(product.addmm(inner.T.to(basis), basis, alpha=-1))
        values, vectors = torch.linalg.eigh((self.projected + self.projected.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        residuals = (self.coupling[:, :width] @ vectors[-width:]).norm(dim=0)
        return values, vectors, residuals

    def restart(self, vectors: Tensor, count: int, anew: bool) -> None:
        """Keep the best `count` Ritz vectors (a few more, so that whole blocks fit) and go on, or begin anew beside."""
        count += (self.size - count) % self.block
        values = torch.linalg.eigvalsh((self.projected + self.projected.T) / 2).flip(0)[:count]
        chosen = vectors[:, :count].T.to(self.rows)
        for part in self.rows.split(2**14, dim=1):  # in place, piece by piece
            part[:count] = chosen @ part
        self.projected.zero_()
        self.projected[range(count), range(count)] = values
        self.filled = count
        if anew:
            self.next, self.coupling = self._orthonormal(self._random(self.block))

    def combined(self, vectors: Tensor) -> Tensor:
        """Ritz vectors as rows."""
        return vectors.T.to(self.rows) @ self.rows

    def _orthonormal(self, block: Tensor) -> tuple[Tensor, Tensor]:
        r"""Q, R with block = R^T Q beside the basis; directions that rounding alone made are replaced by random ones."""
        basis = self.rows[: self.filled]
        q, r = torch.linalg.qr(block.T)
        coupling, lost = r.to("cpu", torch.float64), torch.zeros(len(block), dtype=torch.bool)
        for _ in range(5):
            # Of a unit vector less than half may lie in the basis: what does is rounding of a vanishing residual.
            block = q.T - (q.T @ basis.T) @ basis
            q, r = torch.linalg.qr(block.T)
            r = r.to("cpu", torch.float64)
            coupling = r @ coupling
            small = r.diagonal().abs() < 0.5
            if not bool(small.any()):
                break
            lost |= small
            q[:, small.to(q.device)] = self._random(int(small.sum())).T / math.sqrt(q.shape[0])
        coupling[lost] = 0
        return q.T.contiguous(), coupling

    def _random(self, count: int) -> Tensor:
        numbers = torch.randn(count, self.kernel.shape[0], generator=self.generator, dtype=torch.float32)
        return numbers.to(self.kernel.device, self.kernel.dtype)


def _polished(kernel: KernelOperator, values: Tensor, found: Tensor, products: int) -> Eigenpairs:
    """The pairs (eigenvectors as rows) by one more Rayleigh-Ritz step with float64 sums, and their true residuals.

    In float32 the sums over n points are off by more than the products: an eigenvector of one sign, such as the first,
    shows it most.
    """
    gram = _inner(found, found)
    image = torch.cat([_inner(found, kernel.matmat(part.T).T) for part in found.split(16)], dim=1)
    root = torch.linalg.inv(torch.linalg.cholesky(gram))
    top, vectors = torch.linalg.eigh(root @ ((image + image.T) / 2) @ root.T)
    top, vectors = top.flip(0), (root.T @ vectors).flip(1)
    turned = torch.empty_like(found)
    for part, out in zip(found.split(2**14, dim=1), turned.split(2**14, dim=1), strict=True):
        out[:] = (vectors.T.to(part.device) @ part.to(torch.float64)).to(out)
    residuals = []
    for part, value in zip(turned.split(16), top.to(turned.device).split(16), strict=True):
        difference = kernel.matmat(part.T).T.to(torch.float64) - value[:, None] * part.to(torch.float64)
        residuals.append(difference.norm(dim=1).cpu())
    return Eigenpairs(top, turned.T, torch.cat(residuals), float(values[-1]), products + 2 * len(found))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """A B^T in float64, some columns at a time."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for left, right in zip(a.split(2**14, dim=1), b.split(2**14, dim=1), strict=True):
        total += left.to(torch.float64) @ right.to(torch.float64).T
    return total.cpu()
