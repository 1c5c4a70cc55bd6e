"""Where steps become too large: the first eigenvector of a weighted sum of kernels; see :mod:`.adam`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.ntk.toeplitz_sum import ToeplitzSum

_POWERS = 3  # products for the first eigenvector, which hardly turns from one interval to the next


class Edge(ABC):
    """Kernels between the same points, whose weights change; `first`: the eigenvector, [*windows, k, 1]."""

    def __init__(self, first: Float[Tensor, "*windows k 1"]) -> None:
        self.first = first

    def forms(self, weights: Float[Tensor, " parts"]) -> Float[Tensor, " parts"]:
        r"""$u^\top K_g u$ of every part at the first eigenvector of their sum: of the window where it is largest."""
        product = self._sum(weights)
        for _ in range(_POWERS):
            found = product(self.first)
            self.first = found / found.norm(dim=-2, keepdim=True)
        forms = self._forms()
        return forms[(forms @ weights).argmax()]

    @abstractmethod
    def _sum(self, weights: Tensor) -> Callable[[Tensor], Tensor]:
        """Products with the sum."""

    @abstractmethod
    def _forms(self) -> Float[Tensor, "windows parts"]:
        """At the eigenvector."""


class MatrixEdge(Edge):
    """Of matrices, [*windows, k, parts, k]."""

    def __init__(self, parts: Float[Tensor, "*windows k parts k"]) -> None:
        super().__init__(parts.new_ones(*parts.shape[:-2], 1))
        self.parts = parts

    def _sum(self, weights: Tensor) -> Callable[[Tensor], Tensor]:
        total = weights @ self.parts
        return lambda u: total @ u

    def _forms(self) -> Tensor:
        u = self.first[..., 0]
        return torch.einsum("...n,...ngm,...m->...g", u, self.parts, u).reshape(-1, self.parts.shape[-2])


class GridEdge(Edge):
    """Of operators on one grid."""

    def __init__(self, parts: ToeplitzSum, first: Float[Tensor, "k 1"]) -> None:
        super().__init__(first)
        self.parts = parts

    def _sum(self, weights: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda u: self.parts.product(self.parts.transform(u), weights)

    def _forms(self) -> Tensor:
        return self.parts.forms(self.parts.transform(self.first))[None]
