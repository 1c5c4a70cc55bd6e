"""No encoding: the coordinates themselves."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import flag
from neuralfield.encodings.base import Encoding, register


@register("none")
class Identity(Encoding):
    r"""$\gamma(x) = x$, or $2x - 1$ when centred.

    The kernel of an MLP on raw coordinates depends on $x \cdot x'$ and on the norms, hence on where the origin lies;
    `centered` puts it in the middle of the cube (Tancik et al. 2020, "No mapping" on their shapes).

    **Arguments**

    - `in_dim`: D.
    - `centered`: map [0, 1] to [-1, 1] first.
    """

    def __init__(self, in_dim: int, centered: bool = False) -> None:
        super().__init__(in_dim)
        self.centered = flag("centered", centered)

    @property
    def out_dim(self) -> int:
        return self.in_dim

    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        return 2 * x - 1 if self.centered else x
