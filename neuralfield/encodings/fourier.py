"""Gaussian Fourier features: random frequencies whose spread sigma sets the bandwidth of the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.checks import flag, integer, number
from neuralfield.encodings.base import Encoding, register
from neuralfield.errors import ConfigError


@register("fourier")
class Fourier(Encoding):
    r"""$\gamma(x) = \left(a_j \cos 2\pi b_j \cdot x,\; a_j \sin 2\pi b_j \cdot x\right),\quad b_j \sim
    \mathcal{N}(0, \sigma^2 I)$, in cycles per unit (Tancik et al. 2020, eq. 5 and section 6).

    $\gamma(x) \cdot \gamma(x') = \sum_j a_j^2 \cos 2\pi b_j \cdot (x - x')$ depends on the difference alone, so the
    kernel of an MLP on top is stationary, and in expectation over the frequencies
    $\exp(-2\pi^2\sigma^2\lVert x - x'\rVert^2)$ for unit amplitudes divided by their number. A small sigma gives a wide
    kernel, too smooth for the image; a large one a narrow kernel, which fits noise between the samples.

    The order is all cosines, then all sines. `normalize` divides by $\lVert a \rVert$, so that $\lVert\gamma\rVert = 1$;
    without it $\lVert\gamma\rVert^2 = \sum_j a_j^2$, the number of features for unit amplitudes.

    **Arguments**

    - `in_dim`: D.
    - `n_features`: m, the number of frequencies; the output has 2 m features.
    - `sigma`: standard deviation of the frequencies in cycles per unit; one number, or one per axis.
    - `seed`: of the frequencies alone: independent of torch's global state.
    - `amplitudes`: the $a_j$, m numbers; `None` means 1. For $a_j = |b_j|^{-p}$ see `decay`.
    - `decay`: p: multiplies each amplitude by $\max(|b_j|, 1)^{-p}$ (Tancik et al. 2020, figure 2: p from 0 to infinity).
    - `normalize`: unit norm.
    - `trainable`: learn the frequencies; they are a Parameter then, else a buffer. Either way the state_dict has them
      exactly, under the name `frequencies`, [D, m].
    """

    frequencies: Tensor
    amplitudes: Tensor

    def __init__(
        self,
        in_dim: int,
        n_features: int = 256,
        sigma: float | Sequence[float] = 10.0,
        seed: int = 0,
        amplitudes: Sequence[float] | None = None,
        decay: float = 0.0,
        normalize: bool = False,
        trainable: bool = False,
    ) -> None:
        super().__init__(in_dim)
        self.n_features = integer("n_features", n_features, 1, 2**20)
        self.sigma = _per_axis(sigma, self.in_dim)
        seed = integer("seed", seed, 0)
        scale = _amplitudes(amplitudes, self.n_features)
        decay = number("decay", decay, 0)
        normalize, trainable = flag("normalize", normalize), flag("trainable", trainable)
        if torch.get_default_device().type == "meta":  # a field that is being loaded: its numbers come from the file
            frequencies = torch.empty(self.in_dim, self.n_features)
            scale = torch.empty(self.n_features)
        else:
            # float64 noise times sigma, then rounded: the same draw for every sigma, so a sweep varies sigma alone.
            generator = torch.Generator("cpu").manual_seed(seed)
            shape = (self.in_dim, self.n_features)
            noise = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
            frequencies = noise * torch.tensor(self.sigma, dtype=torch.float64, device="cpu")[:, None]
            if decay:
                scale = scale * frequencies.norm(dim=0).clamp_min(1.0) ** -decay
            if normalize:
                scale = scale / scale.norm()
        self.register_buffer("amplitudes", scale.float())
        if trainable:
            self.frequencies = nn.Parameter(frequencies.float())
        else:
            self.register_buffer("frequencies", frequencies.float())

    @property
    def out_dim(self) -> int:
        return 2 * self.n_features

    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        phase = x @ (2 * math.pi * self.frequencies)
        features = torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)
        return features if self._plain() else features * torch.cat([self.amplitudes, self.amplitudes])

    def _plain(self) -> bool:
        """Whether all amplitudes are 1, and can be left out: a look costs nothing on a CPU, but would stop a GPU."""
        amplitudes = self.amplitudes
        return amplitudes.device.type == "cpu" and not torch.compiler.is_compiling() and bool((amplitudes == 1).all())


def _per_axis(sigma: float | Sequence[float], in_dim: int) -> list[float]:
    values = list(sigma) if isinstance(sigma, Sequence) and not isinstance(sigma, str) else [sigma] * in_dim
    if len(values) != in_dim:
        raise ConfigError(f"sigma needs one number, or {in_dim} (one per axis); got {len(values)}")
    return [number("sigma", value, 0, above=True) for value in values]  # type: ignore[arg-type]


def _amplitudes(amplitudes: Sequence[float] | None, count: int) -> Tensor:
    if amplitudes is None:
        return torch.ones(count, dtype=torch.float64, device="cpu")
    if not isinstance(amplitudes, Sequence) or isinstance(amplitudes, str):
        raise ConfigError(f"amplitudes must be a list of {count} numbers, got {amplitudes!r}")
    values = [number("amplitudes", value, 0) for value in amplitudes]
    if len(values) != count:
        raise ConfigError(f"amplitudes needs {count} numbers, one per frequency (n_features); got {len(values)}")
    if not any(values):
        raise ConfigError("amplitudes are all zero; at least one must be positive")
    return torch.tensor(values, dtype=torch.float64, device="cpu")
