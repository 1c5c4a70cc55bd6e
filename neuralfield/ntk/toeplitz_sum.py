r"""Weighted sums of Toeplitz operators on one grid, whose weights change from product to product.

The transform of a vector serves all of them: of $\sum_g w_g K_g v$ the symbols are summed, and the quadratic forms
$v^\top K_g v$ are sums over the transform of v alone (Parseval), without a transform back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.toeplitz import ToeplitzOperator


class ToeplitzSum:
    """Operators with the same grids of rows and of columns.

    **Arguments**

    - `operators`: at least one; all square, or none.

    Raises ConfigError where the grids differ.
    """

    def __init__(self, operators: Sequence[ToeplitzOperator]) -> None:
        self.operators = list(operators)
        grids = {(o.rows_shape, o.columns_shape, o.symmetric) for o in self.operators}
        if len(grids) != 1:
            shown = ", ".join(sorted(repr(o) for o in self.operators)) or "none"
            raise ConfigError(f"a sum needs operators of one grid; got {shown}")
        self.one = self.operators[0]
        symbols = torch.stack([o.symbol for o in self.operators])
        # The symbol of an even table is real. The last axis is stored by half; the other half counts too.
        self.symbols = symbols.real.contiguous() if self.one.symmetric else symbols
        length = self.one.lengths[-1]
        counted = self.symbols.new_full(self.symbols.shape[-1:], 2.0)
        counted[0] = 1.0
        if length % 2 == 0:
            counted[-1] = 1.0
        self._counted = counted / self.one.points

    def transform(self, v: Float[Tensor, "columns k"]) -> Tensor:
        """Of k vectors; see :meth:`ToeplitzOperator.transform`."""
        return self.one.transform(v.T.reshape(-1, *self.one.columns_shape))

    def forms(self, z: Tensor) -> Float[Tensor, " operators"]:
        r"""$\sum_k v_k^\top K_g v_k$ of every operator, from the transforms of the v; for square ones."""
        power = (z.real.square() + z.imag.square()).sum(dim=0) * self._counted.real
        return self.symbols.flatten(1) @ power.flatten()

    def product(self, z: Tensor, weights: Float[Tensor, " operators"]) -> Float[Tensor, "rows k"]:
        r"""$\sum_g w_g K_g v$ from the transforms of v."""
        total = torch.einsum("g,g...->...", weights.to(self.symbols.dtype), self.symbols)
        return self.one.inverse(z * total).reshape(len(z), -1).T

    def total(self, weights: Float[Tensor, " operators"]) -> ToeplitzOperator:
        r"""$\sum_g w_g K_g$ as an operator."""
        table = sum(w * o.table for w, o in zip(weights.tolist(), self.operators, strict=True))
        assert isinstance(table, Tensor)
        return ToeplitzOperator(table, None if self.one.symmetric else self.one.columns_shape)

    def diagonal(self) -> Float[Tensor, " operators"]:
        """The value at offset 0 of every operator; for square ones."""
        return torch.stack([o.table.flatten()[o.table.numel() // 2] for o in self.operators])
