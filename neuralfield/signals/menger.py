"""The Menger sponge, made of boxes: inside, surface and distance are exact."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64

from neuralfield import checks
from neuralfield.signals.colour import Option
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.solid import Points, Solid

LEVEL = 3
_CELLS = 3**LEVEL


class MengerSponge(Solid):
    r"""Level 3 of Menger's sponge: 20^3 cubes of side 1/27.

    A cube of $27^3$ cells, of which stay those whose ternary digits, at none of three places, are 1 along two or more
    axes. Volume $(20/27)^3$ and area $2 (20/9)^3 + 4 (8/9)^3$ for a side of 1. Inside is exact; distances are those to
    the 36,096 triangles of its surface, which is exact to rounding.

    **Arguments**

    - `margin`: between the sponge and the sides of the unit cube, 0 to 0.45.
    """

    version = 1

    def __init__(self, margin: Option = 0.05) -> None:
        self.margin = checks.number("signal.margin", margin, 0, 0.45)
        self.side = 1 - 2 * self.margin
        self.name = "menger"
        self.identity = f"{self.name} {self.version} {self.margin!r}"

    @property
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Exact."""
        return np.full(3, self.margin), np.full(3, 1 - self.margin)

    @property
    def area(self) -> float:
        """Of the surface, for a cube of side 1."""
        return (2 * (20 / 9) ** LEVEL + 4 * (8 / 9) ** LEVEL) * self.side**2

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Whether the cell of each point stays; a cell has its lower sides, not its upper ones."""
        cell = np.floor((np.asarray(points, np.float64) - self.margin) * (_CELLS / self.side)).astype(np.int64)
        within = ((cell >= 0) & (cell < _CELLS)).all(axis=1)
        x, y, z = np.where(within[:, None], cell, 0).T
        return within & _sponge()[x, y, z]

    def mesh(self, resolution: int | None = None) -> TriangleMesh:
        """Two triangles for each of the 18,048 squares of the surface, whatever the `resolution`."""
        return self._mesh

    @cached_property
    def _mesh(self) -> TriangleMesh:
        corners, numbers = np.unique(_squares().reshape(-1, 3), axis=0, return_inverse=True)
        a, b, c, d = numbers.reshape(-1, 4).T
        faces = np.stack([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)], axis=1).reshape(-1, 3)
        return TriangleMesh(self.margin + corners * (self.side / _CELLS), faces)


def _sponge() -> Bool[np.ndarray, "27 27 27"]:
    """Which of the cells stay."""
    x, y, z = np.ogrid[:_CELLS, :_CELLS, :_CELLS]
    stays = np.ones((_CELLS,) * 3, bool)
    for place in 3 ** np.arange(LEVEL):
        ones = sum((axis // place % 3 == 1).astype(np.int8) for axis in (x, y, z))
        stays &= ones < 2
    return stays


def _squares() -> np.ndarray:
    """Corners of the squares between a cell that stays and one that does not, ``[s, 4, 3]`` in cells.

    Seen from outside they follow each other counter-clockwise.
    """
    padded = np.pad(_sponge(), 1)
    squares = []
    for axis in range(3):
        across, along = np.eye(3, dtype=np.int64)[(axis + 1) % 3], np.eye(3, dtype=np.int64)[(axis + 2) % 3]
        before = np.moveaxis(padded, axis, 0)[:-1]
        after = np.moveaxis(padded, axis, 0)[1:]
        for wall, order in ((before & ~after, (0, 1, 2, 3)), (after & ~before, (0, 3, 2, 1))):
            first = np.stack(np.nonzero(wall), axis=1)
            first[:, 1:] -= 1  # of the padding; along the axis, square k lies before cell k of the sponge
            first = np.insert(first[:, 1:], axis, first[:, 0], axis=1)
            ring = np.stack([first, first + across, first + across + along, first + along], axis=1)
            squares.append(ring[:, order])
    return np.concatenate(squares)
