"""Any kernel as an operator: computed block by block at each product, and the choice of the cheapest operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.checks import choice, integer, number
from neuralfield.errors import ConfigError
from neuralfield.memory import available_bytes
from neuralfield.ntk.conventions import coordinates
from neuralfield.ntk.operator import KernelOperator
from neuralfield.ntk.regular import lattice, lattice_of
from neuralfield.ntk.toeplitz import ToeplitzOperator

BlockFunction = Callable[[Tensor, Tensor | None], Tensor]
"""k(x1, x2) of [n, D] and [m, D] -> [n, m]; x2 = None means x1, so that the function can treat the diagonal exactly."""


@runtime_checkable
class Kernel(Protocol):
    """What :func:`kernel_operator` needs of a kernel."""

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """The tangent kernel, [n, D] and [m, D] -> [n, m]."""

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """The covariance of the outputs at initialisation."""


class BlockedOperator(KernelOperator):
    r"""$K_{ij} = k(x_i, x'_j)$, computed in blocks at every product and kept as far as a budget allows.

    Of a square kernel only the blocks on and above the diagonal are computed; those below are their transposes. A
    product costs $n^2$ evaluations of k once, then only what does not fit the budget; take many vectors at once.

    **Arguments**

    - `function`: k, a :data:`BlockFunction`.
    - `x1`: points of the rows, [n, D]; their dtype and device are those of the products.
    - `x2`: points of the columns; None means the rows' and a symmetric kernel.
    - `block`: rows and columns of a block.
    - `budget`: bytes for blocks that are kept between products; None means a quarter of the memory that is free now,
      0 keeps none.
    - `name`: what the repr calls the kernel.
    """

    def __init__(
        self,
        function: BlockFunction,
        x1: Float[Tensor, "n in_dim"],
        x2: Float[Tensor, "m in_dim"] | None = None,
        block: int = 1024,
        budget: float | None = None,
        name: str | None = None,
    ) -> None:
        self.function, self.name, self.block = function, name, integer("block", block, 1)
        self.x1 = coordinates("x1", x1)
        self._symmetric = x2 is None
        self.x2 = self.x1 if x2 is None else coordinates("x2", x2, x1.shape[1])
        self.shape = (len(self.x1), len(self.x2))
        self.dtype, self.device = x1.dtype, x1.device
        self.budget = available_bytes(self.device) / 4 if budget is None else number("budget", budget, 0)
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._used = 0

    @property
    def symmetric(self) -> bool:
        return self._symmetric

    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        out = torch.zeros(self.shape[0], v.shape[1], dtype=self.dtype, device=self.device)
        for row, column, part in self._blocks():
            rows, columns = slice(row, row + self.block), slice(column, column + self.block)
            out[rows] += part @ v[columns]
            if self.symmetric and column > row:
                out[columns] += part.T @ v[rows]
        return out

    def diagonal(self) -> Float[Tensor, " n"]:
        if not self.symmetric:
            return super().diagonal()
        return torch.cat([self.function(part, None).detach().diagonal() for part in self.x1.split(64)])

    def frobenius(self) -> float:
        r"""$\lVert K \rVert_F$, exact; the cost of one product."""
        total = 0.0
        for row, column, part in self._blocks():
            total += float(part.norm(dtype=torch.float64)) ** 2 * (2 if self.symmetric and column > row else 1)
        return math.sqrt(total)

    def restricted(self, rows: Int[Tensor, " r"], columns: Int[Tensor, " c"]) -> KernelOperator:
        """The kernel of some points only, at their cost."""
        same = self.symmetric and torch.equal(rows, columns)
        x2 = None if same else self.x2[columns]
        return BlockedOperator(self.function, self.x1[rows], x2, self.block, self.budget, self.name)

    def _blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        for row in range(0, self.shape[0], self.block):
            for column in range(row if self.symmetric else 0, self.shape[1], self.block):
                yield row, column, self._block_at(row, column)

    def _block_at(self, row: int, column: int) -> Tensor:
        if (row, column) in self._kept:
            return self._kept[row, column]
        x1, x2 = self.x1[row : row + self.block], self.x2[column : column + self.block]
        part = self.function(x1, None if self.symmetric and row == column else x2).detach().to(self.dtype)
        if self._used + part.nbytes <= self.budget:
            self._kept[row, column] = part
            self._used += part.nbytes
        return part

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name}, "
        return f"BlockedOperator({name}shape={self.shape}, dtype={self.dtype}, device={self.device})"


def kernel_operator(
    kernel: Kernel,
    x: Float[Tensor, "n in_dim"],
    which: str = "ntk",
    grid: Sequence[int] | None = None,
    budget: float | None = None,
) -> KernelOperator:
    r"""A kernel of many points by its products: by FFT where that is exact, else in blocks.

    A stationary kernel on a regular grid in row-major order (pixels, every other pixel, a volume; any order of the
    axes) becomes a :class:`~neuralfield.ntk.toeplitz.ToeplitzOperator`, whose products cost $O(n \log n)$; anything
    else a :class:`BlockedOperator`.

    **Arguments**

    - `kernel`: for instance ``ntk.MLPKernel``.
    - `x`: coordinates; their dtype and device are those of the products.
    - `which`: "ntk" or "nngp".
    - `grid`: the shape (height, width) of the grid that x runs over; None means that a grid is recognised.
    - `budget`: of the blocks, see :class:`BlockedOperator`.

    Raises ConfigError for coordinates that are not finite, and for a `grid` that x does not run over.
    """
    choice("which", which, ("ntk", "nngp"))
    x = coordinates("x", x)
    found = lattice(x) if grid is None else _on(tuple(integer("grid", size, 1) for size in grid), x)
    if found is not None and getattr(kernel, "stationary", False):
        return ToeplitzOperator.on_lattice(kernel, *found, which, x.dtype, x.device)  # type: ignore[arg-type]
    return BlockedOperator(getattr(kernel, which), x, budget=budget, name=f"{which} of {kernel!r}")


def _on(grid: tuple[int, ...], x: Tensor) -> tuple[tuple[int, ...], Tensor]:
    steps = lattice_of(x, grid) if math.prod(grid) == len(x) and len(grid) <= 3 else None
    if steps is None:
        raise ConfigError(
            f"x, {tuple(x.shape)}, does not run over a regular grid of shape {grid} in row-major order; "
            "leave grid out to have it recognised"
        )
    return grid, steps
