r"""Interpolation weights of a grid as a sparse matrix: its features are $\gamma_{l,f}(x) = \sum_s W_l(x, s)\,t_l(s, f)$."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import engines, reference


class GridWeights:
    r"""W = $[W_1, \dots, W_L]$, one row per point, with $2^D$ numbers per level in it.

    A hash collision is two vertices in one column. On the way of derivatives W is dense over the columns that any point
    touches; else it is sparse.

    **Arguments**

    - `grid`: the encoding.
    - `x`: float64 coordinates; outside the cube the grid's own policy applies.
    """

    def __init__(self, grid: HashGrid, x: Float[Tensor, "n dim"]) -> None:
        self.layout, self.device = grid.layout, x.device
        x, inside = grid.place(x)
        columns, values = [], []
        for level in grid.layout.levels[: grid.active_levels]:
            for index, weight in reference.corners(x, level, grid.interpolation):
                columns.append(index + level.offset)
                values.append(weight if inside is None else weight * inside[:, 0])
        self.columns: Int[Tensor, "n touched"] = torch.stack(columns, 1)
        self.values: Float[Tensor, "n touched"] = torch.stack(values, 1)
        self.recorded = self.values.requires_grad
        if not self.recorded:
            n, touched = self.columns.shape
            self.matrix = sparse.csr_matrix(
                (
                    self.values.cpu().numpy().ravel(),
                    self.columns.cpu().numpy().ravel(),
                    np.arange(n + 1) * touched,
                ),
                shape=(n, grid.layout.n_entries),
            )
            self.matrix.sum_duplicates()

    def norms(self) -> Float[Tensor, " n"]:
        """Length of each row."""
        if self.recorded:
            square = self._dense(self.columns.unique()).square().sum(1)
            return torch.where(square > 0, torch.where(square > 0, square, torch.ones_like(square)).sqrt(), square)
        return self._tensor(np.sqrt(np.asarray(self.matrix.multiply(self.matrix).sum(1)).ravel()))

    def gram(self, other: GridWeights, rows: slice, columns: slice) -> Float[Tensor, "rows columns"]:
        r"""$W W'^\top$ for a block of pairs, summed over levels."""
        if self.recorded or other.recorded:
            touched = torch.cat([self.columns.flatten(), other.columns.flatten()]).unique()
            return self._dense(touched, rows) @ other._dense(touched, columns).T
        return self._tensor((self.matrix[rows] @ other.matrix[columns].T).toarray())

    def squared_distances(self, other: GridWeights, rows: Tensor, columns: Tensor) -> Float[Tensor, " pairs"]:
        """Between normalised rows, for a list of pairs."""
        touched = torch.cat([self.columns[rows].flatten(), other.columns[columns].flatten()]).unique()
        one, two = self._dense(touched, rows), other._dense(touched, columns)
        return (one / self.norms()[rows, None] - two / other.norms()[columns, None]).square().sum(1)

    def _dense(
        self, touched: Int[Tensor, " entries"], rows: Tensor | slice = slice(None)
    ) -> Float[Tensor, "n entries"]:
        """Some rows, and the columns listed in ``touched``, sorted."""
        columns, values = self.columns[rows], self.values[rows]
        place = torch.searchsorted(touched, columns).clamp_(max=len(touched) - 1)
        values = torch.where(touched[place] == columns, values, torch.zeros_like(values))
        return values.new_zeros(len(columns), len(touched)).scatter_add(1, place, values)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def table_features(grid: HashGrid, x: Float[Tensor, "n dim"], table: Float[Tensor, " parameters"]) -> Tensor:
    """The grid's features in float64, whichever engine it would use in float32."""
    x, inside = grid.place(x)
    options = grid.layout, grid.interpolation, "reference", grid.active_levels, grid.table_dtype
    features = engines.encode(x, table, *options)
    return features if inside is None else features * inside
