"""Positional encoding: sines and cosines of each coordinate at log-spaced frequencies."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.checks import choice, flag, integer, number
from neuralfield.encodings.base import Encoding, register
from neuralfield.errors import ConfigError

# Cycles per unit of the lowest octave, 2^0, in each convention: neuralfield and nerfstudio take sin(2 pi 2^k x),
# tiny-cuda-nn sin(pi 2^k x), the original NeRF, torch-ngp and nerfacc's examples sin(2^k x).
_CYCLES = {
    "neuralfield": 1.0,
    "nerfstudio": 1.0,
    "tinycudann": 0.5,
    "nerf": 0.5 / math.pi,
    "nerfacc": 0.5 / math.pi,
}


@register("positional")
class Positional(Encoding):
    r"""$\gamma(x) = (\sin 2\pi f_k x_d,\; \cos 2\pi f_k x_d)$ for every axis $d$ and frequency
    $f_k = f_0\,r^k,\; k = 0 \dots n-1$, in cycles per unit.

    With the defaults $f_k = 2^k$: NeRF (Mildenhall et al. 2020, eq. 4) up to its factor of $\pi$. With a
    `max_frequency` the n frequencies are spaced evenly in the logarithm from $f_0$ to that maximum (Tancik et al. 2020,
    section 6, "positional encoding"); frequencies lie on the axes only, so the kernel has ridges along them.

    Order of the features, by `convention` (the frequencies change with it too):

    | convention    | phase           | order |
    |---------------|-----------------|-------|
    | `neuralfield` | $2\pi f_k x_d$  | x, all sines, all cosines; within each axis by axis, frequency fastest |
    | `nerfstudio`  | $2\pi f_k x_d$  | all sines, all cosines (axis by axis, frequency fastest), x last |
    | `tinycudann`  | $\pi f_k x_d$   | axis by axis, frequency by frequency, sine then cosine; never x |
    | `nerf`        | $f_k x_d$       | x, then for each frequency: sines of all axes, cosines of all axes (also torch-ngp) |
    | `nerfacc`     | $f_k x_d$       | x, all sines, all cosines; within each frequency by frequency, axis fastest |

    **Arguments**

    - `in_dim`: D.
    - `n_frequencies`: n, per axis. `None` with a `max_frequency`: one per octave.
    - `max_frequency`: the highest $f_k$; `None` means $f_0\,2^{n-1}$.
    - `min_frequency`: $f_0$, the lowest.
    - `include_input`: also hand through x itself.
    - `convention`: one of the table.
    """

    frequencies: Tensor

    def __init__(
        self,
        in_dim: int,
        n_frequencies: int | None = 8,
        max_frequency: float | None = None,
        min_frequency: float = 1.0,
        include_input: bool = False,
        convention: str = "neuralfield",
    ) -> None:
        super().__init__(in_dim)
        self.convention = choice("convention", convention, _CYCLES)
        self.include_input = flag("include_input", include_input)
        if self.convention == "tinycudann" and self.include_input:
            raise ConfigError("tiny-cuda-nn's Frequency encoding has no raw input; set include_input=false")
        low = number("min_frequency", min_frequency, 0, above=True)
        self.n_frequencies, high = _count_and_maximum(n_frequencies, max_frequency, low)
        if torch.get_default_device().type == "meta":  # to be loaded; and to compute there torch imports its compiler
            frequencies = torch.empty(self.n_frequencies)
        else:
            exponents = torch.linspace(math.log2(low), math.log2(high), self.n_frequencies, dtype=torch.float64)
            frequencies = (torch.exp2(exponents) * _CYCLES[convention]).float()
        self.register_buffer("frequencies", frequencies)
        """Cycles per unit, [n_frequencies]."""

    @property
    def out_dim(self) -> int:
        return 2 * self.in_dim * self.n_frequencies + self.in_dim * self.include_input

    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        phase = 2 * math.pi * (x[:, :, None] * self.frequencies).flatten(1)  # [n, D * n_frequencies], frequency fastest
        raw = [x] if self.include_input else []
        if self.convention == "neuralfield":
            return torch.cat([*raw, torch.sin(phase), torch.cos(phase)], dim=-1)
        plain = torch.cat([torch.sin(phase), torch.cos(phase), *raw], dim=-1)
        return plain[:, self.order().to(x.device)]

    def order(self) -> Int[Tensor, " out_dim"]:
        """Where each output feature stands in the plain order: all sines, all cosines (axis by axis), then x.

        Two encodings with equal frequencies differ by these permutations alone:
        ``theirs = ours[:, ours_module.order().argsort()[theirs_module.order()]]``.
        """
        n, d = self.n_frequencies, self.in_dim
        sines = torch.arange(d * n).reshape(d, n)
        cosines = sines + d * n
        raw = torch.arange(d * self.include_input) + 2 * d * n
        if self.convention == "nerfstudio":
            parts = [sines, cosines, raw]
        elif self.convention == "tinycudann":
            parts = [torch.stack([sines, cosines], dim=-1)]
        elif self.convention == "nerf":
            parts = [raw, torch.stack([sines.T, cosines.T], dim=1)]
        elif self.convention == "nerfacc":
            parts = [raw, sines.T, cosines.T]
        else:
            parts = [raw, sines, cosines]
        return torch.cat([part.flatten() for part in parts])


def _count_and_maximum(count: int | None, maximum: float | None, low: float) -> tuple[int, float]:
    """The number of frequencies and the highest of them, from whichever of the two was given."""
    if maximum is not None:
        maximum = number("max_frequency", maximum, low)
    if count is None:
        if maximum is None:
            raise ConfigError("give n_frequencies or max_frequency; both are None")
        octaves = math.floor(math.log2(maximum / low) + 1e-9)
        return octaves + 1, low * 2.0**octaves
    count = integer("n_frequencies", count, 1, 4096)
    if maximum is None:
        return integer("n_frequencies without a max_frequency", count, 1, 64), low * 2.0 ** (count - 1)
    if count == 1 and maximum != low:
        raise ConfigError(f"one frequency cannot reach from min_frequency={low:g} to max_frequency={maximum:g}")
    return count, maximum
