r"""The part of a hash grid's table in a tangent kernel.

The features of level l are $W_l T_l$: the table's rows, interpolated by a matrix that has $2^D$ numbers per point. So the
derivative of an output to the table is the outer product of the point's row of $W_l$ and of the signal
$g_l = \partial f / \partial (W_l T_l)$, exactly as that of a layer is of its inputs and its signal, and the level's part is

$$ K_l(x, x') = (W_l W_l^\top)(x, x')\; g_l(x) \cdot g_l(x'). $$

Vertices that share a row by the hash are one column of $W_l$: collisions add to the kernel. Two points that touch no
common row have no part in common, whatever the network does: the table's kernel is local.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.encodings.hashgrid import HashGrid, reference
from neuralfield.encodings.hashgrid.layout import Level


@dataclass
class Interpolation:
    """Some rows of $W_l$: for each of n points the k rows of the table that it touches, and their weights.

    A row may come more than once for a point, when two corners of its cell collide; its weights add.
    """

    index: Int[Tensor, "n k"]
    weight: Float[Tensor, "n k"]

    def block(self, points: slice) -> Block:
        """The same of some of the points."""
        touched, place = torch.unique(self.index[points], return_inverse=True)
        return Block(touched, place, self.weight[points])


@dataclass
class Block:
    """An :class:`Interpolation` without the rows of the table that none of its points touches.

    - `touched`: the others, ascending.
    - `place`, `weight`: for each point which of those it touches, and their weights.
    """

    touched: Int[Tensor, " rows"]
    place: Int[Tensor, "n k"]
    weight: Float[Tensor, "n k"]

    def gram(self, other: Block) -> Float[Tensor, "n m"] | None:
        """$W_l W_l^T$ of these points and those of another block, or None where they touch no common row.

        The other block's side is made dense, but only in the rows that both touch: on fine levels these are few.
        """
        found = torch.searchsorted(other.touched, self.touched).clamp_max_(max(len(other.touched) - 1, 0))
        common = other.touched[found] == self.touched
        count = int(common.sum())
        if count == 0:
            return None
        # Numbers of the common rows; what is not common goes to one more row, which is zero on the other's side.
        mine = torch.where(common, common.cumsum(0) - 1, count)
        theirs = torch.full_like(other.touched, count).index_put_((found[common],), mine[common])
        m = len(other.place)
        of_point = torch.arange(m, device=mine.device)[:, None].expand_as(other.place)
        dense = other.weight.new_zeros(count + 1, m)
        dense.index_put_((theirs[other.place], of_point), other.weight, accumulate=True)
        dense[count] = 0
        return F.embedding_bag(mine[self.place], dense, per_sample_weights=self.weight, mode="sum")


def interpolation(x: Float[Tensor, "n dim"], level: Level, kind: str) -> Interpolation:
    """The rows of $W_l$ of points in [0, 1]^D, by the arithmetic of :mod:`neuralfield.encodings.hashgrid.reference`."""
    indices, weights = zip(*reference.corners(x, level, kind), strict=True)
    return Interpolation(torch.stack(indices, dim=1), torch.stack(weights, dim=1))


def levels(grid: HashGrid, x: Float[Tensor, "n dim"]) -> list[Interpolation]:
    """The rows of $W_l$ of every active level, coarsest first, for points anywhere, as :meth:`HashGrid.place` has them."""
    x, inside = grid.place(x)
    found = [interpolation(x, level, grid.interpolation) for level in grid.layout.levels[: grid.active_levels]]
    if inside is None:
        return found
    return [Interpolation(part.index, part.weight * inside) for part in found]
