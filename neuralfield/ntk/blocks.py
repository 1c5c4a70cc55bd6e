"""A kernel matrix, block by block: in place and in the cache, or recorded for derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralfield.ntk.covariance import Inputs
from neuralfield.ntk.duals import Dual, PiecewiseLinear
from neuralfield.ntk.recursion import Network, Side, propagate, trace

_BLOCK = 256  # rows and columns worked on at a time: the arrays of a block fit the second-level cache
_ANTIPODAL = 1e-3  # 2 - u below which float32 is left; see Prepared


class Prepared:
    """A kernel matrix of which any block can be had; made by :meth:`MLPKernel.prepare`.

    - `shape`: [n, m]; `dtype`, `device`: of the blocks.
    """

    def __init__(
        self, network: Network, inputs: Inputs, dtype: torch.dtype, device: torch.device, symmetric: bool = False
    ) -> None:
        self.network, self.inputs, self.dtype, self.device, self.symmetric = network, inputs, dtype, device, symmetric
        self.shape = inputs.shape
        rows = trace(network, inputs.rows)
        columns = rows if inputs.columns is inputs.rows else trace(network, inputs.columns)
        self.duals: list[Dual | None] = []
        for index, (i, j) in enumerate(zip(rows, columns, strict=True)):
            dual = network.output if index == len(rows) - 1 else network.dual
            ends = torch.cat([i.z64.detach().flatten(), j.z64.detach().flatten()])
            if dual is not None and len(ends):
                low, high = float(ends.min()), float(ends.max())
                if low == high and i.z64.requires_grad:  # one norm for all, in which the kernel is to be differentiated
                    low, high = 0.9 * low, 1.1 * high
                dual = dual.prepared(low, high)
            self.duals.append(dual)
        self.rows, self.columns = [i.to(dtype) for i in rows], [j.to(dtype) for j in columns]
        # Near u = 2 a float32 u knows the angle only to 1e-4, which a kink there sees, unless a bias has tilted the points.
        first = network.dual
        kinked = isinstance(first, PiecewiseLinear) and first.k > 0 and rows[0].straight and len(rows) > 1
        self.wide = (rows, columns) if kinked and dtype != torch.float64 else None

    def block(self, rows: slice, columns: slice, which: str = "ntk") -> tuple[Tensor | None, Tensor | None]:
        """The NNGP kernel and the NTK of some rows and columns: both, or None for the one not asked for.

        **Arguments**

        - `rows`, `columns`: slices with a start and a stop.
        - `which`: "nngp", "ntk" or "both".
        """
        return self._block(self._taken(self.rows, rows, 1), self._taken(self.columns, columns, 0), rows, columns, which)

    def dense(self, which: str = "both") -> tuple[Tensor | None, Tensor | None]:
        """The whole matrices."""
        n, m = self.shape
        size = _BLOCK if self.device.type == "cpu" else 4096
        row_blocks, column_blocks = (
            [slice(k, min(k + size, count)) for k in range(0, count, size)] for count in self.shape
        )
        row_sides = [self._taken(self.rows, b, 1) for b in row_blocks]
        column_sides = [self._taken(self.columns, b, 0) for b in column_blocks]
        blocks: dict[tuple[int, int], tuple[Tensor | None, ...]] = {}
        out: list[Tensor | None] = [None, None]
        for p, i in enumerate(row_blocks):
            for q, j in enumerate(column_blocks):
                if self.symmetric and q < p:
                    continue
                made = self._block(row_sides[p], column_sides[q], i, j, which)
                if self.symmetric and p == q:  # the same product in another order rounds differently
                    made = _mirrored(made[0]), _mirrored(made[1])
                if any(b is not None and b.requires_grad for b in made):
                    blocks[p, q] = made
                    continue
                for k, block in enumerate(made):
                    if block is None:
                        continue
                    if out[k] is None:
                        out[k] = torch.empty(n, m, dtype=self.dtype, device=self.device)
                    out[k][i, j] = block  # type: ignore[index]
                    if self.symmetric and q > p:
                        out[k][j, i] = block.T  # type: ignore[index]
        if blocks:
            return self._joined(blocks, len(row_blocks), len(column_blocks))
        empty = [torch.empty(n, m, dtype=self.dtype, device=self.device) if n * m == 0 else None] * 2
        return (out[0], out[1]) if n * m else (empty[0], empty[1])

    def at(self, u: Tensor, which: str) -> tuple[Tensor | None, Tensor | None]:
        """Both kernels of pairs of given u, where all norms are equal."""
        ntk, nngp = which in ("ntk", "both"), which in ("nngp", "both")
        t, s = propagate(self.network, self.duals, self.rows, self.columns, u, None, ntk, nngp)
        return s, t

    def _block(
        self, i: list[Side], j: list[Side], rows: slice, columns: slice, which: str
    ) -> tuple[Tensor | None, Tensor | None]:
        ntk, nngp = which in ("ntk", "both"), which in ("nngp", "both")
        u, dtype = self.inputs.distance(rows, columns), self.dtype
        if self.wide is not None and u.numel() and float(u.detach().amax()) > 2 - _ANTIPODAL:
            i, j, dtype = self._taken(self.wide[0], rows, 1), self._taken(self.wide[1], columns, 0), torch.float64
        u = u.to(dtype)
        if self.symmetric:
            u = _cleared(u, rows, columns, self.inputs)
        start = None
        if ntk and self.inputs.tangent is not None:
            start = self.inputs.tangent(rows, columns).to(dtype)
        t, s = propagate(self.network, self.duals, i, j, u, start, ntk, nngp)
        return s if s is None else s.to(self.dtype), t if t is None else t.to(self.dtype)

    @staticmethod
    def _taken(sides: list[Side], points: slice, axis: int) -> list[Side]:
        return [side.take(points, axis) for side in sides]

    def _joined(self, blocks: dict, n_rows: int, n_columns: int) -> tuple[Tensor | None, Tensor | None]:
        """The matrices from recorded blocks, out of place."""
        found: list[Tensor | None] = []
        for k in range(2):
            if blocks[0, 0][k] is None:
                found.append(None)
                continue
            get = lambda p, q, k=k: blocks[p, q][k] if (p, q) in blocks else blocks[q, p][k].T  # noqa: E731
            found.append(torch.cat([torch.cat([get(p, q) for q in range(n_columns)], 1) for p in range(n_rows)], 0))
        return found[0], found[1]


def _mirrored(block: Tensor | None) -> Tensor | None:
    return None if block is None else block.triu() + block.triu(1).T


def _cleared(u: Tensor, rows: slice, columns: slice, inputs: Inputs) -> Tensor:
    """u with exact zeros for each point and itself (1 where there is no angle)."""
    low, high = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if low >= high:
        return u
    if inputs.rows.ndim:
        none = (inputs.rows[low:high] == 0).to(u.dtype)
    else:
        none = u.new_zeros(high - low)
    points = torch.arange(low, high, device=u.device)
    return u.index_put((points - rows.start, points - columns.start), none)
