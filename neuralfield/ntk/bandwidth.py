"""How far a stationary kernel reaches, in space and in frequency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice, integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import finite
from neuralfield.ntk.toeplitz import StationaryKernel

_SAMPLES = 4096  # along half the cube, before the crossing is refined


@dataclass(frozen=True)
class Bandwidth:
    r"""One direction of a stationary kernel k(x - x').

    - `fwhm`: full width at half maximum, in units of the cube; infinity if the kernel does not fall to half of its maximum
      within the cube (a constant part, as biases make, keeps it up: see `baseline`).
    - `frequencies`: $f = 0, 1, \dots$, in cycles per unit.
    - `power`: $P(f) = \int_{-1}^1 (1 - |s|)\, k(s)\, e^{-2\pi i f s}\, ds$, the expected power at frequency f of a function
      drawn with covariance k on the unit interval: never negative, and $P(0) + 2 \sum_{f>0} P(f) = k(0)$. Approximately
      the eigenvalues of the kernel of n points on that line, divided by n.
    - `direction`: the unit vector along which this is.
    """

    fwhm: float
    frequencies: Float[Tensor, " f"]
    power: Float[Tensor, " f"]
    direction: tuple[float, ...]

    def in_pixels(self, size: int) -> float:
        """The full width at half maximum in pixels of a grid with `size` of them per unit."""
        return self.fwhm * integer("size", size, 1)

    def frequency_below(self, fraction: float = 0.5) -> float:
        """The frequency below which this part of the power lies, the constant (f = 0) left out; cycles per unit."""
        fraction = number("fraction", fraction, 0, 1)
        total = self.power[1:].clamp_min(0).cumsum(0)
        if len(total) == 0 or float(total[-1]) == 0:
            return 0.0
        wanted = torch.tensor([fraction * float(total[-1])], dtype=total.dtype)
        return float(self.frequencies[1 + min(int(torch.searchsorted(total, wanted)), len(total) - 1)])

    def __repr__(self) -> str:
        half = self.frequency_below(0.5)
        return f"Bandwidth(fwhm={self.fwhm:.4g} of the cube, half of the power below {half:g} cycles per unit)"


def bandwidth(
    kernel: StationaryKernel,
    in_dim: int,
    axis: int | Sequence[float] = 0,
    which: str = "ntk",
    baseline: str = "zero",
    n_samples: int = 1024,
) -> Bandwidth:
    r"""Width and power spectrum of a stationary kernel along one direction.

    The expected Gaussian Fourier kernel $e^{-2\pi^2\sigma^2 s^2}$ has a width of $\sqrt{2 \ln 2}/(\pi \sigma) \approx
    0.375/\sigma$ and the power of a normal distribution of standard deviation $\sigma$.

    **Arguments**

    - `kernel`: a stationary one.
    - `in_dim`: D, dimension of its coordinates.
    - `axis`: of the coordinates (0 is x), or a direction, D numbers of any length.
    - `which`: "ntk" or "nngp".
    - `baseline`: half of what? "zero": of k(0); "mean": halfway between k(0) and the mean of k over the line, which
      leaves out a constant part.
    - `n_samples`: of the line for the power spectrum; frequencies go up to half of it, and higher ones fold back.

    Raises ConfigError for a kernel that is not stationary, a direction that is zero or of another dimension.
    """
    choice("which", which, ("ntk", "nngp")), choice("baseline", baseline, ("zero", "mean"))
    n = integer("n_samples", n_samples, 2, 2**22)
    if not getattr(kernel, "stationary", False):
        raise ConfigError(f"{kernel!r} is not stationary: its width differs from place to place")
    direction = _direction(axis, integer("in_dim", in_dim, 1))

    def along(s: Tensor) -> Tensor:
        parts = [kernel.of_offsets(part[:, None] * direction, which).detach() for part in s.split(2**14)]
        return finite("the kernel", torch.cat(parts)).to("cpu", torch.float64)

    index = torch.arange(n, dtype=torch.float64)
    values = along(index / n)
    # sum over d = -(n-1) .. n-1 of (n - |d|) k(d/n) cos(2 pi f d/n) / n^2, by one transform of length n
    tapered = (n - index) * values
    folded = torch.cat([tapered[:1], tapered[1:] + tapered[1:].flip(0)])
    power = torch.fft.fft(folded).real[: n // 2 + 1] / n**2
    floor = 0.0 if baseline == "zero" else float(power[0])
    fwhm = _width(along, floor)
    frequencies = torch.arange(len(power), dtype=torch.float64)
    return Bandwidth(fwhm, frequencies, power, tuple(direction.tolist()))


def _width(along: Callable[[Tensor], Tensor], floor: float) -> float:
    """Twice the first distance at which k has fallen halfway to the floor: bracketed on a grid, then bisected."""
    s = torch.linspace(0, 1, _SAMPLES + 1, dtype=torch.float64)
    # Finer near 0 as well, where a narrow kernel would fall between two points of an even grid.
    s = torch.cat([s[:1], torch.logspace(-9, math.log10(float(s[1])), 64, dtype=torch.float64)[:-1], s[1:]])
    values = along(s)
    half = (float(values[0]) + floor) / 2
    below = (values < half).nonzero()
    if len(below) == 0:
        return math.inf
    high = float(s[int(below[0])])
    low = float(s[int(below[0]) - 1])
    for _ in range(60):
        middle = (low + high) / 2
        if float(along(torch.tensor([middle], dtype=torch.float64))[0]) < half:
            high = middle
        else:
            low = middle
    return low + high


def _direction(axis: int | Sequence[float], in_dim: int) -> Tensor:
    if isinstance(axis, int):
        return torch.eye(in_dim, dtype=torch.float64)[integer("axis", axis, 0, in_dim - 1)]
    vector = torch.tensor([number("axis", a) for a in axis], dtype=torch.float64)
    if len(vector) != in_dim or float(vector.norm()) == 0:
        raise ConfigError(f"axis must be 0 to {in_dim - 1}, or a direction of {in_dim} numbers, not all 0; got {axis}")
    return vector / vector.norm()
