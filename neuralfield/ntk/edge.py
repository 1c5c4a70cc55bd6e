"""Where steps become too large: the first eigenvector of a weighted sum of kernels; see :mod:`.adam`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

POWERS = 3  # products for the first eigenvector, which hardly turns from one interval to the next


class Edge:
    """Kernels between the same points, [*windows, k, parts, k], whose weights change."""

    def __init__(self, parts: Float[Tensor, "*windows k parts k"]) -> None:
        self.parts = parts
        self.first = parts.new_ones(*parts.shape[:-2], 1)

    def forms(self, weights: Float[Tensor, " parts"]) -> Float[Tensor, " parts"]:
        r"""$u^\top K_g u$ of every part at the first eigenvector of their sum: of the window where it is largest."""
        total = weights @ self.parts
        for _ in range(POWERS):
            found = total @ self.first
            self.first = found / found.norm(dim=-2, keepdim=True)
        u = self.first[..., 0]
        forms = torch.einsum("...n,...ngm,...m->...g", u, self.parts, u).reshape(-1, len(weights))
        return forms[(forms @ weights).argmax()]
