"""torch-ngp and its many forks: `get_encoder(name, ...) -> (encoder, output_dim)`, called as `encoder(x, bound=b)`."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.checks import number
from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError

# Their names for what has another name here.
_NAMES = {"None": "none", "frequency": "positional", "hashgrid": "hashgrid"}
_OPTIONS = {
    "multires": "n_frequencies",
    "num_levels": "n_levels",
    "level_dim": "n_features_per_level",
    "desired_resolution": "max_resolution",
}


class BoundedCall(nn.Module):
    r"""Calls an encoding of $[0, 1]^D$ with coordinates of $[-b, b]^D$: $\gamma\big((x + b) / 2b\big)$.

    **Arguments**

    - `encoding`: the encoding.

    **Attributes**

    - `output_dim`: its number of features, under torch-ngp's name.
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        self.input_dim, self.output_dim = encoding.in_dim, encoding.out_dim

    def forward(
        self, x: Shaped[Tensor, "*batch in_dim"], bound: float = 1.0, **_: Any
    ) -> Float[Tensor, "*batch out_dim"]:
        """Features of points in the box of half-width `bound`; other keywords of the hosts are ignored."""
        half = number("bound", bound, 0, above=True)
        return self.encoding((x + half) / (2 * half))


def get_encoder(encoding: str, input_dim: int = 3, **options: Any) -> tuple[nn.Module, int]:
    """An encoder and its number of features, as torch-ngp's `encoding.get_encoder` returns them.

    Names and options of torch-ngp (`frequency` with `multires`, `hashgrid` with `num_levels`, `level_dim`,
    `desired_resolution`, ...) and of this package are understood. `frequency` is the original NeRF's encoding, raw
    input included and without a factor of pi, on coordinates as they are.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name or option; for `tiledgrid`, whose tables are
    never hashed, too.
    """
    if encoding == "tiledgrid":
        raise ConfigError("a tiled grid is not offered; use 'hashgrid' with a larger log2_hashmap_size")
    name = _NAMES.get(encoding, encoding)
    translated = {_OPTIONS.get(key, key): value for key, value in options.items() if key != "align_corners"}
    if encoding == "frequency":
        module: Encoding = encodings.build(
            name, in_dim=input_dim, **{"n_frequencies": 6, "include_input": True, "convention": "nerf", **translated}
        )
        return _Unbounded(module), module.out_dim
    module = encodings.build(name, in_dim=input_dim, **translated)
    return BoundedCall(module), module.out_dim


class _Unbounded(BoundedCall):
    """Takes coordinates as they are: torch-ngp does not rescale them for its frequency encoding."""

    def forward(
        self, x: Shaped[Tensor, "*batch in_dim"], bound: float = 1.0, **_: Any
    ) -> Float[Tensor, "*batch out_dim"]:
        return self.encoding(x)
